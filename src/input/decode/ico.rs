//! Icons and cursors of Windows. Of the pictures that a file holds, the one that Pillow chooses is decoded
//! (`IcoImagePlugin.py`, `CurImagePlugin.py`).

use super::bmp::Bmp;
use super::colour::multiply;
use super::little_endian::read_u16;
use super::png::{Png, SIGNATURE};
use super::{CUT_SHORT, Decoder};
use crate::error::{Context, Reason, Result, bail, ensure};

/// An icon or cursor file.
pub(super) struct Ico<'a>(Box<dyn Decoder + 'a>);

impl<'a> Ico<'a> {
    /// Reads the directory, and the header of the picture that it leads to.
    ///
    /// # Errors
    /// If the directory is damaged or empty, or the picture's header is damaged or of a kind that is not
    /// decoded.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let entries = usize::from(read_u16(bytes, 4).context(CUT_SHORT)?);
        let directory = bytes.get(6..6 + 16 * entries).context(CUT_SHORT)?.as_chunks().0;
        match bytes {
            [0, 0, 1, 0, ..] => icon(bytes, directory),
            [0, 0, 2, 0, ..] => cursor(bytes, directory),
            _ => bail!("neither an ICO nor a CUR file"),
        }
        .map(Self)
    }
}

/// Chooses the largest picture, and of several the one with the fewest colours: the first as Pillow sorts them.
fn icon<'a>(bytes: &'a [u8], directory: &[[u8; 16]]) -> Result<Box<dyn Decoder + 'a>, Reason> {
    // 0 stands for 256.
    let side = |length: u8| u32::from(length.wrapping_sub(1)) + 1;
    let entry = directory.iter().min_by_key(|entry| {
        let bits = match (u16::from_le_bytes([entry[6], entry[7]]), entry[2]) {
            (0, 0 | 1) => 256,
            (0, colours) => u16::from(colours).next_power_of_two().ilog2() as u16,
            (bits, _) => bits,
        };
        (std::cmp::Reverse(side(entry[0]) * side(entry[1])), bits)
    });
    let entry = entry.context("it holds no picture")?;
    let (length, start) = position(entry);
    if let Some(png) = png_at(bytes, start) {
        return png;
    }
    let bmp = Bmp::with_header_at(bytes, start, 0)?.without_mask()?;
    // The mask is not used, but a file without it is cut short. Beside 32 bits it need not be there.
    if entry[6..8] != [32, 0] {
        let (width, height) = bmp.dimensions();
        let (width, above_last) = (u64::from(width), u64::from(height) - 1);
        let row = width.div_ceil(32) * 4;
        let mask = (start as u64 + length as u64).checked_sub(row * (above_last + 1));
        let last = mask.map(|mask| mask + row * above_last + width.div_ceil(8));
        ensure!(last.is_some_and(|last| last <= bytes.len() as u64), "{CUT_SHORT}");
    }
    Ok(Box::new(bmp))
}

/// Chooses the first picture, or a later one that is both wider and higher.
fn cursor<'a>(bytes: &'a [u8], directory: &[[u8; 16]]) -> Result<Box<dyn Decoder + 'a>, Reason> {
    let larger = |best: &'_ [u8; 16], entry: &'_ [u8; 16]| entry[0] > best[0] && entry[1] > best[1];
    let entry = directory.iter().reduce(|best, entry| if larger(best, entry) { entry } else { best });
    let (_, start) = position(entry.context("it holds no picture")?);
    if let Some(png) = png_at(bytes, start) {
        return png;
    }
    let bmp = Bmp::with_header_at(bytes, start, 0)?;
    Ok(if bmp.is_grey() { Box::new(GreyCursor::new(bmp)?) } else { Box::new(bmp.without_mask()?) })
}

/// Length in bytes and place in the file of an entry's picture.
fn position(&[.., a, b, c, d, e, f, g, h]: &[u8; 16]) -> (usize, usize) {
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize)
}

/// The picture that begins at `start`, if it is a PNG. (Pillow reads PNG in icons, and refuses it in cursors.)
fn png_at<'a>(bytes: &'a [u8], start: usize) -> Option<Result<Box<dyn Decoder + 'a>, Reason>> {
    let png = bytes.get(start..).filter(|rest| rest.starts_with(SIGNATURE))?;
    Some(Png::open(png).map(|png| Box::new(png) as _))
}

impl Decoder for Ico<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    fn decoded(&self) -> (u32, u32) {
        self.0.decoded()
    }

    fn memory(&self) -> u64 {
        self.0.memory()
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        self.0.read(put)
    }
}

/// A cursor that is stored as two grey pictures, one above the other. The result is the lower one where the upper one
/// is black, and black where that is white (Pillow's `CurImageFile.load_end`).
struct GreyCursor<'a>(Bmp<'a>);

impl<'a> GreyCursor<'a> {
    fn new(pair: Bmp<'a>) -> Result<Self, Reason> {
        ensure!(pair.dimensions().1.is_multiple_of(2), "half a row of pixels");
        Ok(Self(pair))
    }
}

impl Decoder for GreyCursor<'_> {
    fn dimensions(&self) -> (u32, u32) {
        let (width, height) = self.0.dimensions();
        (width, height / 2)
    }

    fn decoded(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    fn memory(&self) -> u64 {
        let (width, height) = self.0.dimensions();
        self.0.memory() + (3 + u64::from(height)) * u64::from(width)
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let (width, height) = (self.0.dimensions().0 as usize, self.0.dimensions().1 as usize);
        let mut values = Vec::with_capacity(width * height);
        Box::new(self.0).read(&mut |pixels| values.extend(pixels.iter().step_by(3)))?;
        let (upper, lower) = values.split_at(width * height / 2);
        for (upper, lower) in upper.chunks_exact(width).zip(lower.chunks_exact(width)) {
            let row = upper.iter().zip(lower).flat_map(|(&mask, &value)| [multiply(value, 255 - mask); 3]);
            put(&row.collect::<Vec<_>>());
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::input::decode::{Options, decode};

    #[test]
    fn both_pictures_of_a_cursor_count() {
        let bytes = include_bytes!("../../../tests/fixtures/found/ico/two-pictures-in-a-cursor.cur");
        let options = Options { max_pixels: 90_000_000, ..Options::default() };
        let error = decode(bytes, "a.cur".as_ref(), options).unwrap_err();
        assert!(matches!(error, Error::ImageTooLarge { .. }), "{error}");
    }
}
