//! What a client offers, and its KEXINIT (RFC 4253 section 7.1).

use tidegate_ssh::wire::{Reader, Writer};
use tidegate_ssh::{Cipher, Kex, RekeyLimits};

use crate::Fault;

/// What a client offers; tests change what they are about.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a marker of its own")]
pub struct Offer {
    pub line: &'static str,
    pub kex: Vec<&'static str>,
    pub host_keys: Vec<&'static str>,
    /// To the server, and from it.
    pub ciphers: [Vec<&'static str>; 2],
    pub macs: Vec<&'static str>,
    pub compression: Vec<&'static str>,
    pub strict: bool,
    pub ext_info: bool,
    pub kexguess2: bool,
    /// Sends its favourite method's share at once.
    pub guesses: bool,
    /// After how much it asks for new keys by itself.
    pub rekey: RekeyLimits,
}

impl Default for Offer {
    fn default() -> Self {
        let ciphers: Vec<_> = Cipher::ALL.iter().map(|c| c.name()).collect();
        Self {
            line: "SSH-2.0-Test_1.0 by us",
            kex: Kex::ALL.iter().map(|k| k.name()).collect(),
            host_keys: vec!["ssh-ed25519", "ecdsa-sha2-nistp256"],
            ciphers: [ciphers.clone(), ciphers],
            macs: vec!["hmac-sha2-256"],
            compression: vec!["none", "zlib@openssh.com"],
            strict: true,
            ext_info: true,
            kexguess2: false,
            guesses: false,
            rekey: RekeyLimits::default(),
        }
    }
}

impl Offer {
    /// One method of each kind.
    pub fn only(kex: Kex, host_key: &'static str, ciphers: [Cipher; 2]) -> Self {
        Self {
            kex: vec![kex.name()],
            host_keys: vec![host_key],
            ciphers: ciphers.map(|cipher| vec![cipher.name()]),
            ..Self::default()
        }
    }

    /// The message; `first`: markers that count in the first exchange alone are in it.
    pub fn kexinit(&self, cookie: [u8; 16], first: bool) -> Vec<u8> {
        let mut message = Vec::new();
        let mut w = Writer::new(&mut message);
        let mut kex = self.kex.clone();
        for (marker, listed) in [
            ("ext-info-c", self.ext_info),
            ("kex-strict-c-v00@openssh.com", self.strict && first),
            ("kexguess2@matt.ucc.asn.au", self.kexguess2),
        ] {
            if listed {
                kex.push(marker);
            }
        }
        w.u8(20).bytes(&cookie).name_list(kex).name_list(self.host_keys.iter().copied());
        for list in &self.ciphers {
            w.name_list(list.iter().copied());
        }
        for list in [&self.macs, &self.macs, &self.compression, &self.compression] {
            w.name_list(list.iter().copied());
        }
        w.name_list([]).name_list([]).bool(self.guesses).u32(0);
        message
    }

    /// What this and a server's KEXINIT lead to.
    pub(crate) fn choose(&self, theirs: &[u8]) -> Result<Choice, Fault> {
        let mut r = Reader::new(theirs);
        r.bytes(17)?;
        let mut lists = Vec::new();
        for _ in 0..10 {
            lists.push(r.name_list()?.split(',').collect::<Vec<_>>());
        }
        let (guess, reserved) = (r.bool()?, r.u32()?);
        r.end()?;
        if guess || reserved != 0 {
            return Err(Fault::new("the server guesses"));
        }
        let first = |ours: &[&'static str], list: usize| {
            let found = ours.iter().copied().find(|name| lists[list].contains(name));
            found.ok_or_else(|| Fault::new(format!("of {ours:?} the server has none")))
        };
        let kex = first(&self.kex, 0)?;
        let host_key = first(&self.host_keys, 1)?;
        let ciphers = [first(&self.ciphers[0], 2)?, first(&self.ciphers[1], 3)?];
        let guessed_right = self.guesses
            && self.kex[0] == kex
            && self.host_keys[0] == host_key
            && (self.kexguess2 || (lists[0][0] == kex && lists[1][0] == host_key));
        let ciphers = ciphers.map(|name| Cipher::ALL.into_iter().find(|it| it.name() == name));
        let [Some(to_server), Some(from_server)] = ciphers else {
            return Err(Fault::new("a cipher was chosen that nobody here has"));
        };
        let strict = lists[0].contains(&"kex-strict-s-v00@openssh.com");
        Ok(Choice { kex, host_key, to_server, from_server, guessed_right, strict })
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub kex: &'static str,
    pub host_key: &'static str,
    pub to_server: Cipher,
    pub from_server: Cipher,
    pub guessed_right: bool,
    /// The server's marker is there, as it is in its first KEXINIT alone.
    pub strict: bool,
}
