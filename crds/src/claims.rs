//! Who keeps what only one may have: names of terminals, keys, listen ports, the mesh itself.
//!
//! Pure, and ignorant of kinds. Its invariants, by proptest: nothing is held twice; who holds a value
//! and still wants it keeps it; the outcome does not depend on the order of files; settling again
//! changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tidegate_policy::model::{KeyBlob, Label, LoginUser, Terminal};

use crate::common::Holds;
use crate::manifest::ObjectRef;

/// A value that one object of the mesh may have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Claim {
    /// The one Mesh of a directory.
    Mesh,
    TerminalName(Label),
    /// Of users and terminals alike: roles never combine. By fingerprint, `SHA256:` and 43 characters,
    /// since that is what a status names a key by.
    Key(Arc<str>),
    ListenPort(u16),
}

impl Claim {
    pub fn key(key: &KeyBlob) -> Self {
        Self::Key(key.fingerprint().into())
    }
}

impl fmt::Display for Claim {
    /// As a sentence names it: `the listen port 20017`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("the directory's one Mesh"),
            Self::TerminalName(name) => write!(f, "the terminal name {name}"),
            Self::Key(fingerprint) => write!(f, "the key {fingerprint}"),
            Self::ListenPort(port) => write!(f, "the listen port {port}"),
        }
    }
}

/// What a login user wants for itself, each with its field.
pub fn of_user(user: &LoginUser) -> Vec<(Claim, String)> {
    keys(&user.public_keys).collect()
}

/// What a terminal wants for itself, each with its field.
pub fn of_terminal(terminal: &Terminal) -> Vec<(Claim, String)> {
    let name = Claim::TerminalName(terminal.meta.key.name.clone());
    let ports = terminal.services.iter().enumerate().filter_map(|(i, service)| {
        let port = Claim::ListenPort(service.listen_port?);
        Some((port, format!("spec.services[{i}].listenPort")))
    });
    let name = [(name, "metadata.name".to_owned())];
    name.into_iter().chain(keys(&terminal.public_keys)).chain(ports).collect()
}

/// What an object holds by its status; `terminal`: its name, if it is a terminal. Ports that are none are
/// left out.
pub fn held(terminal: Option<&Label>, holds: &Holds) -> Vec<Claim> {
    let name = terminal.cloned().map(Claim::TerminalName);
    let keys = holds.keys.iter().map(|key| Claim::Key(key.as_str().into()));
    let ports = holds.listen_ports.iter().filter_map(|port| u16::try_from(*port).ok());
    name.into_iter().chain(keys).chain(ports.map(Claim::ListenPort)).collect()
}

/// What the status of an object says once it is accepted with what it wants.
pub fn holds(wants: &[Claim], generation: i64) -> Holds {
    let mut holds = Holds { generation, ..Holds::default() };
    for claim in wants {
        match claim {
            Claim::Key(key) => holds.keys.push(key.to_string()),
            Claim::ListenPort(port) => holds.listen_ports.push(i32::from(*port)),
            Claim::Mesh | Claim::TerminalName(_) => {}
        }
    }
    holds
}

fn keys(keys: &[KeyBlob]) -> impl Iterator<Item = (Claim, String)> {
    let fields = (0..).map(|i: usize| format!("spec.publicKeys[{i}]"));
    keys.iter().map(Claim::key).zip(fields)
}

/// One object. Its place in the list is its seniority.
#[derive(Clone, Copy, Debug)]
pub struct Contender<'a> {
    /// What its version in force holds; `None`: no version is in force.
    pub old: Option<&'a [Claim]>,
    /// What a new version wants; `None`: there is none, the old one stays.
    pub new: Option<&'a [Claim]>,
}

/// How a contender's new version fared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// There was none.
    Unchanged,
    Accepted,
    /// It wants what another one holds: the index of its claim, and the other's place.
    Refused {
        claim: usize,
        holder: usize,
    },
}

/// Settles all claims at once, so that values can be handed over, also in a circle, by one edit of
/// several objects. A refused version takes nothing from anyone.
pub fn settle(contenders: &[Contender<'_>]) -> Vec<Outcome> {
    let mut old: Vec<_> = contenders.iter().map(|c| c.old).collect();
    let mut new: Vec<_> = contenders.iter().map(|c| c.new).collect();
    // Who was accepted now holds what it has; that may decide others, until nobody else gets in.
    loop {
        let accepted = pass(&old, &new);
        if accepted.is_empty() {
            break;
        }
        for i in accepted {
            if let (Some(old), Some(new)) = (old.get_mut(i), new.get_mut(i)) {
                *old = new.take();
            }
        }
    }
    let holders = holders(old.iter().map(|claims| claims.unwrap_or_default()));
    contenders
        .iter()
        .zip(&new)
        .enumerate()
        .map(|(i, (contender, left))| match (contender.new, left) {
            (None, _) => Outcome::Unchanged,
            (Some(_), None) => Outcome::Accepted,
            (Some(_), Some(wanted)) => wanted
                .iter()
                .enumerate()
                .find_map(|(claim, value)| {
                    let holder = *holders.get(value)?.iter().find(|holder| **holder != i)?;
                    Some(Outcome::Refused { claim, holder })
                })
                // Cannot be: a version whose claims are all free was accepted.
                .unwrap_or(Outcome::Unchanged),
        })
        .collect()
}

/// A valid user or terminal of the mesh, as an API server has it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub object: &'a ObjectRef,
    /// When it was created: its seniority, where nobody holds what it wants.
    pub created: Timestamp,
    /// By its status; [`held`].
    pub holds: &'a [Claim],
    /// By its spec.
    pub wants: &'a [Claim],
}

/// Whether a candidate is accepted as its spec is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Acceptance {
    Accepted,
    Refused { claim: Claim, holder: ObjectRef },
}

/// Decides who of all that contend is accepted, in the order of `candidates`. Who holds a value by its
/// status and still wants it keeps it, whatever else becomes of it; what it holds and wants no more is free
/// at once, since its former version is in force nowhere.
pub fn accept(candidates: &[Candidate<'_>]) -> Vec<Acceptance> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|i| {
        let name = |o: &'_ ObjectRef| (o.namespace.clone(), o.name.clone(), o.kind);
        candidates.get(*i).map(|c| (c.created, name(c.object)))
    });
    let sorted: Vec<&Candidate<'_>> = order.iter().filter_map(|i| candidates.get(*i)).collect();
    let kept: Vec<Vec<Claim>> = sorted
        .iter()
        .map(|c| c.holds.iter().filter(|claim| c.wants.contains(claim)).cloned().collect())
        .collect();
    let contenders: Vec<_> = sorted
        .iter()
        .zip(&kept)
        .map(|(c, kept)| Contender { old: Some(kept), new: Some(c.wants) })
        .collect();
    let outcomes = settle(&contenders).into_iter().zip(&sorted).map(|(outcome, candidate)| {
        let Outcome::Refused { claim, holder } = outcome else { return Acceptance::Accepted };
        match (candidate.wants.get(claim), sorted.get(holder)) {
            (Some(claim), Some(holder)) => {
                Acceptance::Refused { claim: claim.clone(), holder: holder.object.clone() }
            }
            _ => Acceptance::Accepted,
        }
    });
    let mut placed: Vec<(usize, Acceptance)> = order.iter().copied().zip(outcomes).collect();
    placed.sort_by_key(|(i, _)| *i);
    placed.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Which claims are held by whom, in order of seniority.
fn holders<'a>(held: impl Iterator<Item = &'a [Claim]>) -> BTreeMap<&'a Claim, Vec<usize>> {
    let mut holders: BTreeMap<&Claim, Vec<usize>> = BTreeMap::new();
    for (i, claims) in held.enumerate() {
        for claim in claims {
            let who = holders.entry(claim).or_default();
            if who.last() != Some(&i) {
                who.push(i);
            }
        }
    }
    holders
}

/// The places of those whose new versions can all be in force together with what stays. Costs no more
/// than the claims that move, however many of them hang on one that cannot.
fn pass<'a>(old: &[Option<&'a [Claim]>], new: &[Option<&'a [Claim]>]) -> Vec<usize> {
    // Suppose that all new versions are in force, and take back those that lose a conflict: to the one
    // that holds the value already, else to the most senior. A version taken back brings its old one
    // back, which may win conflicts of its own; so again, until there is none.
    let mut use_ = Use::new(old, new);
    let mut contested = use_.contested();
    let mut back = Vec::new();
    while !contested.is_empty() {
        let losers: BTreeSet<usize> =
            contested.iter().flat_map(|claim| use_.losers(claim)).collect();
        contested = losers.iter().flat_map(|i| use_.choose(*i, false)).collect();
        back.extend(losers);
    }
    // Some lost to versions that were then taken back themselves: whoever can go in now, goes in, the
    // most senior first. Who goes in may leave values to others.
    let mut waiting: BTreeMap<&Claim, Vec<usize>> = BTreeMap::new();
    for i in &back {
        for claim in at(new, *i) {
            waiting.entry(claim).or_default().push(*i);
        }
    }
    let mut next: BTreeSet<usize> = back.into_iter().collect();
    while let Some(i) = next.pop_first() {
        if use_.is_new(i) || !at(new, i).iter().all(|claim| use_.is_free_for(claim, i)) {
            continue;
        }
        for claim in use_.choose(i, true) {
            next.extend(waiting.get(claim).into_iter().flatten());
        }
    }
    use_.renewed.iter().enumerate().filter(|(_, renewed)| **renewed).map(|(i, _)| i).collect()
}

fn at<'a>(versions: &[Option<&'a [Claim]>], i: usize) -> &'a [Claim] {
    versions.get(i).copied().flatten().unwrap_or_default()
}

/// Which version of each contender is supposed to be in force, and who uses each claim by that.
struct Use<'a, 'b> {
    old: &'b [Option<&'a [Claim]>],
    new: &'b [Option<&'a [Claim]>],
    renewed: Vec<bool>,
    users: BTreeMap<&'a Claim, BTreeSet<usize>>,
}

impl<'a, 'b> Use<'a, 'b> {
    /// All new versions.
    fn new(old: &'b [Option<&'a [Claim]>], new: &'b [Option<&'a [Claim]>]) -> Self {
        let renewed: Vec<bool> = new.iter().map(Option::is_some).collect();
        let mut users: BTreeMap<&Claim, BTreeSet<usize>> = BTreeMap::new();
        for (i, renewed) in renewed.iter().enumerate() {
            for claim in at(if *renewed { new } else { old }, i) {
                users.entry(claim).or_default().insert(i);
            }
        }
        Self { old, new, renewed, users }
    }

    fn is_new(&self, i: usize) -> bool {
        self.renewed.get(i) == Some(&true)
    }

    fn contested(&self) -> BTreeSet<&'a Claim> {
        let several = self.users.iter().filter(|(_, who)| who.len() > 1);
        several.map(|(claim, _)| *claim).collect()
    }

    /// Those of a claim's users whose new versions have to give way.
    fn losers(&self, claim: &Claim) -> Vec<usize> {
        let Some(who) = self.users.get(claim) else { return Vec::new() };
        let winner =
            who.iter().find(|i| at(self.old, **i).contains(claim)).or(who.first()).copied();
        who.iter().copied().filter(|i| Some(*i) != winner && self.is_new(*i)).collect()
    }

    fn is_free_for(&self, claim: &Claim, i: usize) -> bool {
        self.users.get(claim).is_none_or(|who| who.iter().all(|user| *user == i))
    }

    /// Takes the other version of a contender; the claims whose users are others now.
    fn choose(&mut self, i: usize, renewed: bool) -> Vec<&'a Claim> {
        let (from, to) = if renewed { (self.old, self.new) } else { (self.new, self.old) };
        let (from, to) = (at(from, i), at(to, i));
        if let Some(chosen) = self.renewed.get_mut(i) {
            *chosen = renewed;
        }
        for claim in from {
            if let Some(who) = self.users.get_mut(claim) {
                who.remove(&i);
            }
        }
        for claim in to {
            self.users.entry(claim).or_default().insert(i);
        }
        from.iter().chain(to).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_draw::cases;

    use super::*;

    fn port(n: u16) -> Claim {
        Claim::ListenPort(n)
    }

    /// An object's claims in force, and those of its new version.
    type Both<T> = (Option<T>, Option<T>);

    fn contend(pairs: &[Both<&[Claim]>]) -> Vec<Outcome> {
        let all: Vec<_> =
            pairs.iter().map(|(old, new)| Contender { old: *old, new: *new }).collect();
        settle(&all)
    }

    #[test]
    fn the_holder_keeps_what_it_has_against_a_senior_newcomer() {
        let one = [port(1)];
        let got = contend(&[(None, Some(&one)), (Some(&one), None)]);
        assert_eq!(got, [Outcome::Refused { claim: 0, holder: 1 }, Outcome::Unchanged]);
    }

    #[test]
    fn at_first_sight_the_senior_one_gets_it() {
        let one = [port(1)];
        let got = contend(&[(None, Some(&one)), (None, Some(&one))]);
        assert_eq!(got, [Outcome::Accepted, Outcome::Refused { claim: 0, holder: 0 }]);
    }

    #[test]
    fn two_objects_can_swap_by_one_edit() {
        let (one, two) = ([port(1)], [port(2)]);
        let got = contend(&[(Some(&one), Some(&two)), (Some(&two), Some(&one))]);
        assert_eq!(got, [Outcome::Accepted, Outcome::Accepted]);
    }

    #[test]
    fn a_refused_version_takes_nothing_from_anyone() {
        let (both, one, two) = ([port(1), port(2)], [port(1)], [port(2)]);
        // The first wants 1 and 2, but 2 is held; so the second gets 1.
        let got = contend(&[(None, Some(&both)), (None, Some(&one)), (Some(&two), None)]);
        assert_eq!(
            got,
            [Outcome::Refused { claim: 0, holder: 1 }, Outcome::Accepted, Outcome::Unchanged]
        );
    }

    /// [`pass`] by looking at everything again after each step.
    fn plain_pass(old: &[Option<&[Claim]>], new: &[Option<&[Claim]>]) -> Vec<usize> {
        // Suppose that all new versions are in force, and take back those that lose a conflict: to the one
        // that holds the value already, else to the most senior. A version taken back brings its old one
        // back, which may win conflicts of its own; so again, until there is none.
        let mut renewed: Vec<bool> = new.iter().map(Option::is_some).collect();
        let using = |renewed: &[bool], i: usize| -> &[Claim] {
            let chosen = if renewed.get(i) == Some(&true) { new.get(i) } else { old.get(i) };
            chosen.copied().flatten().unwrap_or_default()
        };
        loop {
            let holders = holders((0..new.len()).map(|i| using(&renewed, i)));
            let mut losers = Vec::new();
            for (claim, who) in holders {
                let had = |i: &&usize| {
                    old.get(**i).copied().flatten().is_some_and(|held| held.contains(claim))
                };
                let winner = who.iter().find(had).or(who.first()).copied();
                losers.extend(
                    who.into_iter()
                        .filter(|i| Some(*i) != winner && renewed.get(*i) == Some(&true)),
                );
            }
            if losers.is_empty() {
                break;
            }
            for i in losers {
                if let Some(renewed) = renewed.get_mut(i) {
                    *renewed = false;
                }
            }
        }
        // Some lost to versions that were then taken back themselves: whoever can go in now, goes in.
        loop {
            let holders = holders((0..new.len()).map(|i| using(&renewed, i)));
            let next = new.iter().enumerate().position(|(i, wanted)| {
                let free = |claim: &Claim| {
                    holders.get(claim).is_none_or(|who| who.iter().all(|holder| *holder == i))
                };
                renewed.get(i) == Some(&false)
                    && wanted.is_some_and(|wanted| wanted.iter().all(free))
            });
            match next.and_then(|i| renewed.get_mut(i)) {
                Some(renewed) => *renewed = true,
                None => break,
            }
        }
        renewed.iter().enumerate().filter(|(_, renewed)| **renewed).map(|(i, _)| i).collect()
    }

    #[test]
    fn a_long_chain_that_hangs_on_one_is_taken_back_in_no_time() {
        // Each moves to the port of the next, but the last one stays.
        let most = 20_000_u16;
        let ports: Vec<[Claim; 1]> = (0..most).map(|n| [port(n)]).collect();
        let moves = ports.windows(2).map(|two| (Some(&two[0][..]), Some(&two[1][..])));
        let last = ports.last().map(|last| (Some(&last[..]), None));
        let chain: Vec<Both<&[Claim]>> = moves.chain(last).collect();
        // To look at everything again after each step would take hours.
        let outcomes = contend(&chain);
        assert!(outcomes.iter().all(|outcome| *outcome != Outcome::Accepted));
    }

    /// Ports of an object's old and new version; the old ones are disjoint.
    fn worlds() -> impl Strategy<Value = Vec<Both<Vec<Claim>>>> {
        let claims = || prop::collection::btree_set(0_u16..8, 0..4);
        let object = (prop::option::of(claims()), prop::option::of(claims()));
        prop::collection::vec(object, 1..7).prop_map(|objects| {
            let mut taken = std::collections::BTreeSet::new();
            let ports = |set: std::collections::BTreeSet<u16>| set.into_iter().map(port).collect();
            objects
                .into_iter()
                .map(|(old, new)| {
                    let old = old.map(|set| set.into_iter().filter(|p| taken.insert(*p)).collect());
                    (old.map(ports), new.map(ports))
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn nothing_is_held_twice_and_settling_again_changes_nothing(world in worlds()) {
            let contenders: Vec<_> = world
                .iter()
                .map(|(old, new)| Contender { old: old.as_deref(), new: new.as_deref() })
                .collect();
            let olds: Vec<_> = contenders.iter().map(|c| c.old).collect();
            let news: Vec<_> = contenders.iter().map(|c| c.new).collect();
            prop_assert_eq!(pass(&olds, &news), plain_pass(&olds, &news));
            let outcomes = settle(&contenders);
            let settled: Vec<_> = contenders
                .iter()
                .zip(&outcomes)
                .map(|(c, outcome)| match outcome {
                    Outcome::Accepted => Contender { old: c.new, new: None },
                    _ => *c,
                })
                .collect();
            let held = holders(settled.iter().map(|c| c.old.unwrap_or_default()));
            for (claim, who) in &held {
                prop_assert_eq!(who.len(), 1, "{:?} is held by {:?}", claim, who);
            }
            for (i, (contender, outcome)) in contenders.iter().zip(&outcomes).enumerate() {
                // Who held a value and still wants it has it.
                for claim in contender.old.unwrap_or_default() {
                    let wants = contender.new.is_none_or(|new| new.contains(claim));
                    prop_assert!(!wants || held.get(claim).is_some_and(|who| who.contains(&i)));
                }
                // A refusal names one who really holds the value.
                if let Outcome::Refused { claim, holder } = outcome {
                    let claim = &contender.new.unwrap_or_default()[*claim];
                    prop_assert_eq!(held.get(claim), Some(&vec![*holder]));
                }
            }
            for outcome in settle(&settled) {
                prop_assert_ne!(outcome, Outcome::Accepted);
            }
        }
    }
}
