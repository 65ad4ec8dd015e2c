//! The windows that have one value in common, in the order of their age: for each value that windows
//! name, one of these. Most have a handful; one may have 100,000, of which a change must copy few.
//!
//! A look goes through a list that may have thousands for the few that concern one user and one terminal.
//! So each entry has marks of whom its window names and what it selects beside it: where they rule that
//! out, the window itself, somewhere in memory, is left alone.

use std::cmp::Ordering;
use std::sync::Arc;

use imbl::OrdSet;

use crate::model::{Label, LabelRequirement, Login, LoginUser, Terminal, Window};

/// Up to so many are one piece of memory, which a change copies. A node of the tree has room for as many
/// again, used or not.
const FEW: usize = 32;

#[derive(Clone, Debug)]
pub(crate) enum Listed {
    Few(Arc<[Entry]>),
    Many(OrdSet<Entry>),
}

/// A window, told from others by its age and object alone.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    window: Arc<Window>,
    marks: Marks,
}

/// One of 64 bits for each value. Two that have no bit in common have no value in common; two that have
/// one perhaps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Marks {
    /// Of logins and groups.
    who: u64,
    /// Of names of terminals and of their labels.
    what: u64,
}

/// Of whatever there is.
const ANY: u64 = u64::MAX;

impl Marks {
    /// Of whom a window names and what it selects.
    pub fn of_window(window: &Window) -> Self {
        let names = window.users.names.iter().map(login);
        let groups = window.users.groups.iter().map(group);
        let terminals = &window.terminals;
        let named = terminals.names.iter().map(|name| bit(&[name.as_str()]));
        // All of a selector must match: any one requirement that names values will do.
        let selected = terminals.selector.as_ref().map_or(0, |selector| {
            if let Some((key, value)) = selector.match_labels.iter().next() {
                return bit(&[key, value]);
            }
            let one = selector.match_expressions.iter().find_map(|requirement| match requirement {
                LabelRequirement::In(key, values) => {
                    Some(all(values.iter().map(|value| bit(&[key, value]))))
                }
                _ => None,
            });
            one.unwrap_or(ANY)
        });
        Self { who: all(names.chain(groups)), what: all(named) | selected }
    }

    /// Of a user, on whatever terminal.
    pub fn of_user(user: &LoginUser) -> Self {
        let groups = user.groups.iter().map(group);
        Self { who: all(groups) | login(&user.login), what: ANY }
    }

    /// Of a terminal, for whomever.
    pub fn of_terminal(terminal: &Terminal) -> Self {
        let labels = terminal.labels.iter().map(|(key, value)| bit(&[key, value]));
        let name = bit(&[terminal.meta.key.name.as_str()]);
        Self { who: ANY, what: all(labels) | name }
    }

    /// Of this user on that terminal.
    pub fn and(self, other: Self) -> Self {
        Self { who: self.who & other.who, what: self.what & other.what }
    }

    fn meets(self, other: Self) -> bool {
        // A window that names nobody has no bit, and still selects terminals.
        let common = |own: u64, other| other == ANY || own & other != 0;
        common(self.who, other.who) && common(self.what, other.what)
    }
}

fn all(bits: impl Iterator<Item = u64>) -> u64 {
    bits.fold(0, |all, bit| all | bit)
}

fn login(login: &Login) -> u64 {
    bit(&[login.name.as_str(), login.tenant.as_ref().map_or("", Label::as_str)])
}

fn group(group: &Label) -> u64 {
    bit(&[group.as_str()])
}

/// FNV-1a, of which the upper bits are mixed best.
fn bit(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    1 << (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

impl Entry {
    fn of(window: &Arc<Window>) -> Self {
        Self { window: Arc::clone(window), marks: Marks::of_window(window) }
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.window.meta.by_age().cmp(&other.window.meta.by_age())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl Default for Listed {
    fn default() -> Self {
        Self::Few(Arc::default())
    }
}

impl Listed {
    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that may concern whom and what these marks are of, the oldest first.
    pub fn meeting(&self, marks: Marks) -> impl Iterator<Item = &Arc<Window>> {
        let (few, many) = match self {
            Self::Few(few) => (&**few, None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        let entries = few.iter().chain(many.into_iter().flatten());
        entries.filter(move |entry| entry.marks.meets(marks)).map(|entry| &entry.window)
    }

    /// Takes a window in place of one of the same age and object.
    pub fn insert(&mut self, window: &Arc<Window>) {
        let entry = Entry::of(window);
        match self {
            Self::Many(many) => drop(many.insert(entry)),
            Self::Few(few) => {
                let at = few.partition_point(|other| *other < entry);
                let same = few.get(at).is_some_and(|other| *other == entry);
                let before = few.iter().take(at);
                let after = few.iter().skip(at + usize::from(same));
                let all = before.chain([&entry]).chain(after).cloned();
                *self = if few.len() < FEW || same {
                    Self::Few(all.collect())
                } else {
                    Self::Many(all.collect())
                };
            }
        }
    }

    /// Loses the window of the same age and object.
    pub fn remove(&mut self, window: &Arc<Window>) {
        let entry = Entry::of(window);
        match self {
            Self::Many(many) => {
                many.remove(&entry);
                // Not at once when it falls below: it may grow again.
                if many.len() <= FEW / 2 {
                    *self = Self::Few(many.iter().cloned().collect());
                }
            }
            Self::Few(few) => {
                if few.contains(&entry) {
                    *self =
                        Self::Few(few.iter().filter(|other| **other != entry).cloned().collect());
                }
            }
        }
    }
}
