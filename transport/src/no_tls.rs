//! In the place of TLS, where it is left out: nothing can be made of these.

use std::ops::Range;
use std::sync::Arc;

use crate::Fault;
use crate::layer::{Layer, Received};

#[derive(Debug)]
pub enum Config {}

#[derive(Debug)]
pub enum Tls {}

impl Tls {
    #[expect(clippy::needless_pass_by_value, reason = "as the real one")]
    pub fn new(config: Arc<Config>) -> Result<Self, Fault> {
        match *config {}
    }

    pub fn is_handshaking(&self) -> bool {
        match *self {}
    }
}

impl Layer for Tls {
    fn receive(
        &mut self,
        _: &mut [u8],
        _: Range<usize>,
        _: &mut Vec<u8>,
    ) -> Result<Received, Fault> {
        match *self {}
    }

    fn send(&mut self, _: &[u8], _: &mut Vec<u8>) -> Result<(), Fault> {
        match *self {}
    }

    fn close(&mut self, _: &mut Vec<u8>) {
        match *self {}
    }
}
