//! BMP files, and DIB, which are BMP files without the file header, as Pillow reads them
//! (`BmpImagePlugin.py`). Beyond Pillow, pixels of 2 bits and bit fields of any width are read.

use super::little_endian::{read_u16, read_u32};
use super::{CUT_SHORT, Decoder};
use crate::error::{Context, Reason, Result, bail, ensure};

/// A BMP file, or the bitmap in an icon.
pub(super) struct Bmp<'a> {
    width: u32,
    height: u32,
    /// Rows are stored from the top to the bottom, and not the other way.
    top_down: bool,
    file: &'a [u8],
    /// Where in the file the pixels begin.
    start: usize,
    storage: Storage,
}

/// How pixels are stored.
enum Storage {
    /// Indices of 1, 2, 4 or 8 bits, in rows of whole 32-bit words.
    Indices { bits: u8, palette: Palette },
    /// Run-length coded indices.
    Runs { four_bits: bool, palette: Palette },
    /// Numbers of 2, 3 or 4 bytes of which red, green and blue are parts, in rows of whole words.
    Channels { bytes: usize, channels: [Channel; 3] },
}

/// Whether a file may be a DIB: it begins with the size of one of the known headers.
pub(super) fn is_dib(bytes: &[u8]) -> bool {
    matches!(read_u32(bytes, 0), Some(12 | 40 | 52 | 56 | 64 | 108 | 124))
}

impl<'a> Bmp<'a> {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// If the header is damaged, or of a kind that is not decoded.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        if bytes.starts_with(b"BM") {
            let start = read_u32(bytes, 10).context(CUT_SHORT)?;
            return Self::with_header_at(bytes, 14, start as usize);
        }
        Self::with_header_at(bytes, 0, 0)
    }

    /// Reads the header, which is at `header` in the file. The pixels are at `start` or, where that is 0, behind the
    /// header and its palette or masks.
    ///
    /// # Errors
    /// If the header is damaged, or of a kind that is not decoded.
    pub(super) fn with_header_at(file: &'a [u8], header: usize, start: usize) -> Result<Self, Reason> {
        let fields = file.get(header..).context(CUT_SHORT)?;
        let half = |at| read_u16(fields, at).context(CUT_SHORT);
        let word = |at| read_u32(fields, at).context(CUT_SHORT);
        let header_size = word(0)? as usize;
        let (width, height, bits, compression, colours);
        match header_size {
            // OS/2 1.x
            12 => {
                (width, height) = (half(4)?.into(), i32::from(half(6)?));
                (bits, compression, colours) = (half(10)?, 0, 0);
            }
            40 | 52 | 56 | 64 | 108 | 124 => {
                (width, height) = (word(4)?, word(8)? as i32);
                (bits, compression, colours) = (half(14)?, word(16)?, word(32)?);
            }
            _ => bail!("a header of {header_size} bytes, of which nothing is known"),
        }
        let mut behind = header + header_size;
        let storage = match (compression, bits) {
            (0 | 3, 16 | 24 | 32) => {
                let mut masks = [0; 3];
                if compression == 3 {
                    masks = [word(40)?, word(44)?, word(48)?];
                    // The oldest header has no room for them: they follow it.
                    behind += if header_size == 40 { 12 } else { 0 };
                }
                if masks == [0; 3] {
                    masks = if bits == 16 { [0x7c00, 0x3e0, 0x1f] } else { [0xff_0000, 0xff00, 0xff] };
                }
                Storage::Channels { bytes: usize::from(bits / 8), channels: masks.map(Channel::new) }
            }
            (0, 1 | 2 | 4 | 8) | (1 | 2, 4 | 8) => {
                let count = if colours == 0 { 1 << bits } else { colours as usize };
                ensure!(count <= 256, "a palette of {count} colours");
                let size = if header_size == 12 { 3 } else { 4 };
                let table = file.get(behind..).context(CUT_SHORT)?.chunks_exact(size);
                let colours: Vec<_> = table.take(count).map(|entry| [entry[2], entry[1], entry[0]]).collect();
                let palette = Palette::new(&colours);
                behind += size * count;
                match compression {
                    0 => Storage::Indices { bits: bits as u8, palette },
                    _ => Storage::Runs { four_bits: compression == 2, palette },
                }
            }
            (4, 24) if header_size == 64 => bail!("a run-length coded BMP of 24 bits per pixel is not decoded"),
            (3, 1) if header_size == 64 => bail!("a BMP that is coded like a fax is not decoded"),
            (4, _) => bail!("a BMP that holds a JPEG is not decoded"),
            (5, _) => bail!("a BMP that holds a PNG is not decoded"),
            _ => bail!("a BMP of {bits} bits per pixel and compression {compression} is not decoded"),
        };
        // As in Pillow: some programs forget the palette when they compute where the pixels begin.
        let forgotten = start == header + header_size && !matches!(storage, Storage::Channels { .. });
        let start = if start == 0 || forgotten { behind } else { start };
        ensure!(width > 0 && height != 0, "it has no pixels ({width}x{height})");
        Ok(Self { width, height: height.unsigned_abs(), top_down: height < 0, file, start, storage })
    }

    /// The picture of an icon or cursor. Its header counts the rows of a mask too, which follow and are as many.
    ///
    /// # Errors
    /// If the header counts less than two rows.
    pub(super) fn without_mask(self) -> Result<Self, Reason> {
        ensure!(self.height > 1, "it has no pixels beside its mask");
        Ok(Self { height: self.height / 2, ..self })
    }

    /// Whether Pillow decodes it to a grey picture.
    pub(super) fn is_grey(&self) -> bool {
        match &self.storage {
            Storage::Indices { palette, .. } | Storage::Runs { palette, .. } => palette.grey,
            Storage::Channels { .. } => false,
        }
    }

    /// The rows as they are stored, from the top of the picture to its bottom, without padding. Each has `bits` bits per
    /// pixel and is padded to whole 32-bit words; the padding of the last one in the file may be missing.
    fn rows(&self, bits: u8) -> Result<impl Iterator<Item = &'a [u8]>, Reason> {
        let bits = u64::from(self.width) * u64::from(bits);
        let (length, padded) = (bits.div_ceil(8), bits.div_ceil(32) * 4);
        let file = self.file.get(self.start..).context(CUT_SHORT)?;
        let before_last = padded.checked_mul(u64::from(self.height) - 1).context(CUT_SHORT)?;
        ensure!(before_last.checked_add(length).is_some_and(|length| length <= file.len() as u64), "{CUT_SHORT}");
        let (length, padded, height, top_down) = (length as usize, padded as usize, self.height, self.top_down);
        Ok((0..height).map(move |y| {
            let stored = if top_down { y } else { height - 1 - y };
            &file[stored as usize * padded..][..length]
        }))
    }

    /// Decodes run lengths to one index per pixel, in the order in which rows are stored. As in Pillow's
    /// `BmpRleDecoder`, pixels that are jumped over have index 0, and runs end with their row.
    fn runs(&self, four_bits: bool) -> Result<Vec<u8>, Reason> {
        let width = self.width as usize;
        let pixels = width.checked_mul(self.height as usize).context(CUT_SHORT)?;
        let mut indices = Vec::new();
        // The last run may reach beyond the last pixel.
        indices.try_reserve_exact(pixels.saturating_add(255))?;
        let mut column = 0;
        let mut at = self.start;
        while indices.len() < pixels {
            let Some(&[length, value]) = self.file.get(at..).and_then(<[u8]>::first_chunk) else { break };
            at += 2;
            let left = pixels - indices.len();
            match (length, value) {
                // The end of a row, of the picture, and a jump to the right and over rows.
                (0, 0) => {
                    indices.resize(indices.len().next_multiple_of(width), 0);
                    column = 0;
                }
                (0, 1) => break,
                (0, 2) => {
                    let Some(&[right, rows]) = self.file.get(at..).and_then(<[u8]>::first_chunk) else { break };
                    at += 2;
                    let jump = (usize::from(rows) * width).saturating_add(right.into()).min(left);
                    indices.resize(indices.len() + jump, 0);
                    column = indices.len() % width;
                }
                // That many pixels as they are.
                (0, count) => {
                    let count = left.min(count.into());
                    let bytes = if four_bits { count.div_ceil(2) } else { count };
                    let Some(stored) = self.file.get(at..).and_then(|rest| rest.get(..bytes)) else { break };
                    if four_bits {
                        indices.extend(stored.iter().flat_map(|pair| [pair >> 4, pair & 15]).take(count));
                    } else {
                        indices.extend(stored);
                    }
                    column += usize::from(value);
                    // They fill up 16 bits, which Pillow counts from the beginning of the file.
                    at = (at + bytes).next_multiple_of(2);
                }
                // A run of one index, or of two in turn.
                (count, _) => {
                    let pair = if four_bits { [value >> 4, value & 15] } else { [value; 2] };
                    let count = usize::from(count).min(width.saturating_sub(column));
                    indices.extend(pair.into_iter().cycle().take(count));
                    column += count;
                }
            }
        }
        ensure!(indices.len() >= pixels, "{CUT_SHORT}");
        Ok(indices)
    }
}

impl Decoder for Bmp<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn memory(&self) -> u64 {
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        3 * width + if matches!(self.storage, Storage::Runs { .. }) { width * height + 255 } else { 0 }
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let width = self.width as usize;
        let mut pixels = Vec::with_capacity(3 * width);
        match &self.storage {
            Storage::Indices { bits, palette } => {
                let (bits, largest) = (*bits, 0xff >> (8 - bits));
                for row in self.rows(bits)? {
                    let indices =
                        row.iter().flat_map(|byte| (0..8 / bits).rev().map(move |n| byte >> (n * bits) & largest));
                    pixels.clear();
                    pixels.extend(indices.take(width).flat_map(|index| palette.colours[usize::from(index)]));
                    put(&pixels);
                }
            }
            Storage::Runs { four_bits, palette } => {
                let indices = self.runs(*four_bits)?;
                for y in 0..self.height as usize {
                    let stored = if self.top_down { y } else { self.height as usize - 1 - y };
                    let row = &indices[stored * width..][..width];
                    pixels.clear();
                    pixels.extend(row.iter().flat_map(|&index| palette.colours[usize::from(index)]));
                    put(&pixels);
                }
            }
            Storage::Channels { bytes, channels } => {
                for row in self.rows(8 * *bytes as u8)? {
                    pixels.clear();
                    for stored in row.chunks_exact(*bytes) {
                        let mut number = [0; 4];
                        number[..*bytes].copy_from_slice(stored);
                        let number = u32::from_le_bytes(number);
                        pixels.extend(channels.iter().map(|channel| channel.value(number)));
                    }
                    put(&pixels);
                }
            }
        }
        Ok(Vec::new())
    }
}

/// The colours of indices.
struct Palette {
    /// RGB.
    colours: Box<[[u8; 3]; 256]>,
    /// Pillow decodes to a grey picture.
    grey: bool,
}

impl Palette {
    /// Where the colours are the shades of grey in order, Pillow decodes to a grey picture, in which indices beyond the
    /// end of the palette are shades too. In any other palette such indices are black.
    fn new(colours: &[[u8; 3]]) -> Self {
        let shades = std::array::from_fn(|index| [index as u8; 3]);
        if shades.starts_with(colours) {
            return Self { colours: Box::new(shades), grey: true };
        }
        let all = std::array::from_fn(|index| colours.get(index).copied().unwrap_or_default());
        Self { colours: Box::new(all), grey: colours == [[0; 3], [255; 3]] }
    }
}

/// Which bits of a pixel's number are its red, green or blue.
struct Channel {
    mask: u32,
    shift: u32,
    largest: u32,
}

impl Channel {
    fn new(mask: u32) -> Self {
        let shift = mask.trailing_zeros() & 31;
        Self { mask, shift, largest: mask >> shift }
    }

    /// The channel in 8 bits, rounded down as in Pillow's `Unpack.c`; 0 if the mask is 0.
    fn value(&self, number: u32) -> u8 {
        let value = (number & self.mask) >> self.shift;
        match self.largest {
            255 => value as u8,
            largest => (u64::from(value) * 255).checked_div(largest.into()).unwrap_or(0) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_number_become_8_bits() {
        let red = Channel::new(0x7c00);
        // 3 * 255 / 31 is 24.7.
        assert_eq!([0, 3, 31].map(|value| red.value(value << 10 | 0x3ff)), [0, 24, 255]);
        assert_eq!(Channel::new(0xff00).value(0x1234), 0x12);
        assert_eq!(Channel::new(u32::MAX).value(u32::MAX), 255);
        assert_eq!(Channel::new(0).value(u32::MAX), 0);
    }
}
