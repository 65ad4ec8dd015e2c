//! Why she may, or may not, reach a terminal now.

use super::facts::Input;

pub(super) struct Answer {
    pub admitted: bool,
}

pub(super) fn why(_: &Input<'_>, _terminal: &str, _service: Option<&str>) -> Answer {
    unimplemented!()
}
