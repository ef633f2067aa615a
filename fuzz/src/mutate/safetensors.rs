//! Files that begin with text that says what follows.

use super::{Chance, changed, number};

/// Changes the header of a safetensors file, or what follows, and writes the length of the header anew.
pub fn safetensors(bytes: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let header = bytes.get(8..length.checked_add(8)?)?;
    let (header, data) = texts(header, &bytes[8 + length..], chance);
    Some([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
}

/// Changes the dimensions of a packed network, or the data.
pub fn packed(bytes: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (config, mut data) = texts(&bytes[..end], &bytes[end + 1..], chance);
    // Data are as long as the dimensions say, in whole cache lines.
    match chance.below(8) {
        0 => data.resize(data.len() + 64 * (1 + chance.below(64)), 0),
        1 => data.truncate(data.len().saturating_sub(64 * (1 + chance.below(64)))),
        _ => {}
    }
    Some([&config[..], b"\n", &data].concat())
}

fn texts(text: &[u8], data: &[u8], chance: &mut Chance) -> (Vec<u8>, Vec<u8>) {
    match chance.below(4) {
        0 => (changed(text, chance), data.to_vec()),
        1 => (text.to_vec(), changed(data, chance)),
        // Another number in place of one.
        _ => {
            let starts: Vec<usize> =
                (1..text.len()).filter(|at| text[*at].is_ascii_digit() && b"[,: ".contains(&text[*at - 1])).collect();
            if starts.is_empty() {
                return (changed(text, chance), data.to_vec());
            }
            let start = chance.one_of(&starts);
            let digits = text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let other = number(chance).to_string();
            ([&text[..start], other.as_bytes(), &text[start + digits..]].concat(), data.to_vec())
        }
    }
}
