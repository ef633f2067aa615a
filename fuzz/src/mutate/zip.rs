//! Zips as `torch.save` writes them: entries that are not compressed.

use super::{Chance, changed, number, pickle};

/// An entry by its name.
type Entry = (Vec<u8>, Vec<u8>);

/// Changes an entry or the list of them, and writes the zip anew with lengths and checksums that fit.
pub fn checkpoint(bytes: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
    let mut entries = read(bytes);
    if entries.is_empty() {
        return None;
    }
    let pickled = entries.iter().position(|(name, _)| name.ends_with(b"data.pkl"));
    let any = chance.below(entries.len());
    match (chance.below(12), pickled) {
        (0..=5, Some(at)) => entries[at].1 = pickle(&entries[at].1, chance)?,
        (6, Some(at)) => entries[at].1 = changed(&entries[at].1, chance),
        (7 | 8, _) => entries[any].1 = changed(&entries[any].1, chance),
        (9, _) => entries[any].0 = changed(&entries[any].0, chance),
        (10, _) => drop(entries.remove(any)),
        _ => {
            let entry = entries[any].clone();
            entries.insert(chance.below(entries.len()), entry);
        }
    }
    // Sometimes a number of a header is wrong.
    let wrong = chance.below(6) == 0;
    let mut bytes = write(&entries);
    if wrong {
        let headers = [&b"PK\x01\x02"[..], b"PK\x03\x04", b"PK\x05\x06"];
        let header = chance.one_of(&headers);
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(header)).collect();
        if !places.is_empty() {
            let at = chance.one_of(&places) + 4 + chance.below(42);
            let value = number(chance).to_le_bytes();
            let width = chance.one_of(&[1, 2, 4]);
            if let Some(place) = bytes.get_mut(at..at + width) {
                place.copy_from_slice(&value[..width]);
            }
        }
    }
    Some(bytes)
}

/// The entries of a zip, by their local headers: as far as these can be followed.
fn read(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while bytes.starts_with(b"PK\x03\x04") && bytes.len() >= 30 {
        let short = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let size = short(18) | short(20) << 16;
        let (name, extra) = (short(26), short(28));
        let Some(named) = bytes.get(30..30 + name) else { break };
        let start = 30 + name + extra;
        let Some(content) = bytes.get(start..start + size) else { break };
        entries.push((named.to_vec(), content.to_vec()));
        bytes = &bytes[start + size..];
        // A data descriptor, as torch.save writes it behind each entry.
        if bytes.starts_with(b"PK\x07\x08") {
            let next = (4..bytes.len().min(32)).find(|at| bytes[*at..].starts_with(b"PK"));
            bytes = &bytes[next.unwrap_or(bytes.len())..];
        }
    }
    entries
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let (mut bytes, mut central) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let offset = (bytes.len() as u32).to_le_bytes();
        let mut fields = vec![0; 12];
        fields[..2].copy_from_slice(&[20, 0]);
        let fields = [&fields[..10], &crc32fast::hash(content).to_le_bytes()].concat();
        let size = (content.len() as u32).to_le_bytes();
        let fields = [&fields[..], &size, &size, &(name.len() as u16).to_le_bytes(), &[0, 0]].concat();
        central.extend([&b"PK\x01\x02\x14\0"[..], &fields, &[0; 10], &offset, name].concat());
        bytes.extend([&b"PK\x03\x04"[..], &fields, name, content].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (size, start) = ((central.len() as u32).to_le_bytes(), (bytes.len() as u32).to_le_bytes());
    bytes.extend(central);
    bytes.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &size, &start, &[0, 0]].concat());
    bytes
}
