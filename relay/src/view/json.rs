//! The view in the resources' field names, for programs.

use super::facts::Input;
use super::why::Answer;

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
pub(super) fn help() -> String {
    unimplemented!()
}
pub(super) fn why(_: &Answer) -> String {
    unimplemented!()
}
