//! The view as a person reads it, at 80 columns.

use jiff::Timestamp;
use tidegate_policy::model::Label;

use super::facts::Input;
use super::why::Answer;

/// Printable ASCII alone, at most 300 bytes: anything else becomes `?`.
pub fn clean(_text: &str) -> String {
    unimplemented!()
}

/// `Tue 24 Nov 22:00 UTC`: an instant that belongs to no schedule.
pub fn utc(_at: Timestamp) -> String {
    unimplemented!()
}

pub(super) fn everything(_: &Input<'_>) -> String {
    unimplemented!()
}
pub(super) fn whoami(_: &Input<'_>) -> String {
    unimplemented!()
}
pub(super) fn windows(_: &Input<'_>) -> String {
    unimplemented!()
}
pub(super) fn terminals(_: &Input<'_>) -> String {
    unimplemented!()
}
pub(super) fn sessions(_: &Input<'_>) -> String {
    unimplemented!()
}
pub(super) fn help(_: &Input<'_>) -> String {
    unimplemented!()
}
pub(super) fn why(_: &Answer) -> String {
    unimplemented!()
}
pub(super) fn not_here(_: &Input<'_>) -> String {
    unimplemented!()
}
pub(super) fn attached_as(_: &Label, _: &[Label], _: &str) -> String {
    unimplemented!()
}
