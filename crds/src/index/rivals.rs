//! Who wants each value that only one object of the mesh may have.
//!
//! A value is its only wanter's. Of several it is the one's that alone is accepted in its present
//! generation; while none of them is, the one's that alone holds the value by its status; else nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Claimant;
use crate::claims::Claim;
use crate::manifest::ObjectRef;

#[derive(Clone, Debug, Default)]
pub(super) struct Rivals {
    /// In the order of their names.
    wanters: BTreeMap<Claim, Vec<(Arc<ObjectRef>, Standing)>>,
}

/// What an object that wants a value has for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Wants,
    /// By its status.
    Holds,
    /// In its present generation.
    Accepted,
}

impl Standing {
    fn of(claimant: &Claimant, claim: &Claim) -> Self {
        if claimant.accepted {
            Self::Accepted
        } else if claimant.holds.contains(claim) {
            Self::Holds
        } else {
            Self::Wants
        }
    }
}

/// How claims stood before a change.
pub(super) type Before = BTreeMap<Claim, State>;

/// What the wanters of a value can see of it: who has it, and whom their sentences name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    holder: Option<Arc<ObjectRef>>,
    first: Option<Arc<ObjectRef>>,
    second: Option<Arc<ObjectRef>>,
}

impl Rivals {
    pub fn enlist(&mut self, claimant: &Claimant, who: &Arc<ObjectRef>, before: &mut Before) {
        for claim in &claimant.wants {
            let standing = Standing::of(claimant, claim);
            self.note(claim, before);
            let wanters = self.wanters.entry(claim.clone()).or_default();
            match wanters.binary_search_by(|(other, _)| other.cmp(who)) {
                Ok(at) => {
                    if let Some(wanter) = wanters.get_mut(at) {
                        wanter.1 = standing;
                    }
                }
                Err(at) => wanters.insert(at, (Arc::clone(who), standing)),
            }
        }
    }

    pub fn withdraw(&mut self, claims: &[Claim], who: &ObjectRef, before: &mut Before) {
        for claim in claims {
            self.note(claim, before);
            let Some(wanters) = self.wanters.get_mut(claim) else { continue };
            wanters.retain(|(other, _)| **other != *who);
            if wanters.is_empty() {
                self.wanters.remove(claim);
            }
        }
    }

    fn note(&mut self, claim: &Claim, before: &mut Before) {
        if !before.contains_key(claim) {
            before.insert(claim.clone(), self.state(claim));
        }
    }

    fn wanters(&self, claim: &Claim) -> &[(Arc<ObjectRef>, Standing)] {
        self.wanters.get(claim).map_or(&[], Vec::as_slice)
    }

    /// Who has the value.
    pub fn holder(&self, claim: &Claim) -> Option<&Arc<ObjectRef>> {
        match self.wanters(claim) {
            [(only, _)] => Some(only),
            several => {
                let having = |standing| several.iter().filter(move |(_, has)| *has == standing);
                let any = having(Standing::Accepted).next().is_some();
                let best = if any { Standing::Accepted } else { Standing::Holds };
                let mut best = having(best);
                match (best.next(), best.next()) {
                    (Some((holder, _)), None) => Some(holder),
                    _ => None,
                }
            }
        }
    }

    fn state(&self, claim: &Claim) -> State {
        let mut first = self.wanters(claim).iter().map(|(who, _)| Arc::clone(who));
        State { holder: self.holder(claim).cloned(), first: first.next(), second: first.next() }
    }

    /// Whether an object that wants the value keeps it against all others: it has it or, while nobody
    /// does, holds it by its status.
    pub fn keeps(&self, claim: &Claim, who: &ObjectRef) -> bool {
        self.holder(claim).map_or_else(
            || {
                let mut wanters = self.wanters(claim).iter();
                wanters.any(|(other, standing)| **other == *who && *standing != Standing::Wants)
            },
            |holder| **holder == *who,
        )
    }

    pub fn has(&self, claim: &Claim, who: &ObjectRef) -> bool {
        self.holder(claim).is_some_and(|holder| **holder == *who)
    }

    /// Who stands in the way of `who`: the one that has the value, else the first of the others.
    pub fn rival(&self, claim: &Claim, who: &ObjectRef) -> Option<&Arc<ObjectRef>> {
        let mut wanters = self.wanters(claim).iter().map(|(other, _)| other);
        self.holder(claim).or_else(|| wanters.find(|other| ***other != *who))
    }

    /// All for whom something is different from what it was before.
    pub fn changed(&self, before: &Before) -> BTreeSet<Arc<ObjectRef>> {
        let different = before.iter().filter(|(claim, state)| self.state(claim) != **state);
        let wanters = different.flat_map(|(claim, _)| self.wanters(claim));
        wanters.map(|(who, _)| Arc::clone(who)).collect()
    }

    /// All that want one of `claims`.
    pub fn wanting<'a>(&'a self, claims: &'a [Claim]) -> impl Iterator<Item = &'a Arc<ObjectRef>> {
        claims.iter().flat_map(|claim| self.wanters(claim)).map(|(who, _)| who)
    }
}
