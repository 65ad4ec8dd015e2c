//! The connections of each terminal that may attach, whether they offer something or not (invariant 8).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tidegate_policy::model::{Label, Terminal};

use crate::locate::TerminalLink;
use crate::lock::lock;

/// Connections that a terminal may have beside one for each service that it declares. A stock client
/// that dials again has two until the dead one is noticed; the others are for what flaps meanwhile.
const SPARE: usize = 8;

/// How many connections a terminal may have. A service is offered by one of them at most, so that some
/// offer nothing where it has as many, and one of those can give way.
pub fn most(terminal: &Terminal) -> usize {
    terminal.services.len().saturating_add(SPARE)
}

/// The terminals' connections to this replica, by their names, oldest first.
#[derive(Debug, Default)]
pub struct TerminalLinks(Mutex<HashMap<Label, Vec<Arc<TerminalLink>>>>);

/// What became of one more connection.
#[derive(Debug)]
pub enum Entered {
    There,
    /// It is there, and this one is to be ended: the oldest that offers nothing. So whoever dials again
    /// gets in, however many half-dead connections there are.
    InPlaceOf(Arc<TerminalLink>),
    /// Its terminal has enough, and all of them offer something.
    Full,
}

impl TerminalLinks {
    /// Takes in one more connection of a terminal that may have `most`.
    pub fn insert(&self, link: &Arc<TerminalLink>, most: usize) -> Entered {
        let mut table = lock(&self.0);
        let links = table.entry(link.terminal.name.clone()).or_default();
        links.retain(|held| !held.is_gone());
        let mut entered = Entered::There;
        if links.len() >= most {
            let Some(oldest) = oldest_idle(links, |held| !held.forwards().is_empty()) else {
                return Entered::Full;
            };
            entered = Entered::InPlaceOf(oldest);
        }
        links.push(Arc::clone(link));
        entered
    }

    pub fn all(&self) -> Vec<Arc<TerminalLink>> {
        lock(&self.0).values().flatten().cloned().collect()
    }

    /// Forgets a connection that has ended.
    pub fn remove(&self, link: &TerminalLink) {
        let mut table = lock(&self.0);
        if let Some(links) = table.get_mut(&link.terminal.name) {
            links.retain(|held| held.peer.id != link.peer.id);
            if links.is_empty() {
                table.remove(&link.terminal.name);
            }
        }
    }
}

/// Takes out the first that offers nothing.
fn oldest_idle<T>(links: &mut Vec<T>, offers: impl Fn(&T) -> bool) -> Option<T> {
    let idle = links.iter().position(|held| !offers(held))?;
    Some(links.remove(idle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_offers_nothing_gives_way_and_none_that_offers() {
        let mut links = vec![(1, true), (2, false), (3, true), (4, false)];
        let mut next = || oldest_idle(&mut links, |held| held.1).map(|held| held.0);
        assert_eq!([next(), next(), next()], [Some(2), Some(4), None]);
        assert_eq!(links, [(1, true), (3, true)]);
    }
}
