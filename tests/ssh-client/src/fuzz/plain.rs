//! Messages to a core whose transport is in plain text: nothing stands in the way of what they say.

use std::sync::Arc;
use std::time::Duration;

use tidegate_ssh::message::number;
use tidegate_ssh::testing::{plain_core, plain_core_within};
use tidegate_ssh::wire::Reader;
use tidegate_ssh::{Budget, Config, Core, Door, Event, Fatal, Id, OpenFailure, RekeyLimits, Token};

use super::input::{Input, check};
use super::sealed::host_key;
use crate::frame::{DATA, frame};
use crate::{Key, Seeded};

/// What signatures are bound to.
pub const SESSION: [u8; 32] = [7; 32];
const NOW: Duration = Duration::from_secs(1);
const BUDGET: usize = 2 << 20;

/// Lets one key in.
struct OneKey(Key);

impl Door for OneKey {
    fn offered(&mut self, user: &str, _: &[u8]) -> bool {
        assert!(user.len() <= 255 && user.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        true
    }

    fn proven(&mut self, _: &str, key: &[u8]) -> bool {
        assert_eq!(key, self.0.blob, "a key was proven that nobody signed with");
        true
    }
}

thread_local! {
    /// Made once, since keys take longer than most inputs.
    static CONFIG: Arc<Config> = Arc::new(config());
    static KEY: Key = Key::numbered(0);
}

fn config() -> Config {
    let mut config = Config::new(vec![host_key()]);
    config.budget = Budget::new(BUDGET);
    config.limits.channels = 6;
    config.limits.unanswered = 3;
    config.limits.requests = 20;
    config.rekey = RekeyLimits { packets: 2000, ..RekeyLimits::default() };
    config
}

/// Takes the output, which must be whole packets; the numbers of their messages.
fn heard(core: &mut Core) -> Vec<u8> {
    let output = core.output();
    let mut rest = Reader::new(output.as_slice());
    let mut numbers = Vec::new();
    while !rest.is_empty() {
        let packet = rest.string().expect("whole packets");
        let padding = usize::from(packet[0]);
        assert!(padding >= 4 && packet.len() > padding + 1);
        numbers.push(packet[1]);
    }
    output.consume(usize::MAX);
    numbers
}

/// What would lead to keys, under which the output could not be read any more; a KEXINIT does not.
fn exchanges_keys(message: &[u8]) -> bool {
    matches!(message, [21..=49, ..])
}

/// On an error DISCONNECT is the last that was sent, and nothing is left.
fn ended(core: &mut Core, fatal: &Fatal) {
    check(fatal);
    assert!(core.is_over());
    assert_eq!(heard(core).last(), Some(&number::DISCONNECT));
    assert_eq!(core.queued(), 0);
}

/// Messages from the first SERVICE_REQUEST on.
pub fn auth(data: &[u8]) {
    let mut input = Input::new(data);
    let mut core = plain_core(CONFIG.with(Arc::clone), Box::new(Seeded::new(0)), SESSION);
    let mut door = OneKey(KEY.with(Key::clone));
    let mut sequence = 3;
    while !input.is_empty() && !core.is_over() {
        let message = input.piece();
        if exchanges_keys(message) {
            continue;
        }
        sequence += 1;
        match core.handle(message, sequence, &mut door, NOW) {
            Ok(Some(Event::Authenticated { key, .. })) => {
                assert!(core.is_authenticated());
                assert_eq!(key, door.0.blob);
            }
            Ok(_) => assert!(heard(&mut core).len() <= 3),
            Err(fatal) => ended(&mut core, &fatal),
        }
    }
}

/// Messages of the connection, and between them what a relay does.
pub fn channels(data: &[u8]) {
    let config = CONFIG.with(Arc::clone);
    let budget = Arc::clone(&config.budget);
    let mut relay = Relay {
        core: plain_core_within(config, Box::new(Seeded::new(0)), SESSION),
        ids: Vec::new(),
        forwards: Vec::new(),
        cancels: Vec::new(),
        sequence: 3,
        now: NOW,
    };
    let mut input = Input::new(data);
    while !input.is_empty() && !relay.core.is_over() {
        relay.step(&mut input);
        assert!(budget.taken() <= budget.most());
        assert!(relay.core.output().len() <= (2 << 20) + (400 << 10));
    }
    heard(&mut relay.core);
    relay.core.disconnect(tidegate_ssh::DisconnectCode::ByApplication, "that was all");
    // What nobody has taken counts until its channel is let go.
    for id in relay.ids {
        relay.core.close(id);
    }
    assert_eq!((budget.taken(), relay.core.queued()), (0, 0));
}

struct Relay {
    core: Core,
    ids: Vec<Id>,
    forwards: Vec<Token>,
    cancels: Vec<Token>,
    sequence: u32,
    now: Duration,
}

impl Relay {
    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        if what < 0x80 {
            let message = input.piece();
            if !exchanges_keys(message) {
                self.message(message);
            }
            return;
        }
        let id = self.ids.get(usize::from(input.byte()) % self.ids.len().max(1)).copied();
        let core = &mut self.core;
        match (what % 20, id) {
            (0, Some(id)) => core.confirm(id),
            (1, Some(id)) => core.refuse(id, OpenFailure::ConnectFailed, "nobody is\n there"),
            (2, Some(id)) => {
                let data = vec![0; usize::from(input.byte()) << 4];
                let _ = core.send(id, &data);
            }
            (3, Some(id)) => {
                let _ = core.send_extended(id, 1, input.piece());
            }
            (4, Some(id)) => core.eof(id),
            (5, Some(id)) => core.finish(id),
            (6, Some(id)) => {
                core.close(id);
                assert_eq!(core.queued_on(id), 0);
            }
            (7, Some(id)) => core.consumed(id, input.word(), self.now),
            (8, Some(id)) => core.exit_status(id, 3),
            (9, Some(id)) => core.answer_request(id, input.flip()),
            (10, Some(id)) => {
                let data = vec![0; usize::from(input.byte()) << 4];
                let mut packet = frame(&data, true);
                if core.relay(id, &mut packet, DATA..DATA + data.len())
                    == tidegate_ssh::Relayed::InPlace
                {
                    core.output().append(&packet);
                }
            }
            (11, _) => {
                if let Ok(id) = core.open_forwarded("localhost", 22, ("", 0)) {
                    self.ids.push(id);
                }
            }
            (12, _) => {
                if let Some(token) = self.forwards.pop() {
                    core.answer_forward(token, input.flip().then_some(4022));
                }
            }
            (13, _) => {
                if let Some(token) = self.cancels.pop() {
                    core.answer_cancel(token, input.flip());
                }
            }
            (14, _) => {
                core.ping();
            }
            (15, Some(id)) => {
                let allowed = input.flip();
                core.pump(&mut Vec::new(), &mut |it| it != id || allowed);
            }
            (16, _) => {
                self.now += Duration::from_millis(u64::from(input.byte()) << 4);
                if let Err(fatal) = core.tick(self.now) {
                    ended(core, &fatal);
                }
            }
            (17, _) => core.rekey(self.now),
            _ => {
                core.pump(&mut Vec::new(), &mut |_| true);
                heard(core);
            }
        }
    }

    fn message(&mut self, message: &[u8]) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut door = OneKey(KEY.with(Key::clone));
        match self.core.handle(message, self.sequence, &mut door, self.now) {
            Ok(Some(event)) => self.told(event, message),
            Ok(None) => {}
            Err(fatal) => ended(&mut self.core, &fatal),
        }
    }

    fn told(&mut self, event: Event, message: &[u8]) {
        match event {
            Event::Open { channel, host, .. } => {
                assert!(host.len() <= 255);
                self.ids.push(channel);
            }
            Event::Request { channel, .. } => self.ids.push(channel),
            Event::Forward { token, .. } => self.forwards.push(token),
            Event::Cancel { token, .. } => self.cancels.push(token),
            Event::Data { bytes, .. } => assert!(!message[bytes].is_empty()),
            Event::OpenFailed { text, .. } => assert!(text.len() <= 200),
            Event::Authenticated { .. } => panic!("it is logged in"),
            _ => {}
        }
        if self.ids.len() > 64 {
            self.ids.remove(0);
        }
    }
}
