//! Both ends, the bytes between them, and what each should have seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_ssh::{
    Budget, Cipher, Config, Event as Told, HostKey, Id, Kex, RekeyLimits, RequestKind, Token,
};

use super::server::{OneKey, Ours, Server};
use super::stream::{Ledger, Way};
use super::{Dice, Tally};
use crate::{Event, Key, Offer, Seeded, Session};

/// What a socket holds each way.
pub const PIPE: usize = 200_000;
const BUDGET: usize = 8 << 20;
/// Output that no queue of a channel bounds: replies, windows, what was held for new keys.
const REPLIES: usize = 512 << 10;

/// A reply that the client waits for.
#[derive(Debug)]
pub enum Wanted {
    /// The `n`th forward or cancel: as the server decides.
    Decided(u64),
    Refused,
}

/// What the client knows of a channel.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Theirs {
    pub tag: u64,
    pub held: u32,
    pub open: bool,
    pub closing: bool,
    /// A session: what its requests are to be answered with; none as the server decides.
    pub session: bool,
    pub started: bool,
    pub replies: VecDeque<Option<bool>>,
}

pub struct World {
    pub dice: Dice,
    pub now: Duration,
    pub server: Server,
    pub session: Session,
    pub budget: Arc<Budget>,
    pub to_server: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    /// Nothing goes this way for now.
    pub stalled: [bool; 2],
    /// The most that is delivered at once.
    pub split: usize,
    pub ledger: Ledger,
    pub theirs: BTreeMap<u32, Theirs>,
    pub wanted: VecDeque<Wanted>,
    /// PINGs are of the transport, and wait for no other answer.
    pub pongs: VecDeque<Vec<u8>>,
    pub forwards: Vec<(Token, u64, u32)>,
    pub cancels: Vec<(Token, u64)>,
    pub asked: u64,
    /// By number of the question.
    pub decided: BTreeMap<u64, Option<u32>>,
    /// Sessions whose command waits for its answer.
    pub commands: Vec<Id>,
    pub pings: u64,
    pub alive: u64,
    pub unimplemented: [u64; 2],
    pub over: bool,
    /// Those that were heard at the other end.
    pub goodbyes: u64,
    pub tally: Tally,
}

fn host_key() -> HostKey {
    HostKey::from_private_key(&Key::private([9; 32])).expect("a host key")
}

impl World {
    pub fn new(mut dice: Dice) -> Self {
        let kex = dice.pick(&[Kex::Curve25519, Kex::NistP256, Kex::MlKem768X25519]);
        let ciphers = [(); 2].map(|()| dice.pick(&Cipher::ALL).expect("a cipher"));
        let rekey = |dice: &mut Dice| RekeyLimits {
            bytes: 20_000 + dice.below(4 << 20),
            packets: 50 + dice.word(20_000),
            ..RekeyLimits::default()
        };
        let mut config = Config::new(vec![host_key()]);
        config.rekey = rekey(&mut dice);
        // The dice ask for new keys as no client does.
        config.exchanges.before_login = u32::MAX;
        config.exchanges.burst = u32::MAX;
        config.limits.channels = 8;
        config.limits.unanswered = 4;
        config.windows.first = (32 << 10) << dice.below(4);
        config.budget = Budget::new(BUDGET);
        let budget = Arc::clone(&config.budget);
        let offer = Offer {
            strict: !dice.once_in(4),
            guesses: dice.once_in(3),
            kexguess2: dice.once_in(2),
            rekey: rekey(&mut dice),
            ..Offer::only(kex.expect("a method"), "ssh-ed25519", ciphers)
        };
        let key = Key::numbered(1);
        let now = Duration::from_secs(1);
        let server = Server::new(Arc::new(config), OneKey(key.clone()), dice.next(), now);
        let random = Box::new(Seeded::new(dice.next()));
        let mut session = Session::new(offer, random, "terminal", key);
        session.gives = (1 + dice.word(300_000), 1 + dice.word(40_000));
        Self {
            split: 1 << dice.below(18),
            dice,
            now,
            server,
            session,
            budget,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            stalled: [false; 2],
            ledger: Ledger::default(),
            theirs: BTreeMap::new(),
            wanted: VecDeque::new(),
            pongs: VecDeque::new(),
            forwards: Vec::new(),
            cancels: Vec::new(),
            asked: 0,
            decided: BTreeMap::new(),
            commands: Vec::new(),
            pings: 0,
            alive: 0,
            unimplemented: [0; 2],
            over: false,
            goodbyes: 0,
            tally: Tally::default(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Some of what waits for the server reaches it.
    pub fn up(&mut self, most: usize) {
        if self.to_server.len() < PIPE {
            self.to_server.extend(self.session.take());
        }
        let count = most.min(self.to_server.len());
        let bytes: Vec<u8> = self.to_server.drain(..count).collect();
        let told = self.server.receive(&bytes, self.now);
        let told = told.unwrap_or_else(|fatal| panic!("the server gave up: {fatal}"));
        for (event, data) in told {
            self.told(event, &data);
        }
    }

    /// Some of what waits for the client reaches it.
    pub fn down(&mut self, most: usize) {
        if self.to_client.len() < PIPE {
            self.server.pump();
            let output = self.server.core.output();
            let count = output.len().min(PIPE - self.to_client.len());
            self.to_client.extend(output.as_slice().iter().take(count));
            output.consume(count);
        }
        let count = most.min(self.to_client.len());
        let bytes: Vec<u8> = self.to_client.drain(..count).collect();
        let mut events = VecDeque::new();
        let received = self.session.receive(&bytes, &mut events);
        received.unwrap_or_else(|fault| panic!("the client gave up: {fault}"));
        for event in events {
            self.seen(event);
        }
    }

    /// What the core tells.
    fn told(&mut self, event: Told, data: &[u8]) {
        match event {
            Told::Open { channel, host, .. } => {
                let tag = host.parse().expect("a tag");
                let ours = Ours::new(tag);
                assert!(self.server.channels.insert(channel, ours).is_none());
            }
            Told::Request { channel, kind: RequestKind::Exec(command), .. } => {
                let tag = String::from_utf8(command).expect("a tag").parse().expect("a tag");
                let ours = Ours { open: true, ..Ours::new(tag) };
                assert!(self.server.channels.insert(channel, ours).is_none());
                self.commands.push(channel);
            }
            Told::Forward { token, host, port } => {
                self.forwards.push((token, host.parse().expect("a number"), port));
            }
            Told::Cancel { token, host, .. } => {
                self.cancels.push((token, host.parse().expect("a number")));
            }
            Told::Opened { channel } => self.ours(channel).open = true,
            Told::OpenFailed { channel, .. } => {
                let ours = self.server.channels.remove(&channel).expect("a channel");
                self.ledger.at(ours.tag).cut_both();
            }
            Told::Data { channel, bytes } => {
                let ours = self.ours(channel);
                ours.held += u32::try_from(bytes.len()).expect("a packet");
                let tag = ours.tag;
                self.ledger.receive(tag, Way::Up, data);
            }
            Told::Eof { channel } => {
                let tag = self.ours(channel).tag;
                self.ledger.end_told(tag, Way::Up);
            }
            // A session that was never given a command is nobody's.
            Told::Closed { channel } => {
                if let Some(ours) = self.server.channels.remove(&channel) {
                    self.ledger.at(ours.tag).down.cut = true;
                    self.server.core.close(channel);
                }
                self.commands.retain(|it| *it != channel);
            }
            Told::Alive => {
                self.alive += 1;
                assert!(self.alive <= self.pings);
            }
            Told::Disconnected { .. } => self.goodbyes += 1,
            Told::Authenticated { .. }
            | Told::HostKeysProved { .. }
            | Told::NoRoom(_)
            | Told::TooFast => {}
            other => panic!("this was not asked for: {other:?}"),
        }
    }

    fn ours(&mut self, channel: Id) -> &mut Ours {
        self.server.channels.get_mut(&channel).expect("a channel that is told of")
    }

    /// What the client sees.
    fn seen(&mut self, event: Event) {
        match event {
            Event::Asked { channel, address, .. } => {
                let tag = address.parse().expect("a tag");
                self.enter(channel, tag, false);
            }
            Event::Opened { channel } => self.channel(channel).open = true,
            Event::OpenFailed { channel, .. } => {
                let theirs = self.theirs.remove(&channel).expect("a channel");
                self.ledger.at(theirs.tag).cut_both();
            }
            Event::Data { channel, bytes } => {
                let theirs = self.channel(channel);
                theirs.held += u32::try_from(bytes.len()).expect("a packet");
                let tag = theirs.tag;
                self.ledger.receive(tag, Way::Down, &bytes);
            }
            Event::Eof { channel } => {
                let tag = self.channel(channel).tag;
                self.ledger.end_told(tag, Way::Down);
            }
            Event::ExitStatus { channel, status } => {
                let tag = self.channel(channel).tag;
                assert_eq!(u64::from(status), tag);
            }
            Event::Reply { channel, success } => {
                let wanted = self.channel(channel).replies.pop_front().expect("a request");
                assert!(wanted.is_none_or(|wanted| wanted == success), "replies keep their order");
                self.tally.replies += 1;
            }
            Event::Closed { channel } => {
                let theirs = self.theirs.remove(&channel).expect("a channel");
                self.ledger.at(theirs.tag).up.cut = true;
            }
            Event::Answered { granted, body } => self.answered(granted, &body),
            Event::Pong(data) => {
                assert_eq!(Some(data), self.pongs.pop_front());
                self.tally.replies += 1;
            }
            Event::Unimplemented { .. } => self.unimplemented[1] += 1,
            Event::Ended { .. } => self.goodbyes += 1,
            Event::LoggedIn | Event::HostKeys(_) => {}
            Event::Denied | Event::Extended { .. } => panic!("this was not asked for: {event:?}"),
        }
    }

    pub fn enter(&mut self, channel: u32, tag: u64, session: bool) {
        let theirs = Theirs {
            tag,
            held: 0,
            open: false,
            closing: false,
            session,
            started: false,
            replies: VecDeque::new(),
        };
        assert!(self.theirs.insert(channel, theirs).is_none(), "the number was free");
    }

    fn channel(&mut self, channel: u32) -> &mut Theirs {
        self.theirs.get_mut(&channel).expect("a channel that is told of")
    }

    fn answered(&mut self, granted: bool, body: &[u8]) {
        self.tally.replies += 1;
        match self.wanted.pop_front() {
            Some(Wanted::Refused) => assert!(!granted),
            Some(Wanted::Decided(number)) => {
                let decided = self.decided.remove(&number).expect("a decision comes first");
                assert_eq!(granted, decided.is_some());
                match decided {
                    // The server says which port it is only if it was not asked for one.
                    Some(port) if port > 0 => assert_eq!(body, port.to_be_bytes()),
                    _ => assert!(body.is_empty()),
                }
            }
            other => panic!("a reply came where {other:?} was wanted"),
        }
    }

    /// What holds at any time.
    pub fn look(&mut self) {
        let core = &mut self.server.core;
        let output = core.output().len();
        assert!(output <= (64 << 10) + 35_000 + REPLIES, "{output} bytes of output");
        assert!(self.budget.taken() <= self.budget.most());
        if self.over {
            return;
        }
        let queued: u64 = self.server.channels.values().map(|it| it.queued).sum();
        let known: usize = core.queued();
        assert_eq!(u64::try_from(known).expect("a size"), queued, "what waits is known");
    }
}
