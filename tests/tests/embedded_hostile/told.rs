//! What a peer was told as it was sent away.

use std::time::Duration;

use tidegate_ssh_client::hand::{Hand, Parting};

use crate::run::{Verdict, Wrong};

/// For a goodbye, and for the end of the connection behind it.
pub const SOON: Duration = Duration::from_secs(10);

/// The relay parts with this code and these words, in one clean sentence, and closes.
pub fn told(hand: &mut Hand, code: u32, words: &str) -> Verdict {
    let parting = hand.parting(SOON);
    let Parting::Told { code: said, text } = &parting else {
        return Err(Wrong(format!("{parting:?} in place of {code}, {words}")));
    };
    if *said != code || !text.contains(words) || !is_clean(text) {
        return Err(Wrong(format!("{parting:?} in place of {code}, {words}")));
    }
    if !hand.is_closed(SOON) {
        return Err(Wrong(format!("told {text}, and not closed")));
    }
    // Numbers of channels and of bytes are each peer's own.
    let words = if words.is_empty() { "a sentence" } else { words };
    Ok(format!("DISCONNECT {code}, {words}"))
}

/// The DISCONNECT itself may be lost where a peer had not read it when the connection was reset: told
/// so, or closed at least.
pub fn told_or_closed(hand: &mut Hand, code: u32, words: &str) -> Verdict {
    if hand.parting(SOON) == Parting::Closed {
        return Ok("closed".to_owned());
    }
    told(hand, code, words)
}

/// One sentence as people can be shown it, whatever a peer has put into it.
pub fn is_clean(text: &str) -> bool {
    text.len() <= 300 && text.bytes().all(|byte| (32..127).contains(&byte))
}
