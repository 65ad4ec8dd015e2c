//! What a relay reads back from its state directory, without the rest of the relay, whose libraries would
//! take minutes to build for fuzzing: the relay's own files, in the places that they name each other by.

#![allow(dead_code, unused_imports, reason = "readers alone are called")]

#[path = "../../src/audit/mod.rs"]
pub mod audit;
#[path = "../../../process/src/clock.rs"]
pub mod clock;
#[path = "../../src/failpoint.rs"]
pub mod failpoint;
#[path = "../../src/fuzz.rs"]
pub mod fuzz;
#[path = "../../src/history.rs"]
pub mod history;
#[path = "../../src/lastseen.rs"]
pub mod lastseen;
#[path = "../../src/object.rs"]
pub mod object;
#[path = "../../src/record/mod.rs"]
pub mod record;
#[path = "../../src/state.rs"]
pub mod state;

// The folder of a module that has no file is said, since there is none.
#[path = "."]
pub mod claim {
    #[path = "../../src/claim/files.rs"]
    pub mod files;
    #[path = "../../src/claim/table.rs"]
    pub mod table;
    pub use table::Holder;
}

#[path = "."]
pub mod source {
    #[path = "../../src/source/remember.rs"]
    pub mod remember;

    #[path = "."]
    pub mod kube {
        #[path = "../../src/source/kube/journal.rs"]
        pub mod journal;
    }
}

/// As `relay/src/locate.rs` has it.
pub mod locate {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LastSeen {
        pub at: jiff::Timestamp,
        pub from: std::net::SocketAddr,
    }
}

/// The one sentence that readers give.
pub mod sentences {
    pub fn relay_crashed() -> String {
        "the relay ended".to_owned()
    }
}
