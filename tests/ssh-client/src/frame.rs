//! Packets in clear, with room for a tag.

use tidegate_ssh::message::number;
use tidegate_ssh::wire::Writer;

/// Where the data lies in it.
pub const DATA: usize = 14;

/// A `CHANNEL_DATA` of another leg, as the path from leg to leg gets it.
pub fn frame(data: &[u8], plain: bool) -> Vec<u8> {
    let mut message = vec![number::CHANNEL_DATA];
    Writer::new(&mut message).u32(0xdead_beef).string(data);
    around(&message, plain)
}

/// The packet of a message of any size, with room for a tag, which every cipher's blocks fit; `plain`:
/// without one, as it is before keys.
pub fn around(message: &[u8], plain: bool) -> Vec<u8> {
    let (counted, tag) = if plain { (4, 0) } else { (0, 16) };
    let mut padding = 16 - (1 + message.len() + counted) % 16;
    if padding < 4 {
        padding += 16;
    }
    let length = u32::try_from(1 + message.len() + padding).expect("a packet");
    let mut frame = length.to_be_bytes().to_vec();
    frame.push(u8::try_from(padding).expect("below 20"));
    frame.extend(message);
    frame.resize(frame.len() + padding + tag, 0);
    frame
}
