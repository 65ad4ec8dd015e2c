//! What anybody may send, from bytes that somebody makes up: libFuzzer in `transport/fuzz`, or the
//! replay of its corpora in `tests/corpus.rs`. Nothing may panic, and what is asserted here must hold
//! whatever the input. Its first two bytes say how the rest is split and what meets it.

use crate::arrival::{Arrival, Offer, Step};
use crate::layer::Layer as _;
use crate::stack::Stack;
use crate::websocket::Server;
use crate::{http, proxy};

/// A function that takes any input.
pub type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 3] =
    [("sniffer", sniffer), ("proxy", read_proxy), ("websocket", websocket)];

fn promise(kept: bool, what: &str) {
    assert!(kept, "{what}");
}

/// The parts that a byte makes of bytes: reads of 1 to 255 bytes in turn, or one.
fn parts(seed: u8, bytes: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut rest, mut size) = (Vec::new(), bytes, seed);
    while !rest.is_empty() {
        let count = if seed == 0 { rest.len() } else { usize::from(size.max(1)).min(rest.len()) };
        let (part, then) = rest.split_at(count);
        parts.push(part);
        rest = then;
        size = size.wrapping_mul(37).wrapping_add(11);
    }
    parts
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// Not to SSH so far, with so many bytes kept.
    Nowhere(usize),
    /// To SSH, with this plaintext, if nothing was wrong behind its first bytes.
    ToSsh(Option<Vec<u8>>),
    /// To an end: whether it was refused.
    ToAnEnd(bool),
}

fn arrive<'a>(proxy: bool, parts: impl IntoIterator<Item = &'a [u8]>) -> Came {
    let mut arrival = Some(Arrival::new(Offer { tls: None, proxy }));
    let mut ssh: Option<(Stack, Vec<u8>)> = None;
    let mut end = None;
    let mut written = 0_usize;
    let mut kept = 0_usize;
    for part in parts {
        if let Some((stack, plain)) = &mut ssh {
            let mut buffer = part.to_vec();
            let raw = 0..buffer.len();
            match stack.receive(&mut buffer, raw) {
                Ok(got) => {
                    promise(got.plain <= part.len(), "plaintext grew");
                    plain.extend_from_slice(buffer.get(..got.plain).unwrap_or_default());
                }
                Err(_) => return Came::ToSsh(None),
            }
            promise(
                stack.output().len() <= 256,
                "a read is answered with at most two control frames",
            );
            let all = stack.output().len();
            stack.output().consume(all);
            continue;
        }
        let Some(there) = &mut arrival else { break };
        match there.receive(part) {
            Step::Tls => promise(false, "TLS begins where none is offered"),
            Step::More => kept = kept.saturating_add(part.len()),
            Step::Ssh => {
                // The answer of an upgrade, too, if it came with this read: the driver writes it before
                // it reads again, so that the next read's answer is counted alone.
                let output = there.stack().output();
                promise(output.len() <= 512, "an upgrade is answered with its head and one frame");
                let all = output.len();
                output.consume(all);
                ssh = arrival.take().map(Arrival::finish);
            }
            Step::Closed(closed) => {
                end = Some(matches!(closed, crate::arrival::Closed::Refused(_)));
                promise(!there.may_greet(), "nobody is greeted who was refused");
                written = written.saturating_add(there.stack().output().len());
                arrival = None;
            }
        }
        if let Some(there) = &mut arrival {
            let output = there.stack().output();
            written = written.saturating_add(output.len());
            let all = output.len();
            output.consume(all);
        }
    }
    promise(written <= 4096, "whoever does not come to SSH gets little");
    match (ssh, end) {
        (Some((_, plain)), _) => Came::ToSsh(Some(plain)),
        (None, Some(refused)) => Came::ToAnEnd(refused),
        (None, None) => {
            let most = proxy::MOST.saturating_add(http::MOST).saturating_add(1 << 16);
            promise(kept <= most, "nobody is listened to for ever");
            Came::Nowhere(kept)
        }
    }
}

/// A connection from its first byte on, whatever its reads are.
pub fn sniffer(data: &[u8]) {
    let Some((&[seed, flags], bytes)) = data.split_first_chunk() else { return };
    let bytes = bytes.get(..1 << 14).unwrap_or(bytes);
    let proxy = flags & 1 == 1;
    let whole = arrive(proxy, [bytes]);
    let split = arrive(proxy, parts(seed, bytes));
    let same = match (&whole, &split) {
        // The fault behind SSH's first bytes came with them in one read, or in the next.
        (Came::ToSsh(None) | Came::ToAnEnd(_), Came::ToSsh(_))
        | (Came::ToSsh(_), Came::ToSsh(None))
        // A goodbye in the same read counts before what is wrong with the bytes in front of it.
        | (Came::ToAnEnd(false), Came::ToAnEnd(true)) => true,
        (whole, split) => whole == split,
    };
    promise(same, "a split changes what a connection is");
}

/// A PROXY header: once there is an answer, more bytes do not change it.
pub fn read_proxy(data: &[u8]) {
    let bytes = data.get(..2048).unwrap_or(data);
    let whole = proxy::read(bytes);
    if let proxy::Read::Header { consumed, .. } | proxy::Read::HealthCheck { consumed } = whole {
        let before = bytes.get(..consumed.saturating_sub(1)).unwrap_or_default();
        promise(consumed <= bytes.len() && consumed <= proxy::MOST, "it is there");
        promise(proxy::read(before) == proxy::Read::NeedMore, "and its last byte is needed");
        promise(proxy::read(bytes.get(..consumed).unwrap_or_default()) == whole, "and no more");
    }
    for end in (0..bytes.len()).step_by(bytes.len().div_ceil(64).max(1)) {
        let now = proxy::read(bytes.get(..end).unwrap_or_default());
        promise(now == proxy::Read::NeedMore || now == whole, "more bytes change an answer");
    }
}

/// The data of frames that are known to be well-formed, as plainly as can be.
fn plainly(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let mut rest = bytes.iter();
    loop {
        let Some(first) = rest.next() else { return Some(data) };
        let Some(second) = rest.next() else { return Some(data) };
        let more = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = usize::from(second & 0x7f);
        if more > 0 {
            length = 0;
        }
        for _ in 0..more {
            let Some(byte) = rest.next() else { return Some(data) };
            length = length.checked_mul(256)?.checked_add(usize::from(*byte))?;
        }
        let mask: Vec<u8> = rest.by_ref().take(4).copied().collect();
        if mask.len() < 4 {
            return Some(data);
        }
        let payload = rest.by_ref().take(length).zip(mask.iter().cycle());
        let payload: Vec<u8> = payload.map(|(byte, key)| byte ^ key).collect();
        match first & 15 {
            0 | 2 => data.extend(payload),
            8 if payload.len() == length => return Some(data),
            _ => {}
        }
    }
}

/// Frames, in one read and in many, against the plain reading of them.
pub fn websocket(data: &[u8]) {
    let Some((&[seed, _], bytes)) = data.split_first_chunk() else { return };
    let bytes = bytes.get(..1 << 14).unwrap_or(bytes);
    let run = |parts: Vec<&[u8]>| {
        let mut server = Server::default();
        let mut data = Vec::new();
        let mut ended = false;
        for part in parts {
            let mut buffer = part.to_vec();
            let raw = 0..buffer.len();
            let mut out = Vec::new();
            let got = server.receive(&mut buffer, raw, &mut out);
            promise(out.len() <= 256, "a read is answered with at most two control frames");
            let Ok(got) = got else {
                let mut more = Vec::new();
                server.close(&mut more);
                promise(more.is_empty() && out.first() == Some(&0x88), "one close frame is sent");
                return None;
            };
            promise(got.plain <= part.len(), "plaintext grew");
            promise(!(ended && got.plain > 0), "nothing is read behind a close frame");
            ended |= got.ended;
            data.extend_from_slice(buffer.get(..got.plain).unwrap_or_default());
        }
        Some((data, ended))
    };
    let whole = run(vec![bytes]);
    promise(whole == run(parts(seed, bytes)), "a split changes the data");
    if let Some((data, _)) = whole {
        promise(plainly(bytes) == Some(data), "the data is not what was sent");
    }
}
