//! What is in a USERAUTH_REQUEST (RFC 4252 sections 5 and 7; OpenSSH's PROTOCOL section 3.1).

use crate::message::Fatal;
use crate::wire::{Reader, Writer};

/// A request, as it came.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    message: &'a [u8],
    pub user: &'a [u8],
    pub service: &'a [u8],
    pub method: Method<'a>,
}

#[derive(Debug)]
pub(crate) enum Method<'a> {
    PublicKey(Offer<'a>),
    /// "none", and all that we do not have.
    Other,
}

/// A key.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    pub algorithm: &'a [u8],
    pub key: &'a [u8],
    /// publickey-hostbound-v00@openssh.com: the host key that the client saw in the exchange.
    pub host_key: Option<&'a [u8]>,
    /// None in a question whether the key is worth a signature.
    pub signature: Option<&'a [u8]>,
    /// Bytes of the message before the signature: what it covers, behind the session's id.
    covered: usize,
}

impl<'a> Request<'a> {
    /// RFC 4252 sections 5 and 7; fields that come behind a method which we do not have stay unread.
    pub fn read(message: &'a [u8]) -> Result<Self, Fatal> {
        let mut r = Reader::new(message);
        r.u8()?;
        let (user, service, name) = (r.string()?, r.string()?, r.string()?);
        let method = match name {
            b"publickey" => Method::PublicKey(Offer::read(message, r, false)?),
            b"publickey-hostbound-v00@openssh.com" => {
                Method::PublicKey(Offer::read(message, r, true)?)
            }
            _ => Method::Other,
        };
        Ok(Self { message, user, service, method })
    }

    /// What the signature covers: the session's id and the request up to the signature (RFC 4252
    /// section 7). These are the very bytes that came, so that nothing in them can differ.
    pub fn signed(&self, session_id: &[u8], offer: &Offer<'_>) -> Vec<u8> {
        let mut signed = Vec::new();
        let covered = self.message.get(..offer.covered).unwrap_or_default();
        Writer::new(&mut signed).string(session_id).bytes(covered);
        signed
    }
}

impl<'a> Offer<'a> {
    fn read(message: &[u8], mut r: Reader<'a>, bound: bool) -> Result<Self, Fatal> {
        let has_signature = r.bool()?;
        let (algorithm, key) = (r.string()?, r.string()?);
        let host_key = if bound { Some(r.string()?) } else { None };
        let covered = message.len().saturating_sub(r.rest().len());
        let signature = if has_signature { Some(r.string()?) } else { None };
        r.end()?;
        Ok(Self { algorithm, key, host_key, signature, covered })
    }
}
