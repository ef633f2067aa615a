//! PNG files.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::{Chance, changed, number};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A chunk by its kind.
type Chunk = ([u8; 4], Vec<u8>);

/// Changes a chunk or the list of them; the pixels before they are compressed. Writes lengths and checksums anew.
pub fn png(bytes: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
    let mut chunks = read(bytes.strip_prefix(SIGNATURE)?);
    if chunks.is_empty() {
        return None;
    }
    let at = chance.below(chunks.len());
    match chance.below(8) {
        0 => drop(chunks.remove(at)),
        1 => {
            let chunk = chunks[at].clone();
            chunks.insert(chance.below(chunks.len()), chunk);
        }
        2 | 3 => {
            let first = chunks.iter().position(|(kind, _)| kind == b"IDAT")?;
            let mut pixels = Vec::new();
            let data = chunks.iter().filter(|(kind, _)| kind == b"IDAT").flat_map(|(_, data)| data.clone());
            let data: Vec<u8> = data.collect();
            drop(ZlibDecoder::new(&data[..]).take(1 << 16).read_to_end(&mut pixels));
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(chance.below(3) as u32));
            encoder.write_all(&changed(&pixels, chance)).ok()?;
            chunks.retain(|(kind, _)| kind != b"IDAT");
            chunks.insert(first, (*b"IDAT", encoder.finish().ok()?));
        }
        4 => {
            let header = &mut chunks.iter_mut().find(|(kind, data)| kind == b"IHDR" && data.len() == 13)?.1;
            match chance.below(6) {
                0 | 1 => {
                    let side = chance.below(2) * 4;
                    header[side..side + 4].copy_from_slice(&(number(chance) as u32).to_be_bytes());
                }
                2 => header[8] = chance.one_of(&[1, 2, 4, 8, 16, 3]),
                3 => header[9] = chance.one_of(&[0, 2, 3, 4, 6, 1]),
                4 => header[12] ^= 1,
                _ => header[10 + chance.below(2)] = chance.below(4) as u8,
            }
        }
        5 => {
            let kinds =
                [b"tRNS", b"PLTE", b"eXIf", b"zTXt", b"iTXt", b"tEXt", b"gAMA", b"iCCP", b"acTL", b"fcTL", b"fdAT"];
            let kind = *chance.one_of(&kinds);
            let data = changed(&[0; 8], chance);
            chunks.insert(at, (kind, data));
        }
        _ => chunks[at].1 = changed(&chunks[at].1, chance),
    }
    let mut bytes = SIGNATURE.to_vec();
    for (kind, data) in chunks {
        let checked = [&kind[..], &data].concat();
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(&checked);
        bytes.extend(crc32fast::hash(&checked).to_be_bytes());
    }
    Some(bytes)
}

fn read(mut bytes: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>()
        && let Some((kind, rest)) = rest.split_first_chunk::<4>()
        && let Some((data, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)
    {
        chunks.push((*kind, data.to_vec()));
        bytes = rest.get(4..).unwrap_or_default();
    }
    chunks
}
