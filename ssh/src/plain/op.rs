//! What may happen on a connection, in any order.

use proptest::prelude::*;

/// What happens. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub(super) enum Op {
    // The peer.
    OpenDirect { window: u32, packet: u32 },
    OpenSession { window: u32, packet: u32 },
    Confirm { which: usize, window: u32, packet: u32 },
    Fail { which: usize },
    Data { which: usize, bytes: u32 },
    Extended { which: usize, bytes: u32 },
    Adjust { which: usize, bytes: u32 },
    End { which: usize, close: bool },
    Ask { which: usize, name: &'static str, wants_reply: bool },
    Global { name: &'static str, port: u32, wants_reply: bool },
    Raw(Vec<u8>),
    // The relay.
    Accept { which: usize },
    Refuse { which: usize },
    Forward,
    Send { which: usize, bytes: usize, extended: bool },
    Relay { which: usize, bytes: usize },
    Finish { which: usize, how: u8 },
    Consumed { which: usize, bytes: u32 },
    Answer { which: usize, granted: bool },
    AnswerRequest { which: usize, granted: bool },
    Ping,
    Pump,
    Wait(u64),
    Rekey,
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..5000u32, Just(1 << 20)]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let which = 0..32usize;
    let asks = prop::sample::select(vec!["shell", "pty-req", "env", "winadj", "exec", "x11-req"]);
    let globals = prop::sample::select(vec![
        "tcpip-forward",
        "tcpip-forward",
        "cancel-tcpip-forward",
        "keepalive@openssh.com",
        "hostkeys-prove-00@openssh.com",
    ]);
    prop_oneof![
        6 => (small(), small()).prop_map(|(window, packet)| Op::OpenDirect { window, packet }),
        3 => (small(), small()).prop_map(|(window, packet)| Op::OpenSession { window, packet }),
        6 => (which.clone(), small(), small())
            .prop_map(|(which, window, packet)| Op::Confirm { which, window, packet }),
        2 => which.clone().prop_map(|which| Op::Fail { which }),
        12 => (which.clone(), 0..6000u32).prop_map(|(which, bytes)| Op::Data { which, bytes }),
        3 => (which.clone(), 0..600u32).prop_map(|(which, bytes)| Op::Extended { which, bytes }),
        8 => (which.clone(), small()).prop_map(|(which, bytes)| Op::Adjust { which, bytes }),
        5 => (which.clone(), any::<bool>()).prop_map(|(which, close)| Op::End { which, close }),
        8 => (which.clone(), asks, any::<bool>())
            .prop_map(|(which, name, wants_reply)| Op::Ask { which, name, wants_reply }),
        8 => (globals, 0..3u32, any::<bool>())
            .prop_map(|(name, port, wants_reply)| Op::Global { name, port, wants_reply }),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Op::Raw),
        8 => which.clone().prop_map(|which| Op::Accept { which }),
        2 => which.clone().prop_map(|which| Op::Refuse { which }),
        6 => Just(Op::Forward),
        12 => (which.clone(), 0..9000usize, any::<bool>())
            .prop_map(|(which, bytes, extended)| Op::Send { which, bytes, extended }),
        12 => (which.clone(), 0..5000usize).prop_map(|(which, bytes)| Op::Relay { which, bytes }),
        5 => (which.clone(), 0..4u8).prop_map(|(which, how)| Op::Finish { which, how }),
        12 => (which.clone(), 0..6000u32).prop_map(|(which, bytes)| Op::Consumed { which, bytes }),
        8 => (which.clone(), any::<bool>())
            .prop_map(|(which, granted)| Op::Answer { which, granted }),
        8 => (which, any::<bool>())
            .prop_map(|(which, granted)| Op::AnswerRequest { which, granted }),
        2 => Just(Op::Ping),
        12 => Just(Op::Pump),
        3 => (0..400u64).prop_map(Op::Wait),
        1 => Just(Op::Rekey),
    ]
}
