//! What the crate image-webp will take for the prefix codes of a lossless WebP picture, before it takes it.
//!
//! A picture may have 65,536 groups of five codes, whether its pixels use them or not: a small picture inside, the entropy
//! image, says how many there are. The crate makes tables for all of them before it decodes a pixel, up to 121 kB for a group
//! that has few bytes in the file. So the stream is read here up to the end of the codes, as
//! <https://developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification> says, or as the crate reads it where
//! that differs. No pixels are kept, and one code at a time.

use super::{CUT_SHORT, riff};
use crate::error::{Reason, Result, ensure};

/// The tables may take more than 64 MiB only if they take no more than 64 times the file's bytes.
const LARGE: u64 = 64 << 20;
const MOST: u64 = 64;
/// The bytes of a group of five codes without their tables, twice: the crate doubles its list of groups when it is full.
const GROUP: u64 = 2 * 5 * 56;
/// The order in which the lengths of the code for lengths are stored.
const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// What is read, or why it is refused. There is no reason where the stream ends or is damaged: there the crate stops too, and
/// says so.
type Read<T> = Result<T, Option<Reason>>;

/// Refuses a WebP file for whose prefix codes the crate would take more memory than such a small file can need, and one that
/// ends within its picture.
///
/// # Errors
/// If it would, or if a code has more symbols than it has room for, or a chunk more bytes than there are: the crate may not
/// notice.
pub(super) fn ensure_room(bytes: &[u8]) -> Result<(), Reason> {
    ensure!(riff::pictures(bytes).all(|chunk| chunk.is_whole), "{CUT_SHORT}");
    let limit = LARGE.max(MOST.saturating_mul(bytes.len() as u64));
    for (bytes, width, height) in streams(bytes) {
        if let Err(Some(reason)) = (Bits { bytes, at: 0 }).read_codes(width, height, limit) {
            return Err(reason);
        }
    }
    Ok(())
}

/// The lossless streams of the picture or its first frame, and of its alpha, behind their headers, with width and height. Some
/// may be streams that the crate passes over.
fn streams(bytes: &[u8]) -> impl Iterator<Item = (&[u8], u32, u32)> {
    let [canvas, frame] =
        [b"VP8X", b"ANMF"].map(|name| riff::chunk(bytes, name).map_or(&[][..], |chunk| chunk.content));
    let is_animated = canvas.first().is_some_and(|flags| flags & 2 != 0);
    let sides = if is_animated { frame.get(6..12) } else { canvas.get(4..10) };
    let side = |bytes: &[u8]| 1 + u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
    riff::pictures(bytes).filter_map(move |chunk| match (&chunk.name, chunk.content, sides) {
        (b"VP8L", content, _) => riff::lossless(content),
        (b"ALPH", [kind, stream @ ..], Some(sides)) if kind & 3 == 1 => Some((stream, side(sides), side(&sides[3..]))),
        _ => None,
    })
}

/// A stream of bits, each byte from its lowest.
struct Bits<'a> {
    bytes: &'a [u8],
    /// The number of bits that have been read.
    at: usize,
}

impl Bits<'_> {
    /// The next bits, at least 25, with zeros behind the end.
    fn peek(&self) -> u32 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let next = match rest.first_chunk() {
            Some(next) => u32::from_le_bytes(*next),
            None => rest.iter().rfold(0, |next, byte| next << 8 | u32::from(*byte)),
        };
        next >> (self.at % 8)
    }

    fn skip(&mut self, count: u32) -> Read<()> {
        self.at += count as usize;
        if self.at > 8 * self.bytes.len() { Err(None) } else { Ok(()) }
    }

    /// A number of so many bits, at most 25.
    fn number(&mut self, count: u32) -> Read<u32> {
        let number = self.peek() & ((1 << count) - 1);
        self.skip(count)?;
        Ok(number)
    }

    fn flag(&mut self) -> Read<bool> {
        Ok(self.number(1)? == 1)
    }

    /// Reads a stream up to the end of its prefix codes. Returns the number of groups.
    fn read_codes(&mut self, width: u32, height: u32, limit: u64) -> Read<u32> {
        // The crate decodes no larger frame.
        if width.max(height) > 1 << 14 {
            return Err(None);
        }
        let width = self.pass_transforms(width, height)?;
        let cached = self.cached_colours()?;
        let groups = if self.flag()? { 1 + self.pass_blocks(width, height)? } else { 1 };
        let mut taken = 0;
        for _ in 0..groups {
            taken += GROUP;
            for symbols in alphabets(cached) {
                taken += self.code(symbols)?.memory;
            }
            ensure!(taken <= limit, "its prefix codes would take more than {limit} bytes of memory");
        }
        Ok(groups)
    }

    /// Passes over the transforms. Returns the width of the picture that is stored: of few colours several are in one pixel.
    fn pass_transforms(&mut self, mut width: u32, height: u32) -> Read<u32> {
        let mut seen = [false; 4];
        while self.flag()? {
            let kind = self.number(2)? as usize;
            if std::mem::replace(&mut seen[kind], true) {
                return Err(None);
            }
            match kind {
                // Predictors, and how colours depend on each other.
                0 | 1 => _ = self.pass_blocks(width, height)?,
                // Green is subtracted from the others, always in the same way.
                2 => {}
                _ => {
                    let colours = 1 + self.number(8)?;
                    self.pass_picture(colours, 1)?;
                    let together = [(2, 8), (4, 4), (16, 2)].into_iter().find(|(most, _)| colours <= *most);
                    width = width.div_ceil(together.map_or(1, |(_, together)| together));
                }
            }
        }
        Ok(width)
    }

    /// The number of colours that are kept, to be named again.
    fn cached_colours(&mut self) -> Read<usize> {
        let bits = if self.flag()? { self.number(4)? } else { return Ok(0) };
        if (1..=11).contains(&bits) { Ok(1 << bits) } else { Err(None) }
    }

    /// As [`Self::pass_picture`], over one with a pixel for each block of a picture of this size.
    fn pass_blocks(&mut self, width: u32, height: u32) -> Read<u32> {
        let side = 4 << self.number(3)?;
        self.pass_picture(width.div_ceil(side), height.div_ceil(side))
    }

    /// Passes over a picture inside. Returns the largest number that a pixel's red and green make. Only pixels that are stored
    /// are looked at: others repeat them, or are 0.
    fn pass_picture(&mut self, width: u32, height: u32) -> Read<u32> {
        let cached = self.cached_colours()?;
        let [green, red, blue, alpha, distance] = alphabets(cached).map(|symbols| self.code(symbols));
        let (green, red, blue, alpha, distance) = (green?, red?, blue?, alpha?, distance?);
        let (mut left, mut largest) = (width * height, 0);
        while left > 0 {
            let before = self.at;
            let mut count = 1;
            match green.read(self)? {
                symbol @ 0..256 => {
                    largest = largest.max(red.read(self)? << 8 | symbol);
                    blue.read(self)?;
                    alpha.read(self)?;
                }
                symbol @ 256..280 => {
                    count = self.number_after(symbol - 256)?;
                    // It does not matter which pixels are repeated.
                    let distance = distance.read(self)?;
                    self.number_after(distance)?;
                }
                _kept => {}
            }
            left = left.checked_sub(count).ok_or(None)?;
            // If one step takes no bits, no step does: all go the same way.
            if self.at == before {
                break;
            }
        }
        Ok(largest)
    }

    /// The length or distance that begins with this symbol.
    fn number_after(&mut self, symbol: u32) -> Read<u32> {
        let bits = symbol.saturating_sub(2) / 2;
        let first = if symbol < 4 { symbol } else { (2 + symbol % 2) << bits };
        Ok(first + self.number(bits)? + 1)
    }

    /// Reads a code for so many symbols.
    fn code(&mut self, symbols: usize) -> Read<Code> {
        if self.flag()? {
            let (has_two, bits) = (self.flag()?, if self.flag()? { 8 } else { 1 });
            let mut named = vec![self.number(bits)?];
            if has_two {
                named.push(self.number(8)?);
            }
            let are_known = named.iter().all(|symbol| (*symbol as usize) < symbols);
            return if are_known { Ok(Code::of_named(named)) } else { Err(None) };
        }
        let mut lengths = vec![0; ORDER.len()];
        let stored = 4 + self.number(4)? as usize;
        for place in &ORDER[..stored] {
            lengths[*place] = self.number(3)? as u8;
        }
        let code = Code::of_lengths(&lengths)?;
        let bits = if self.flag()? { 2 + 2 * self.number(3)? } else { 0 };
        let most = if bits > 0 { 2 + self.number(bits)? as usize } else { symbols };
        lengths.clear();
        let mut last = 8;
        for _ in 0..most {
            let (length, times) = match code.read(self)? as u8 {
                16 => (last, 3 + self.number(2)?),
                17 => (0, 3 + self.number(3)?),
                18 => (0, 11 + self.number(7)?),
                length => (length, 1),
            };
            last = if length > 0 { length } else { last };
            lengths.resize(lengths.len() + times as usize, length);
            if lengths.len() >= symbols {
                break;
            }
        }
        if most.max(lengths.len()) > symbols { Err(None) } else { Code::of_lengths(&lengths) }
    }
}

/// The numbers of symbols of the five codes: for green, lengths and colours that are kept; red; blue; alpha; distances.
fn alphabets(cached: usize) -> [usize; 5] {
    [256 + 24 + cached, 256, 256, 256, 40]
}

/// A canonical prefix code.
struct Code {
    /// The number of codes of each length.
    counts: [u32; 16],
    /// From the shortest code to the longest.
    symbols: Vec<u32>,
    /// The bytes of the crate's tables (0.2.4, `huffman.rs`). A single symbol needs none. Two symbols that are named take 3
    /// nodes of 16 bytes and 2 entries of 4. Other codes take an entry for each number of as many bits as the longest code has,
    /// 10 at most, and two nodes for each code that is longer.
    memory: u64,
}

impl Code {
    /// That of one or two symbols. Of two the first is a 0, as in the crate; the specification sorts them.
    fn of_named(symbols: Vec<u32>) -> Self {
        let mut counts = [0; 16];
        counts[1] = symbols.len() as u32;
        Self { counts, memory: if symbols.len() == 1 { 0 } else { 3 * 16 + 2 * 4 }, symbols }
    }

    /// That of symbols whose codes have these lengths; those of length 0 do not occur.
    fn of_lengths(lengths: &[u8]) -> Read<Self> {
        let length = |symbol: &u32| lengths[*symbol as usize];
        let mut symbols: Vec<u32> = (0..lengths.len() as u32).filter(|symbol| length(symbol) > 0).collect();
        symbols.sort_by_key(length);
        if symbols.len() == 1 {
            return Ok(Self::of_named(symbols));
        }
        let mut counts = [0; 16];
        symbols.iter().for_each(|symbol| counts[usize::from(length(symbol))] += 1);
        let room = counts[1..].iter().fold(1, |room, count| 2 * room - i64::from(*count));
        // The crate adds up in 16 bits, and takes some of these codes for good ones.
        ensure!(room >= 0, "a prefix code has more symbols than it has room for");
        if room > 0 {
            return Err(None);
        }
        let longest = symbols.last().map_or(0, length);
        let longer = u64::from(counts[11..].iter().sum::<u32>());
        Ok(Self { counts, symbols, memory: (4 << longest.min(10)) + 2 * 16 * longer })
    }

    fn read(&self, bits: &mut Bits) -> Read<u32> {
        if let [symbol] = self.symbols[..] {
            return Ok(symbol);
        }
        // The codes of one length are numbers that follow each other, behind those of the length before.
        let (mut next, mut code, mut first, mut shorter) = (bits.peek(), 0, 0, 0);
        for (length, count) in (1..).zip(&self.counts[1..]) {
            (code, next) = (code << 1 | next & 1, next >> 1);
            if code < first + count {
                bits.skip(length)?;
                return Ok(self.symbols[(shorter + code - first) as usize]);
            }
            shorter += count;
            first = (first + count) << 1;
        }
        Err(None)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(path: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)).unwrap()
    }

    fn why_refused(bytes: &[u8]) -> Option<String> {
        ensure_room(bytes).err().map(|reason| reason.to_string())
    }

    #[test]
    fn more_codes_than_a_small_file_can_need_are_refused() {
        let codes = file("found/webp/prefix-codes-of-70-megabytes.webp");
        let words = Some("its prefix codes would take more than 67108864 bytes of memory".to_string());
        assert_eq!(why_refused(&codes), words);
        let room = file("found/webp/prefix-code-with-more-symbols-than-room.webp");
        assert_eq!(why_refused(&room).as_deref(), Some("a prefix code has more symbols than it has room for"));
        // The same codes for alpha, of a picture and of a frame, and for a frame.
        let chunk = |name: &[u8], content: &[u8]| [name, &(content.len() as u32).to_le_bytes(), content].concat();
        let sides = [15, 0, 0, 15, 0, 0];
        let frame = |content: &[u8]| chunk(b"ANMF", &[&[0; 6], &sides[..], &[0; 4], content].concat());
        let file = |flags: u8, content: &[u8]| {
            [b"RIFF....WEBP", &chunk(b"VP8X", &[&[flags, 0, 0, 0], &sides[..]].concat())[..], content].concat()
        };
        let alpha = chunk(b"ALPH", &[&[1], &codes[25..]].concat());
        let frames = [frame(&alpha), frame(&codes[12..])];
        for whole in [file(16, &alpha), file(16, &frames[0]), file(18, &frames[0]), file(2, &frames[1])] {
            assert_eq!(why_refused(&whole), words);
            assert_eq!(why_refused(&whole[..whole.len() / 2]).as_deref(), Some(CUT_SHORT));
        }
    }

    #[test]
    fn codes_are_read_as_they_are_stored() {
        let bytes = file("decode/lossless.webp");
        assert_eq!(why_refused(&bytes), None);
        let [(stream, 37, 26)] = streams(&bytes).collect::<Vec<_>>()[..] else {
            panic!("it has one stream, of 37 x 26 pixels")
        };
        let mut bits = Bits { bytes: stream, at: 0 };
        // Two groups, whose tables are just within the limit, and behind them the pixels.
        assert_eq!((bits.read_codes(37, 26, 12_448), bits.at), (Ok(2), 2000));
        assert!(matches!(Bits { bytes: stream, at: 0 }.read_codes(37, 26, 12_447), Err(Some(_))));
    }
}
