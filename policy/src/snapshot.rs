//! The snapshot: the immutable, indexed policy that a replica decides from.
//!
//! Cloning is O(1) (persistent maps), and a change costs O(log n) in the number of objects: one
//! changed window among 100,000 never rebuilds the rest. Uniqueness (names, keys, ports) is settled
//! before objects come here (`tidegate_crds::assemble`); should two objects claim one value all the
//! same, the one that has it keeps it, and the next in line gets it when that one lets go.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::model::{
    KeyBlob, Label, Login, LoginUser, Mesh, ObjectKey, Terminal, TerminalSelector, UserSelector,
    Window,
};

/// Two are equal if they hold the same objects and, where objects claim one value, the same order.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    mesh: Arc<Mesh>,
    users: OrdMap<ObjectKey, Arc<LoginUser>>,
    terminals: OrdMap<ObjectKey, Arc<Terminal>>,
    windows: OrdMap<ObjectKey, Arc<Window>>,
    logins: Claims<Login>,
    user_keys: Claims<KeyBlob>,
    members: Many<Label>,
    terminal_names: Claims<Label>,
    terminal_keys: Claims<KeyBlob>,
    listen_ports: Claims<u16>,
    /// Windows by what they name, as written: logins, groups, terminals of their namespace.
    windows_by_login: Many<Login>,
    windows_by_group: Many<Label>,
    windows_by_terminal: Many<ObjectKey>,
    /// Windows that have a selector, by their namespace.
    windows_by_selector: Many<Label>,
}

/// Values that belong to one object each. The claimants in the order in which they came: the first
/// has it.
type Claims<K> = OrdMap<K, Arc<[ObjectKey]>>;

/// Values that many objects share.
type Many<K> = OrdMap<K, OrdSet<ObjectKey>>;

fn claim<K: Ord + Clone>(claims: &mut Claims<K>, value: &K, key: &ObjectKey) {
    let held = claims.get(value).map_or(&[][..], |held| held);
    if !held.contains(key) {
        let held = held.iter().chain([key]).cloned().collect();
        claims.insert(value.clone(), held);
    }
}

fn release<K: Ord + Clone>(claims: &mut Claims<K>, value: &K, key: &ObjectKey) {
    let Some(held) = claims.get(value) else { return };
    let held: Arc<[ObjectKey]> = held.iter().filter(|other| *other != key).cloned().collect();
    if held.is_empty() {
        claims.remove(value);
    } else {
        claims.insert(value.clone(), held);
    }
}

/// Moves an object's claims from its former values to its new ones; what stays keeps its place.
fn reclaim<K: Ord + Clone>(claims: &mut Claims<K>, old: &[&K], new: &[&K], key: &ObjectKey) {
    for value in old.iter().filter(|value| !new.contains(value)) {
        release(claims, value, key);
    }
    for value in new {
        claim(claims, value, key);
    }
}

fn holder<'a, K: Ord, T>(
    claims: &Claims<K>,
    objects: &'a OrdMap<ObjectKey, Arc<T>>,
    value: &K,
) -> Option<&'a Arc<T>> {
    objects.get(claims.get(value)?.first()?)
}

fn relist<'a, K: Ord + Clone + 'a>(
    many: &mut Many<K>,
    old: impl IntoIterator<Item = &'a K>,
    new: impl IntoIterator<Item = &'a K>,
    key: &ObjectKey,
) {
    for value in old {
        let Some(set) = many.get_mut(value) else { continue };
        set.remove(key);
        if set.is_empty() {
            many.remove(value);
        }
    }
    for value in new {
        many.entry(value.clone()).or_default().insert(key.clone());
    }
}

impl Snapshot {
    /// An empty policy: nothing is admitted.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            mesh: Arc::new(mesh),
            users: OrdMap::new(),
            terminals: OrdMap::new(),
            windows: OrdMap::new(),
            logins: OrdMap::new(),
            user_keys: OrdMap::new(),
            members: OrdMap::new(),
            terminal_names: OrdMap::new(),
            terminal_keys: OrdMap::new(),
            listen_ports: OrdMap::new(),
            windows_by_login: OrdMap::new(),
            windows_by_group: OrdMap::new(),
            windows_by_terminal: OrdMap::new(),
            windows_by_selector: OrdMap::new(),
        }
    }

    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Takes another version of the Mesh; the objects stay.
    pub fn set_mesh(&mut self, mesh: impl Into<Arc<Mesh>>) {
        self.mesh = mesh.into();
    }

    pub fn put_user(&mut self, user: impl Into<Arc<LoginUser>>) {
        let user = user.into();
        self.change_user(&user.meta.key.clone(), Some(user));
    }

    pub fn remove_user(&mut self, key: &ObjectKey) {
        self.change_user(key, None);
    }

    fn change_user(&mut self, key: &ObjectKey, new: Option<Arc<LoginUser>>) {
        let old = self.users.get(key).cloned();
        let (old, fresh) = (old.as_deref(), new.as_deref());
        let logins = |user: Option<&'_ LoginUser>| user.map(|user| user.login.clone());
        let (was, is) = (logins(old), logins(fresh));
        reclaim(&mut self.logins, &refs(&was), &refs(&is), key);
        let (was, is) = (keys(old.map(|u| &u.public_keys)), keys(fresh.map(|u| &u.public_keys)));
        reclaim(&mut self.user_keys, &was, &is, key);
        let groups =
            |user: Option<&LoginUser>| user.map(|user| user.groups.clone()).unwrap_or_default();
        relist(&mut self.members, &groups(old), &groups(fresh), key);
        match new {
            Some(user) => self.users.insert(key.clone(), user),
            None => self.users.remove(key),
        };
    }

    pub fn put_terminal(&mut self, terminal: impl Into<Arc<Terminal>>) {
        let terminal = terminal.into();
        self.change_terminal(&terminal.meta.key.clone(), Some(terminal));
    }

    pub fn remove_terminal(&mut self, key: &ObjectKey) {
        self.change_terminal(key, None);
    }

    fn change_terminal(&mut self, key: &ObjectKey, new: Option<Arc<Terminal>>) {
        let old = self.terminals.get(key).cloned();
        let (old, fresh) = (old.as_deref(), new.as_deref());
        let name = Some(key.name.clone());
        let (was, is) = (old.and(name.as_ref()), fresh.and(name.as_ref()));
        reclaim(&mut self.terminal_names, was.as_slice(), is.as_slice(), key);
        let (was, is) = (keys(old.map(|t| &t.public_keys)), keys(fresh.map(|t| &t.public_keys)));
        reclaim(&mut self.terminal_keys, &was, &is, key);
        let ports = |terminal: Option<&Terminal>| -> Vec<u16> {
            let services = terminal.map_or(&[][..], |terminal| &terminal.services);
            services.iter().filter_map(|service| service.listen_port).collect()
        };
        let (was, is) = (ports(old), ports(fresh));
        reclaim(&mut self.listen_ports, &refs(&was), &refs(&is), key);
        match new {
            Some(terminal) => self.terminals.insert(key.clone(), terminal),
            None => self.terminals.remove(key),
        };
    }

    pub fn put_window(&mut self, window: impl Into<Arc<Window>>) {
        let window = window.into();
        self.change_window(&window.meta.key.clone(), Some(window));
    }

    pub fn remove_window(&mut self, key: &ObjectKey) {
        self.change_window(key, None);
    }

    fn change_window(&mut self, key: &ObjectKey, new: Option<Arc<Window>>) {
        let old = self.windows.get(key).cloned();
        let none = (UserSelector::default(), TerminalSelector::default());
        let selectors = |window: Option<&'_ Window>| match window {
            None => none.clone(),
            Some(window) => (window.users.clone(), window.terminals.clone()),
        };
        let (old_users, old_terminals) = selectors(old.as_deref());
        let (users, terminals) = selectors(new.as_deref());
        relist(&mut self.windows_by_login, &old_users.names, &users.names, key);
        relist(&mut self.windows_by_group, &old_users.groups, &users.groups, key);
        let full = |terminals: &TerminalSelector| -> Vec<ObjectKey> {
            let full =
                |name: &Label| ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
            terminals.names.iter().map(full).collect()
        };
        relist(&mut self.windows_by_terminal, &full(&old_terminals), &full(&terminals), key);
        let namespace = |terminals: &TerminalSelector| {
            terminals.selector.as_ref().map(|_| key.namespace.clone())
        };
        let (was, is) = (namespace(&old_terminals), namespace(&terminals));
        relist(&mut self.windows_by_selector, &was, &is, key);
        match new {
            Some(window) => self.windows.insert(key.clone(), window),
            None => self.windows.remove(key),
        };
    }

    pub fn user(&self, login: &Login) -> Option<&Arc<LoginUser>> {
        holder(&self.logins, &self.users, login)
    }

    pub fn user_by_key(&self, key: &KeyBlob) -> Option<&Arc<LoginUser>> {
        holder(&self.user_keys, &self.users, key)
    }

    /// By its name, which is unique in the mesh.
    pub fn terminal(&self, name: &Label) -> Option<&Arc<Terminal>> {
        holder(&self.terminal_names, &self.terminals, name)
    }

    pub fn terminal_by_key(&self, key: &KeyBlob) -> Option<&Arc<Terminal>> {
        holder(&self.terminal_keys, &self.terminals, key)
    }

    /// The terminal that declares this listenPort on one of its services.
    pub fn terminal_by_listen_port(&self, port: u16) -> Option<&Arc<Terminal>> {
        holder(&self.listen_ports, &self.terminals, &port)
    }

    pub fn window(&self, key: &ObjectKey) -> Option<&Arc<Window>> {
        self.windows.get(key)
    }

    /// By its object, unlike [`Self::terminal`].
    pub fn terminal_at(&self, key: &ObjectKey) -> Option<&Arc<Terminal>> {
        self.terminals.get(key)
    }

    /// By its object, unlike [`Self::user`].
    pub fn user_at(&self, key: &ObjectKey) -> Option<&Arc<LoginUser>> {
        self.users.get(key)
    }

    /// The windows of one namespace, in the order of their names.
    pub fn windows_in(&self, namespace: &Label) -> impl Iterator<Item = &Arc<Window>> {
        let windows = self.windows.range(first_of(namespace)..).map(|(_, window)| window);
        windows.take_while(move |window| window.meta.key.namespace == *namespace)
    }

    /// The terminals of one namespace, in the order of their names.
    pub fn terminals_in(&self, namespace: &Label) -> impl Iterator<Item = &Arc<Terminal>> {
        let terminals = self.terminals.range(first_of(namespace)..).map(|(_, terminal)| terminal);
        terminals.take_while(move |terminal| terminal.meta.key.namespace == *namespace)
    }

    /// The users that have this group, of whatever namespace.
    pub fn members(&self, group: &Label) -> impl Iterator<Item = &Arc<LoginUser>> {
        self.members.get(group).into_iter().flatten().filter_map(|key| self.users.get(key))
    }

    pub fn users(&self) -> impl Iterator<Item = &Arc<LoginUser>> {
        self.users.values()
    }

    pub fn terminals(&self) -> impl Iterator<Item = &Arc<Terminal>> {
        self.terminals.values()
    }

    pub fn windows(&self) -> impl Iterator<Item = &Arc<Window>> {
        self.windows.values()
    }

    /// The windows that name this user, by name or group, suspended or not, without duplicates, in
    /// the order of their age.
    pub fn windows_of_user(&self, user: &LoginUser) -> Vec<&Arc<Window>> {
        self.oldest_first(self.sets_of_user(user), |window| window.names_user(user))
    }

    /// The windows that select this terminal, by name or selector, suspended or not, in the order of
    /// their age.
    pub fn windows_of_terminal(&self, terminal: &Terminal) -> Vec<&Arc<Window>> {
        self.oldest_first(self.sets_of_terminal(terminal), |window| window.selects(terminal))
    }

    /// The windows that name this user and select this terminal, suspended or not, in the order of
    /// their age. Looks through the shorter of the two lists.
    pub fn windows_between(&self, user: &LoginUser, terminal: &Terminal) -> Vec<&Arc<Window>> {
        let (by_user, by_terminal) = (self.sets_of_user(user), self.sets_of_terminal(terminal));
        let size = |sets: &[&OrdSet<ObjectKey>]| sets.iter().map(|set| set.len()).sum::<usize>();
        let shorter = if size(&by_user) < size(&by_terminal) { by_user } else { by_terminal };
        self.oldest_first(shorter, |window| window.names_user(user) && window.selects(terminal))
    }

    /// The terminals that `window` selects, by name.
    pub fn terminals_of_window(&self, window: &Window) -> Vec<&Arc<Terminal>> {
        let namespace = &window.meta.key.namespace;
        let key = |name: &Label| ObjectKey { namespace: namespace.clone(), name: name.clone() };
        if window.terminals.selector.is_some() {
            return self
                .terminals_in(namespace)
                .filter(|terminal| window.selects(terminal))
                .collect();
        }
        window.terminals.names.iter().filter_map(|name| self.terminals.get(&key(name))).collect()
    }

    /// The login users that `window` names, suspended or not, by namespace and name.
    pub fn users_of_window(&self, window: &Window) -> Vec<&Arc<LoginUser>> {
        let named = window.users.names.iter().filter_map(|login| self.user(login));
        let groups = window.users.groups.iter().filter_map(|group| self.members.get(group));
        let members = groups.flatten().filter_map(|key| self.users.get(key));
        let mut users: Vec<_> =
            named.chain(members).filter(|user| window.names_user(user)).collect();
        users.sort_by(|a, b| a.meta.key.cmp(&b.meta.key));
        users.dedup_by(|a, b| a.meta.key == b.meta.key);
        users
    }

    fn sets_of_user(&self, user: &LoginUser) -> Vec<&OrdSet<ObjectKey>> {
        let named = self.windows_by_login.get(&user.login);
        let groups = user.groups.iter().filter_map(|group| self.windows_by_group.get(group));
        named.into_iter().chain(groups).collect()
    }

    fn sets_of_terminal(&self, terminal: &Terminal) -> Vec<&OrdSet<ObjectKey>> {
        let key = &terminal.meta.key;
        let named = self.windows_by_terminal.get(key);
        named.into_iter().chain(self.windows_by_selector.get(&key.namespace)).collect()
    }

    fn oldest_first<'a>(
        &'a self,
        sets: Vec<&OrdSet<ObjectKey>>,
        keep: impl Fn(&Window) -> bool,
    ) -> Vec<&'a Arc<Window>> {
        let windows = sets.into_iter().flatten().filter_map(|key| self.windows.get(key));
        let mut windows: Vec<_> = windows.filter(|window| keep(window)).collect();
        windows.sort_by(|a, b| a.meta.by_age().cmp(&b.meta.by_age()));
        windows.dedup_by(|a, b| a.meta.key == b.meta.key);
        windows
    }
}

/// The key at or before every other of a namespace: `0` is the first label there is.
fn first_of(namespace: &Label) -> ObjectKey {
    ObjectKey { namespace: namespace.clone(), name: Label::first() }
}

fn refs<'a, T>(values: impl IntoIterator<Item = &'a T>) -> Vec<&'a T> {
    values.into_iter().collect()
}

fn keys(keys: Option<&Vec<KeyBlob>>) -> Vec<&KeyBlob> {
    keys.into_iter().flatten().collect()
}
