//! Named points in the order of admission at which the crash tests end the process, and places that
//! panic for them.
//!
//! With the feature `failpoints`, `TIDEGATE_FAILPOINT=Claimed` aborts the process when a session's
//! admission first gets there, as `kill -9` at that instant would. Releases are built without the
//! feature, and [`reach`] and [`fault`] are nothing.

/// Each step between a request and its first byte, before and after what is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Policy allows; nothing was touched.
    Authorised,
    /// The terminal's channel is open.
    Located,
    /// The claim is about to be written.
    ClaimBegun,
    /// The claim's file has its name, and is not synced yet.
    ClaimWritten,
    /// The claim is durable.
    Claimed,
    /// The audit line is about to be written.
    RecordBegun,
    /// The audit line is written, and not synced yet.
    RecordWritten,
    /// The audit line is durable.
    Recorded,
    /// The staff channel is open, and no byte has been forwarded.
    Accepted,
}

impl Point {
    /// In the order of admission.
    pub const ALL: [Self; 9] = [
        Self::Authorised,
        Self::Located,
        Self::ClaimBegun,
        Self::ClaimWritten,
        Self::Claimed,
        Self::RecordBegun,
        Self::RecordWritten,
        Self::Recorded,
        Self::Accepted,
    ];
}

/// Whether this build has fail points.
pub const ENABLED: bool = cfg!(feature = "failpoints");

/// Marks that an admission got to `point`.
#[cfg(feature = "failpoints")]
pub fn reach(point: Point) {
    if std::env::var("TIDEGATE_FAILPOINT").is_ok_and(|name| name == format!("{point:?}")) {
        std::process::abort();
    }
}

/// Marks that an admission got to `point`: nothing, outside of the crash tests.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach(_: Point) {}

/// Where `TIDEGATE_FAULT` makes a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A key is proven, and it is about to be said whose it is.
    Recognise,
}

/// Panics where the tests want it.
#[cfg(feature = "failpoints")]
pub fn fault(place: Place) {
    let here = std::env::var("TIDEGATE_FAULT").is_ok_and(|name| name == format!("{place:?}"));
    assert!(!here, "on purpose, at {place:?}");
}

/// Panics where the tests want it: nothing, outside of them.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn fault(_: Place) {}
