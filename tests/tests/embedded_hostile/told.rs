//! What a peer was told as it was sent away.

use std::time::Duration;

use tidegate_ssh_client::hand::{Hand, Parting};

use crate::run::{Verdict, Wrong};

/// For a goodbye, and for the end of the connection behind it.
pub const SOON: Duration = Duration::from_secs(10);

/// The relay parts with this code and these words, and closes.
pub fn told(hand: &mut Hand, code: u32, words: &str) -> Verdict {
    match hand.parting(SOON) {
        Parting::Told { code: said, text } if said == code && text.contains(words) => {
            if hand.is_closed(SOON) {
                // Numbers of channels and of bytes are each peer's own.
                Ok(format!("DISCONNECT {code}, {words}"))
            } else {
                Err(Wrong(format!("told {text}, and not closed")))
            }
        }
        other => Err(Wrong(format!("{other:?} in place of {code}, {words}"))),
    }
}

/// The DISCONNECT itself may be lost where a peer had not read it when the connection was reset: told
/// so, or closed at least.
pub fn told_or_closed(hand: &mut Hand, code: u32, words: &str) -> Verdict {
    match hand.parting(SOON) {
        Parting::Closed => Ok("closed".to_owned()),
        Parting::Told { code: said, text } if said == code && text.contains(words) => {
            if hand.is_closed(SOON) {
                Ok(format!("DISCONNECT {code}, {words}"))
            } else {
                Err(Wrong(format!("told {text}, and not closed")))
            }
        }
        other @ (Parting::Told { .. } | Parting::Stayed) => {
            Err(Wrong(format!("{other:?} in place of {code}, {words}")))
        }
    }
}
