//! The opens that a terminal has not answered yet, counted for each login user and service apart: a
//! service that hangs stalls neither the terminal's other services nor other people on it (invariant 8).

use std::collections::HashMap;
use std::sync::Mutex;

use tidegate_policy::model::{Label, Login};

use crate::lock::lock;

/// Opens of one service by one login user that may wait for one terminal's answer at once. What all of
/// them together may be is the bound of `tidegate_ssh::Limits::unanswered`.
pub const UNANSWERED: usize = 64;

type Who = (Login, Label);

/// Of one terminal's connection.
#[derive(Debug, Default)]
pub struct Dials(Mutex<HashMap<Who, usize>>);

/// One open that is under way, until it is dropped.
#[derive(Debug)]
pub struct Dial<'a> {
    dials: &'a Dials,
    who: Who,
}

impl Dials {
    /// `None` where this user has too many of this service under way.
    pub fn begin(&self, login: &Login, service: &Label) -> Option<Dial<'_>> {
        let who = (login.clone(), service.clone());
        let mut dials = lock(&self.0);
        let count = dials.entry(who.clone()).or_default();
        if *count >= UNANSWERED {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Dial { dials: self, who })
    }
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        let mut dials = lock(&self.dials.0);
        if let Some(count) = dials.get_mut(&self.who) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                dials.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_users_hanging_service_is_nobody_elses() {
        let (alice, bob) = (Login::parse("alice").unwrap(), Login::parse("bob").unwrap());
        let (ssh, web) = (Label::parse("ssh").unwrap(), Label::parse("web").unwrap());
        let dials = Dials::default();
        let mut hanging: Vec<_> =
            (0..2 * UNANSWERED).map_while(|_| dials.begin(&alice, &ssh)).collect();
        assert_eq!(hanging.len(), UNANSWERED);
        assert!(dials.begin(&alice, &web).is_some() && dials.begin(&bob, &ssh).is_some());
        hanging.pop();
        assert!(dials.begin(&alice, &ssh).is_some());
        drop(hanging);
        assert!(lock(&dials.0).is_empty());
    }
}
