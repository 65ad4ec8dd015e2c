//! The snapshot: the immutable, indexed policy that a replica decides from.
//!
//! Cloning is O(1) (persistent maps), and a change costs O(log n) in the number of objects: one
//! changed window among 100,000 never rebuilds the rest. Uniqueness (names, keys, ports) is settled
//! before objects come here (`tidegate_crds::assemble`); should two objects claim one value all the
//! same, the one that has it keeps it, and the next in line gets it when that one lets go.

use std::hash::Hash;
use std::sync::Arc;

use imbl::{HashMap, OrdMap, OrdSet};

use crate::listed::{Listed, Marks};
use crate::model::{
    KeyBlob, Label, LabelRequirement, Login, LoginUser, Mesh, ObjectKey, Terminal, Window,
};

/// Two are equal if they hold the same objects and, where objects claim one value, the same order.
#[derive(Clone, Debug)]
pub struct Snapshot {
    mesh: Arc<Mesh>,
    users: OrdMap<ObjectKey, Arc<LoginUser>>,
    terminals: OrdMap<ObjectKey, Arc<Terminal>>,
    windows: OrdMap<ObjectKey, Arc<Window>>,
    logins: Claims<Login, LoginUser>,
    user_keys: Claims<KeyBlob, LoginUser>,
    members: Many<Label>,
    terminal_names: Claims<Label, Terminal>,
    terminal_keys: Claims<KeyBlob, Terminal>,
    listen_ports: Claims<u16, Terminal>,
    /// Windows by what they name, as written: logins, groups, terminals of their namespace.
    windows_by_login: Lists<Login>,
    windows_by_group: Lists<Label>,
    windows_by_terminal: Lists<ObjectKey>,
    /// Windows that have a selector, each by one requirement of it that names values, under each of
    /// these: see [`places`].
    windows_by_label: Lists<Arc<str>>,
    /// Windows whose selector names no value, by their namespace.
    windows_by_selector: Lists<Label>,
}

/// The lists follow from the windows; under which label a selector is listed is a matter of history.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.mesh == other.mesh
            && self.users == other.users
            && self.terminals == other.terminals
            && self.windows == other.windows
            && self.logins == other.logins
            && self.user_keys == other.user_keys
            && self.terminal_names == other.terminal_names
            && self.terminal_keys == other.terminal_keys
            && self.listen_ports == other.listen_ports
    }
}

/// Values that belong to one object each. The claimants in the order in which they came: the first
/// has it. They are here themselves, not by their keys: a decision finds three of them, and a look for a
/// key among 10,000 is a walk through memory that no cache holds.
type Claims<K, T> = HashMap<K, Arc<[Arc<T>]>>;

/// Values that many users share.
type Many<K> = HashMap<K, OrdSet<ObjectKey>>;

/// Values that many windows share.
type Lists<K> = HashMap<K, Listed>;

/// What claims values.
trait Object {
    fn key(&self) -> &ObjectKey;
}

impl Object for LoginUser {
    fn key(&self) -> &ObjectKey {
        &self.meta.key
    }
}

impl Object for Terminal {
    fn key(&self) -> &ObjectKey {
        &self.meta.key
    }
}

/// In place of its former version, else behind all others.
fn claim<K: Hash + Eq + Clone, T: Object>(claims: &mut Claims<K, T>, value: &K, object: &Arc<T>) {
    let held = claims.get(value).map_or(&[][..], |held| held);
    let at = held.iter().position(|other| other.key() == object.key()).unwrap_or(held.len());
    let (before, after) = (held.iter().take(at), held.iter().skip(at.saturating_add(1)));
    let held = before.chain([object]).chain(after).cloned().collect();
    claims.insert(value.clone(), held);
}

fn release<K: Hash + Eq + Clone, T: Object>(claims: &mut Claims<K, T>, value: &K, key: &ObjectKey) {
    let Some(held) = claims.get(value) else { return };
    let held: Arc<[Arc<T>]> = held.iter().filter(|other| other.key() != key).cloned().collect();
    if held.is_empty() {
        claims.remove(value);
    } else {
        claims.insert(value.clone(), held);
    }
}

/// Moves an object's claims from its former values to its new ones; what stays keeps its place.
fn reclaim<K: Hash + Eq + Clone, T: Object>(
    claims: &mut Claims<K, T>,
    old: &[&K],
    new: &[&K],
    key: &ObjectKey,
    object: Option<&Arc<T>>,
) {
    for value in old.iter().filter(|value| !new.contains(value)) {
        release(claims, value, key);
    }
    for value in new {
        let Some(object) = object else { break };
        claim(claims, value, object);
    }
}

fn holder<'a, K: Hash + Eq, T>(claims: &'a Claims<K, T>, value: &K) -> Option<&'a Arc<T>> {
    claims.get(value)?.first()
}

fn relist<'a, K: Hash + Eq + Clone + 'a>(
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

fn list<'a, K: Hash + Eq + Clone + 'a>(
    lists: &mut Lists<K>,
    values: impl IntoIterator<Item = &'a K>,
    window: &Arc<Window>,
) {
    for value in values {
        lists.entry(value.clone()).or_default().insert(window);
    }
}

fn unlist<'a, K: Hash + Eq + Clone + 'a>(
    lists: &mut Lists<K>,
    values: impl IntoIterator<Item = &'a K>,
    window: &Arc<Window>,
) {
    for value in values {
        let Some(list) = lists.get_mut(value) else { continue };
        list.remove(window);
        if list.is_empty() {
            lists.remove(value);
        }
    }
}

/// Where in `windows_by_label` a terminal of `namespace` with this label looks.
fn place(into: &mut String, namespace: &Label, key: &str, value: &str) {
    into.clear();
    for part in [namespace.as_str(), "\n", key, "\n", value] {
        into.push_str(part);
    }
}

/// Where a window may be listed so that all terminals which its selector matches find it: each element
/// is one such set of places.
fn places(window: &Window) -> Vec<Vec<Arc<str>>> {
    let Some(selector) = &window.terminals.selector else { return Vec::new() };
    let mut text = String::new();
    let mut at = |key: &str, value: &str| -> Arc<str> {
        place(&mut text, &window.meta.key.namespace, key, value);
        text.as_str().into()
    };
    let mut all: Vec<Vec<_>> =
        selector.match_labels.iter().map(|(key, value)| vec![at(key, value)]).collect();
    for requirement in &selector.match_expressions {
        if let LabelRequirement::In(key, values) = requirement {
            all.push(values.iter().map(|value| at(key, value)).collect());
        }
    }
    all
}

impl Snapshot {
    /// An empty policy: nothing is admitted.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            mesh: Arc::new(mesh),
            users: OrdMap::new(),
            terminals: OrdMap::new(),
            windows: OrdMap::new(),
            logins: HashMap::new(),
            user_keys: HashMap::new(),
            members: HashMap::new(),
            terminal_names: HashMap::new(),
            terminal_keys: HashMap::new(),
            listen_ports: HashMap::new(),
            windows_by_login: HashMap::new(),
            windows_by_group: HashMap::new(),
            windows_by_terminal: HashMap::new(),
            windows_by_label: HashMap::new(),
            windows_by_selector: HashMap::new(),
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
        reclaim(&mut self.logins, &refs(&was), &refs(&is), key, new.as_ref());
        let (was, is) = (keys(old.map(|u| &u.public_keys)), keys(fresh.map(|u| &u.public_keys)));
        reclaim(&mut self.user_keys, &was, &is, key, new.as_ref());
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
        reclaim(&mut self.terminal_names, was.as_slice(), is.as_slice(), key, new.as_ref());
        let (was, is) = (keys(old.map(|t| &t.public_keys)), keys(fresh.map(|t| &t.public_keys)));
        reclaim(&mut self.terminal_keys, &was, &is, key, new.as_ref());
        let ports = |terminal: Option<&Terminal>| -> Vec<u16> {
            let services = terminal.map_or(&[][..], |terminal| &terminal.services);
            services.iter().filter_map(|service| service.listen_port).collect()
        };
        let (was, is) = (ports(old), ports(fresh));
        reclaim(&mut self.listen_ports, &refs(&was), &refs(&is), key, new.as_ref());
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
        let old = match &new {
            Some(window) => self.windows.insert(key.clone(), Arc::clone(window)),
            None => self.windows.remove(key),
        };
        if let Some(old) = old {
            self.unlist(&old);
        }
        if let Some(new) = new {
            self.list(&new);
        }
    }

    fn list(&mut self, window: &Arc<Window>) {
        list(&mut self.windows_by_login, &window.users.names, window);
        list(&mut self.windows_by_group, &window.users.groups, window);
        list(&mut self.windows_by_terminal, &named(window), window);
        if window.terminals.selector.is_none() {
            return;
        }
        // Where the fewest are: of two labels, one may be on all terminals.
        let size = |places: &Vec<Arc<str>>| -> usize {
            places.iter().filter_map(|at| self.windows_by_label.get(at)).map(Listed::len).sum()
        };
        match places(window).into_iter().min_by_key(size) {
            Some(places) => list(&mut self.windows_by_label, &places, window),
            None => list(&mut self.windows_by_selector, [&window.meta.key.namespace], window),
        }
    }

    fn unlist(&mut self, window: &Arc<Window>) {
        unlist(&mut self.windows_by_login, &window.users.names, window);
        unlist(&mut self.windows_by_group, &window.users.groups, window);
        unlist(&mut self.windows_by_terminal, &named(window), window);
        // It is in one of these.
        unlist(&mut self.windows_by_label, places(window).iter().flatten(), window);
        unlist(&mut self.windows_by_selector, [&window.meta.key.namespace], window);
    }

    pub fn user(&self, login: &Login) -> Option<&Arc<LoginUser>> {
        holder(&self.logins, login)
    }

    pub fn user_by_key(&self, key: &KeyBlob) -> Option<&Arc<LoginUser>> {
        holder(&self.user_keys, key)
    }

    /// By its name, which is unique in the mesh.
    pub fn terminal(&self, name: &Label) -> Option<&Arc<Terminal>> {
        holder(&self.terminal_names, name)
    }

    pub fn terminal_by_key(&self, key: &KeyBlob) -> Option<&Arc<Terminal>> {
        holder(&self.terminal_keys, key)
    }

    /// The terminal that declares this listenPort on one of its services.
    pub fn terminal_by_listen_port(&self, port: u16) -> Option<&Arc<Terminal>> {
        holder(&self.listen_ports, &port)
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
        oldest_first(self.lists_of_user(user), Marks::of_user(user), |window| {
            window.names_user(user)
        })
    }

    /// The windows that select this terminal, by name or selector, suspended or not, in the order of
    /// their age.
    pub fn windows_of_terminal(&self, terminal: &Terminal) -> Vec<&Arc<Window>> {
        let marks = Marks::of_terminal(terminal);
        oldest_first(self.lists_of_terminal(terminal), marks, |window| window.selects(terminal))
    }

    /// The windows that name this user and select this terminal, suspended or not, in the order of
    /// their age. Looks through the shorter of the two lists.
    pub fn windows_between(&self, user: &LoginUser, terminal: &Terminal) -> Vec<&Arc<Window>> {
        let (by_user, by_terminal) = (self.lists_of_user(user), self.lists_of_terminal(terminal));
        let size = |lists: &[&Listed]| lists.iter().map(|list| list.len()).sum::<usize>();
        let shorter = if size(&by_user) < size(&by_terminal) { by_user } else { by_terminal };
        let marks = Marks::of_user(user).and(Marks::of_terminal(terminal));
        oldest_first(shorter, marks, |window| window.names_user(user) && window.selects(terminal))
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

    fn lists_of_user(&self, user: &LoginUser) -> Vec<&Listed> {
        let named = self.windows_by_login.get(&user.login);
        let groups = user.groups.iter().filter_map(|group| self.windows_by_group.get(group));
        named.into_iter().chain(groups).collect()
    }

    fn lists_of_terminal(&self, terminal: &Terminal) -> Vec<&Listed> {
        let key = &terminal.meta.key;
        let named = self.windows_by_terminal.get(key);
        let mut at = String::new();
        let labels = terminal.labels.iter().filter_map(|(name, value)| {
            place(&mut at, &key.namespace, name, value);
            self.windows_by_label.get(at.as_str())
        });
        let others = self.windows_by_selector.get(&key.namespace);
        named.into_iter().chain(others).chain(labels).collect()
    }
}

fn oldest_first(
    lists: Vec<&Listed>,
    marks: Marks,
    keep: impl Fn(&Window) -> bool,
) -> Vec<&Arc<Window>> {
    let one = lists.len() == 1;
    let windows = lists.into_iter().flat_map(|list| list.meeting(marks));
    let mut windows: Vec<_> = windows.filter(|window| keep(window)).collect();
    if !one {
        windows.sort_by(|a, b| a.meta.by_age().cmp(&b.meta.by_age()));
        windows.dedup_by(|a, b| a.meta.key == b.meta.key);
    }
    windows
}

/// The terminals that a window names.
fn named(window: &Window) -> Vec<ObjectKey> {
    let namespace = &window.meta.key.namespace;
    let full = |name: &Label| ObjectKey { namespace: namespace.clone(), name: name.clone() };
    window.terminals.names.iter().map(full).collect()
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
