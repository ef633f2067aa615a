//! DirectDraw surfaces (textures), as Pillow reads them (`DdsImagePlugin.py`): the first and largest picture
//! of a file. Blocks of BC1 to BC5 are decoded here, as in Pillow's `BcnDecode.c`, since every decoder mixes
//! their colours with a rounding of its own. For BC6H and BC7 the result is exactly defined, and a crate decodes
//! them. (Pillow leaves out a rounding of BC6H, and the signs of its signed variant.)

use super::little_endian::read_u32;
use super::{CUT_SHORT, Decoder};
use crate::error::{Context, Reason, Result, bail, ensure};

/// A DDS file.
pub(super) struct Dds<'a> {
    width: u32,
    height: u32,
    storage: Storage<'a>,
    /// The file from the first pixel on.
    data: &'a [u8],
}

/// How pixels are stored.
enum Storage<'a> {
    /// A number of so many bytes per pixel, with the masks of its red, green and blue.
    Masks { bytes: usize, masks: [u32; 3] },
    /// So many bytes per pixel, of which the first is grey.
    Grey { bytes: usize },
    /// 4 bytes per pixel.
    Rgba,
    /// An index per pixel of these colours, RGB with alpha.
    Palette(&'a [[u8; 4]]),
    /// Blocks of 4 x 4 pixels.
    Blocks(BlockCompression),
}

/// How the pixels of a block are stored: the kinds that Direct3D numbers.
#[derive(Clone, Copy)]
enum BlockCompression {
    Bc1,
    /// BC2 and BC3, which only differ in alpha.
    Bc2,
    Bc4,
    Bc5 {
        signed: bool,
    },
    Bc6h {
        signed: bool,
    },
    Bc7,
}

impl<'a> Dds<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If the header is damaged, or of a kind that is not decoded.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        ensure!(bytes.starts_with(b"DDS "), "not a DDS file");
        let word = |at| read_u32(bytes, at).context(CUT_SHORT);
        let header_size = word(4)?;
        ensure!(header_size == 124, "a header of {header_size} bytes instead of 124");
        let mut data = bytes.get(128..).context(CUT_SHORT)?;
        let (flags, code, bits) = (word(80)?, word(84)?.to_le_bytes(), word(88)?);
        const ALPHA: u32 = 0x1;
        const FOUR_CHARACTER_CODE: u32 = 0x4;
        const PALETTE: u32 = 0x20;
        const RGB: u32 = 0x40;
        const LUMINANCE: u32 = 0x20000;
        let storage = if flags & RGB != 0 {
            ensure!(matches!(bits, 8..=32), "a DDS of {bits} bits per pixel is not decoded");
            Storage::Masks { bytes: bits as usize / 8, masks: [word(92)?, word(96)?, word(100)?] }
        } else if flags & LUMINANCE != 0 {
            ensure!(
                bits == 8 || (bits == 16 && flags & ALPHA != 0),
                "a grey DDS of {bits} bits per pixel is not decoded"
            );
            Storage::Grey { bytes: bits as usize / 8 }
        } else if flags & PALETTE != 0 {
            Storage::Palette(data.split_off(..1024).context(CUT_SHORT)?.as_chunks().0)
        } else if flags & FOUR_CHARACTER_CODE != 0 {
            match &code {
                b"DXT1" => Storage::Blocks(BlockCompression::Bc1),
                b"DXT3" | b"DXT5" => Storage::Blocks(BlockCompression::Bc2),
                b"BC4U" | b"ATI1" => Storage::Blocks(BlockCompression::Bc4),
                b"BC5U" | b"ATI2" => Storage::Blocks(BlockCompression::Bc5 { signed: false }),
                b"BC5S" => Storage::Blocks(BlockCompression::Bc5 { signed: true }),
                b"DX10" => {
                    data = data.get(20..).context(CUT_SHORT)?;
                    by_dxgi_format(word(128)?)?
                }
                _ => bail!("a DDS of the kind {} is not decoded", code.escape_ascii()),
            }
        } else {
            bail!("a DDS whose pixels are of no known kind (flags {flags:#x})");
        };
        let (height, width) = (word(12)?, word(16)?);
        ensure!(width > 0 && height > 0, "it has no pixels ({width}x{height})");
        Ok(Self { width, height, storage, data })
    }
}

/// How pixels are stored by a number of Direct3D 10's `DXGI_FORMAT`.
fn by_dxgi_format(format: u32) -> Result<Storage<'static>, Reason> {
    Ok(Storage::Blocks(match format {
        27..=29 => return Ok(Storage::Rgba),
        70..=72 => BlockCompression::Bc1,
        73..=78 => BlockCompression::Bc2,
        79 | 80 => BlockCompression::Bc4,
        82 | 83 => BlockCompression::Bc5 { signed: false },
        84 => BlockCompression::Bc5 { signed: true },
        95 => BlockCompression::Bc6h { signed: false },
        96 => BlockCompression::Bc6h { signed: true },
        97..=99 => BlockCompression::Bc7,
        _ => bail!("a DDS of the kind that DXGI numbers {format} is not decoded"),
    }))
}

impl Decoder for Dds<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn memory(&self) -> u64 {
        let rows = if matches!(self.storage, Storage::Blocks(_)) { 4 } else { 1 };
        3 * rows * u64::from(self.width)
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        match self.storage {
            Storage::Masks { bytes, masks } => self.pixels(bytes, put, |pixel| {
                let mut number = [0; 4];
                number[..bytes].copy_from_slice(pixel);
                masks.map(|mask| masked(u32::from_le_bytes(number), mask))
            })?,
            Storage::Grey { bytes } => self.pixels(bytes, put, |pixel| [pixel[0]; 3])?,
            Storage::Rgba => self.pixels(4, put, |pixel| [pixel[0], pixel[1], pixel[2]])?,
            Storage::Palette(colours) => self.pixels(1, put, |pixel| {
                let [red, green, blue, _] = colours[usize::from(pixel[0])];
                [red, green, blue]
            })?,
            Storage::Blocks(kind) => self.blocks(kind, put)?,
        }
        Ok(Vec::new())
    }
}

impl Dds<'_> {
    /// Puts the rows of a picture whose pixels are stored one after the other, in `bytes` each.
    fn pixels(
        &self,
        bytes: usize,
        put: &mut dyn FnMut(&[u8]),
        colour: impl Fn(&[u8]) -> [u8; 3],
    ) -> Result<(), Reason> {
        let length = u64::from(self.width) * u64::from(self.height);
        ensure!(length.saturating_mul(bytes as u64) <= self.data.len() as u64, "{CUT_SHORT}");
        let rows = self.data.chunks_exact(bytes * self.width as usize).take(self.height as usize);
        let mut pixels = Vec::with_capacity(3 * self.width as usize);
        for row in rows {
            pixels.clear();
            pixels.extend(row.chunks_exact(bytes).flat_map(&colour));
            put(&pixels);
        }
        Ok(())
    }

    /// Puts the rows of a picture that is stored in blocks of 4 x 4 pixels.
    fn blocks(&self, kind: BlockCompression, put: &mut dyn FnMut(&[u8])) -> Result<(), Reason> {
        let size = if matches!(kind, BlockCompression::Bc1 | BlockCompression::Bc4) { 8 } else { 16 };
        let across = self.width.div_ceil(4) as usize;
        let length = (across * size) as u64 * u64::from(self.height.div_ceil(4));
        ensure!(length <= self.data.len() as u64, "{CUT_SHORT}");
        let width = self.width as usize;
        let mut strip = vec![0; 3 * 4 * width];
        for (y, row) in (0..self.height).step_by(4).zip(self.data.chunks_exact(across * size)) {
            for (x, block) in (0..width).step_by(4).zip(row.chunks_exact(size)) {
                let pixels = decode_block(kind, block);
                let inside = 4.min(width - x);
                for (line, pixels) in strip.chunks_exact_mut(3 * width).zip(pixels.as_chunks::<4>().0) {
                    line[3 * x..][..3 * inside].copy_from_slice(pixels[..inside].as_flattened());
                }
            }
            let rows = 4.min(self.height - y) as usize;
            put(&strip[..3 * width * rows]);
        }
        Ok(())
    }
}

/// The bits of a number that `mask` selects, scaled to 8 bits as Pillow's `DdsRgbDecoder` does.
fn masked(number: u32, mask: u32) -> u8 {
    let shift = mask.trailing_zeros() & 31;
    match mask >> shift {
        0 => 0,
        largest => (f64::from((number & mask) >> shift) / f64::from(largest) * 255.0) as u8,
    }
}

/// The 16 pixels of a block as RGB, row by row.
fn decode_block(kind: BlockCompression, block: &[u8]) -> [[u8; 3]; 16] {
    match kind {
        BlockCompression::Bc1 => colours(block, false),
        BlockCompression::Bc2 => colours(&block[8..], true),
        BlockCompression::Bc4 => levels(block, 0).map(|grey| [grey; 3]),
        BlockCompression::Bc5 { signed } => {
            let zero = if signed { 128 } else { 0 };
            let (red, green) = (levels(block, zero), levels(&block[8..], zero));
            std::array::from_fn(|n| [red[n], green[n], zero])
        }
        BlockCompression::Bc6h { signed } => {
            let mut halves = [0; 48];
            bcdec_rs::bc6h_half(block, &mut halves, 12, signed);
            let (pixels, _) = halves.as_chunks::<3>();
            std::array::from_fn(|n| pixels[n].map(half_to_8_bits))
        }
        BlockCompression::Bc7 => {
            let mut rgba = [0; 64];
            bcdec_rs::bc7(block, &mut rgba, 16);
            let (pixels, _) = rgba.as_chunks::<4>();
            std::array::from_fn(|n| [pixels[n][0], pixels[n][1], pixels[n][2]])
        }
    }
}

/// Decodes two colours of 5, 6 and 5 bits, and 2 bits per pixel that choose one of four: these two, and two between
/// them. Unless `four` is set, and where the first colour is not the greater number, the last two are one colour
/// between them and black.
fn colours(block: &[u8], four: bool) -> [[u8; 3]; 16] {
    let ends = [0, 2].map(|at| u16::from_le_bytes([block[at], block[at + 1]]));
    let [first, second] = ends.map(|colour| {
        let [red, green, blue] = [colour >> 11 << 3, (colour >> 5 & 63) << 2, (colour & 31) << 3];
        [red | red >> 5, green | green >> 6, blue | blue >> 5]
    });
    let mix = |a: u16, b: u16| std::array::from_fn(|n| (a * first[n] + b * second[n]) / (a + b));
    let between = if four || ends[0] > ends[1] { [mix(2, 1), mix(1, 2)] } else { [mix(1, 1), [0; 3]] };
    let colours = [first, second, between[0], between[1]].map(|colour| colour.map(|value| value as u8));
    std::array::from_fn(|n| colours[usize::from(block[4 + n / 4] >> (2 * (n % 4)) & 3)])
}

/// Decodes two levels, and 3 bits per pixel that choose one of eight: these two, and others between them. `zero` is
/// the level 0: 128 where levels are signed, else 0.
fn levels(block: &[u8], zero: u8) -> [u8; 16] {
    let [first, second] = [block[0], block[1]].map(|level| level.wrapping_add(zero));
    let mix =
        |step: usize, steps: usize| (((steps - step) * usize::from(first) + step * usize::from(second)) / steps) as u8;
    let level = |choice: u64| match choice as usize {
        0 => first,
        1 => second,
        choice if first > second => mix(choice - 1, 7),
        6 => 0,
        7 => 255,
        choice => mix(choice - 1, 5),
    };
    let choices = block[2..8].iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
    std::array::from_fn(|n| level(choices >> (3 * n) & 7))
}

/// Converts a half-precision number: 0 to 1 become 0 to 255, and others are clipped.
fn half_to_8_bits(half: u16) -> u8 {
    if half >= 0x8000 {
        return 0;
    }
    // The exponent's bias is 15 in half and 127 in single precision.
    let value = f32::from_bits(u32::from(half) << 13) * 2f32.powi(127 - 15);
    (value.min(1.0) * 255.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_clipped() {
        // 0.5, 1, 65504, -1, and the smallest number above 0.
        assert_eq!([0x3800, 0x3c00, 0x7bff, 0xbc00, 1].map(half_to_8_bits), [127, 255, 255, 0, 0]);
    }
}
