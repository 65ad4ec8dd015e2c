//! KEXINIT: what both sides offer, and what that leads to (RFC 4253 section 7.1).

use crate::algorithm::{Cipher, HostKeyAlgorithm, Kex, Negotiated};
use crate::config::Config;
use crate::hostkey::HostKey;
use crate::message::{Fatal, number, printable};
use crate::random::Random;
use crate::wire::{Reader, Writer};

/// The client wants EXT_INFO (RFC 8308 section 2.1). Its counterpart, ext-info-s, says that we would
/// take one.
const EXT_INFO_CLIENT: &str = "ext-info-c";
const EXT_INFO_SERVER: &str = "ext-info-s";

/// Strict key exchange (draft-miller-sshm-strict-kex), in force if both say so in their first KEXINIT.
const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";

/// dropbear's rule for guesses, in force if both say so: the client guessed right if what it likes best
/// is what was agreed on. RFC 4253 wants it to be what we like best, too.
const KEXGUESS2: &str = "kexguess2@matt.ucc.asn.au";

/// Never used, as our ciphers authenticate by themselves; some clients fail on an empty list.
const MACS: [&str; 2] = ["hmac-sha2-256", "hmac-sha2-512"];

const NO_COMPRESSION: &str = "none";

/// Our KEXINIT. Markers that count in the first exchange alone are in the first one alone.
pub(crate) fn build(
    config: &Config,
    first: bool,
    random: &mut dyn Random,
) -> Result<Vec<u8>, Fatal> {
    let mut cookie = [0; 16];
    random.fill(&mut cookie)?;
    let mut markers = vec![KEXGUESS2];
    if first {
        markers.extend([EXT_INFO_SERVER, STRICT_SERVER]);
    }
    let mut message = Vec::with_capacity(512);
    let mut w = Writer::new(&mut message);
    w.u8(number::KEXINIT).bytes(&cookie);
    w.name_list(config.kex.iter().map(|kex| kex.name()).chain(markers));
    w.name_list(host_keys(config).map(HostKeyAlgorithm::name));
    for _direction in 0..2 {
        w.name_list(config.ciphers.iter().map(|cipher| cipher.name()));
    }
    for _direction in 0..2 {
        w.name_list(MACS);
    }
    for _direction in 0..2 {
        w.name_list([NO_COMPRESSION]);
    }
    for _direction in 0..2 {
        w.name_list([]);
    }
    // We never guess: the client speaks first in every method. The rest is reserved.
    w.bool(false).u32(0);
    Ok(message)
}

/// The algorithms of our host keys, each once, in the order of the configuration.
fn host_keys(config: &Config) -> impl Iterator<Item = HostKeyAlgorithm> {
    let algorithms: Vec<_> = config.host_keys.iter().map(HostKey::algorithm).collect();
    let mut seen = Vec::new();
    algorithms.into_iter().filter(move |algorithm| {
        let new = !seen.contains(algorithm);
        seen.push(*algorithm);
        new
    })
}

/// A client's KEXINIT.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    kex: &'a str,
    host_keys: &'a str,
    ciphers: [&'a str; 2],
    compression: [&'a str; 2],
    /// A message of the method that it likes best follows without waiting for us.
    guesses: bool,
}

impl<'a> Offer<'a> {
    /// RFC 4253 section 7.1; `message` is all of it, its number included.
    pub fn read(message: &'a [u8]) -> Result<Self, Fatal> {
        let mut r = Reader::new(message);
        r.bytes(1 + 16)?;
        let kex = r.name_list()?;
        let host_keys = r.name_list()?;
        let ciphers = [r.name_list()?, r.name_list()?];
        let _macs = [r.name_list()?, r.name_list()?];
        let compression = [r.name_list()?, r.name_list()?];
        let _languages = [r.name_list()?, r.name_list()?];
        let guesses = r.bool()?;
        let _reserved = r.u32()?;
        r.end()?;
        Ok(Self { kex, host_keys, ciphers, compression, guesses })
    }

    fn has(&self, marker: &str) -> bool {
        self.kex.split(',').any(|name| name == marker)
    }

    pub fn is_strict(&self) -> bool {
        self.has(STRICT_CLIENT)
    }

    pub fn wants_ext_info(&self) -> bool {
        self.has(EXT_INFO_CLIENT)
    }
}

/// What an offer and ours lead to: of each kind the client's first that we have too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub kex: Kex,
    pub host_key: HostKeyAlgorithm,
    pub cipher_in: Cipher,
    pub cipher_out: Cipher,
    /// The client guessed, and wrong: its next message is to be discarded (RFC 4253 section 7).
    pub discard: bool,
}

impl Choice {
    /// RFC 4253 section 7.1, and what a guess is worth.
    pub fn make(offer: &Offer<'_>, config: &Config) -> Result<Self, Fatal> {
        let host_key_algorithms: Vec<_> = host_keys(config).collect();
        let kex = first("key exchange method", offer.kex, &config.kex, Kex::name)?;
        let host_key =
            first("host key type", offer.host_keys, &host_key_algorithms, HostKeyAlgorithm::name)?;
        let [to_us, from_us] = offer.ciphers;
        let cipher_in = first("cipher", to_us, &config.ciphers, Cipher::name)?;
        let cipher_out = first("cipher", from_us, &config.ciphers, Cipher::name)?;
        for theirs in offer.compression {
            first("compression method", theirs, &[NO_COMPRESSION], |name| name)?;
        }
        let likes = |list: &str, name: &str| list.split(',').next() == Some(name);
        let guessed_right = likes(offer.kex, kex.name())
            && likes(offer.host_keys, host_key.name())
            && (offer.has(KEXGUESS2)
                || (config.kex.first() == Some(&kex)
                    && host_key_algorithms.first() == Some(&host_key)));
        let discard = offer.guesses && !guessed_right;
        Ok(Self { kex, host_key, cipher_in, cipher_out, discard })
    }

    pub fn negotiated(self, strict: bool, ext_info: bool) -> Negotiated {
        Negotiated {
            kex: self.kex,
            host_key: self.host_key,
            cipher_in: self.cipher_in,
            cipher_out: self.cipher_out,
            strict,
            ext_info,
        }
    }
}

/// The first on the client's list that is on ours, or an end that names both (code 3): RFC 4253 section
/// 7.1.
fn first<T: Copy>(
    what: &str,
    theirs: &str,
    ours: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, Fatal> {
    theirs
        .split(',')
        .find_map(|wanted| ours.iter().copied().find(|ours| name(*ours) == wanted))
        .ok_or_else(|| {
            let ours: Vec<_> = ours.iter().map(|ours| name(*ours)).collect();
            nothing_common(what, theirs, &ours.join(","))
        })
}

/// No algorithm in common (RFC 4253 section 7.1): the sentence must fit however much a client offers:
/// its list is cut, ours never is.
fn nothing_common(what: &str, theirs: &str, ours: &str) -> Fatal {
    let sentence = |theirs: &str| {
        format!(
            "no common {what}: the client offers {theirs}; the relay has {ours}; update the client"
        )
    };
    let room = Fatal::TEXT.saturating_sub(sentence("").len());
    let theirs = if theirs.len() <= room {
        printable(theirs, room)
    } else {
        format!("{}...", printable(theirs, room.saturating_sub(3)))
    };
    Fatal::key_exchange(sentence(&theirs))
}
