//! The beginning of a packet whose rest has not come: it is kept as it grows, and looked at again only
//! when there is enough of it, so that one that comes byte by byte costs no more than any other.

#[derive(Default)]
pub(super) struct Partial {
    bytes: Vec<u8>,
    /// With fewer bytes there is nothing to be done, as `Next::Incomplete` said.
    need: usize,
}

impl Partial {
    /// `need`: as many bytes as there have to be.
    pub fn new(bytes: Vec<u8>, need: usize) -> Self {
        Self { bytes, need }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what came behind it; `false`, and nothing taken, where that makes enough of it.
    pub fn grow(&mut self, came: &[u8]) -> bool {
        let grows = self.len().saturating_add(came.len()) < self.need;
        if grows {
            self.bytes.extend_from_slice(came);
        }
        grows
    }

    /// Puts it in front of what came.
    pub fn put(&self, front: &mut [u8]) {
        if let Some(place) = front.get_mut(..self.len()) {
            place.copy_from_slice(&self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_ssh::{Inbound, Next, RekeyLimits};

    use super::*;

    /// The longest packet, all of it message, in clear.
    fn stream() -> Vec<u8> {
        let mut bytes = b"SSH-2.0-x\r\n".to_vec();
        bytes.extend(34_996_u32.to_be_bytes());
        bytes.push(4);
        bytes.resize(bytes.len() + 34_995, 2);
        bytes
    }

    #[test]
    fn a_packet_that_trickles_in_is_copied_and_looked_at_as_rarely_as_any_other() {
        let mut inbound = Inbound::new(RekeyLimits::default());
        let mut partial = Partial::default();
        let (mut copied, mut looks, mut messages) = (0, 0, 0);
        let mut buffer = vec![0; 256 * 1024];
        for byte in stream() {
            let kept = partial.len();
            buffer[kept] = byte;
            if partial.grow(&[byte]) {
                continue;
            }
            partial.put(&mut buffer);
            copied += kept;
            let mut at = 0;
            let need = loop {
                looks += 1;
                match inbound.next(&mut buffer[..=kept], at).unwrap() {
                    Next::Incomplete { need } => break need,
                    Next::Version { next, .. } => at = next,
                    Next::Message { message, next, .. } => {
                        assert_eq!(message.len(), 34_991);
                        messages += 1;
                        at = next;
                    }
                    Next::Exhausted => panic!("so soon"),
                }
            };
            partial = Partial::new(buffer[at..=kept].to_vec(), need);
            copied += partial.len();
        }
        assert_eq!(messages, 1);
        // The version line is looked at byte by byte; the packet at its length, and when it is whole.
        assert!(looks < 20 && copied < 36_000, "{looks} {copied}");
    }
}
