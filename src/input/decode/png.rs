//! PNG by the crate `png`, a row at a time.

use std::io::{Cursor, Read};

use flate2::read::ZlibDecoder;
use png::{Reader, Transformations};

use super::colour::to_rgb;
use super::{Decoder, orientation};
use crate::error::{Context, Reason, Result, ensure};

/// What a PNG file begins with.
pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A PNG file; of an animated one, the picture that is shown where animations are not known.
pub(super) struct Png<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    bytes: &'a [u8],
}

impl<'a> Png<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it is damaged.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: usize::MAX });
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        // Of 16 bits the upper 8; palettes and fewer bits expanded.
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let reader = decoder.read_info()?;
        // The crate panics on any other, in version 0.18.1. In pictures that have their own colours nobody reads it.
        let palette = reader.info().palette.as_deref().unwrap_or_default().len();
        ensure!(
            reader.info().color_type != png::ColorType::Indexed || (palette.is_multiple_of(3) && palette <= 768),
            "its palette of {palette} bytes is not one of whole colours"
        );
        Ok(Self { reader, bytes })
    }
}

impl Decoder for Png<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.reader.info().size()
    }

    /// Programs store it in one of three places: the chunk for EXIF, a text with ImageMagick's raw profile, and XMP.
    /// Such chunks may lie behind the pixels too. Damage in them is ignored, and so are texts after the first few: a
    /// kilobyte of each may be a megabyte when it is decompressed.
    fn orientation(&self) -> u8 {
        const MOST_TEXTS: usize = 16;
        let (mut exif, mut profile, mut xmp) = (None, None, None);
        let mut texts = 0;
        let mut rest = self.bytes.get(SIGNATURE.len()..).unwrap_or_default();
        while let Some((kind, data, after)) = chunk(rest) {
            let is_metadata = data.starts_with(PROFILE) || data.starts_with(XMP);
            texts += usize::from(is_metadata);
            match kind {
                b"eXIf" => exif = Some(data),
                b"tEXt" | b"zTXt" if texts <= MOST_TEXTS => profile = raw_profile(kind, data).or(profile),
                b"iTXt" if texts <= MOST_TEXTS => xmp = xmp_text(data).or(xmp),
                _ => {}
            }
            rest = after;
        }
        orientation::of(exif.or(profile.as_deref()), xmp.as_deref())
    }

    fn memory(&self) -> u64 {
        let (width, height) = self.reader.info().size();
        // Some rows of at most 64 bits a pixel, and all of them where they come in the passes of an interlaced
        // picture.
        let rows = if self.reader.info().interlaced { u64::from(height) } else { 0 };
        u64::from(width) * (64 + 3 * rows) + (1 << 18)
    }

    fn read(mut self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let (width, height) = self.reader.info().size();
        let channels = self.reader.output_color_type().0.samples();
        let line = 3 * width as usize;
        let mut whole = if self.reader.info().interlaced { vec![0; line * height as usize] } else { Vec::new() };
        let mut rgb = Vec::with_capacity(line);
        while let Some(row) = self.reader.next_interlaced_row()? {
            to_rgb(row.data(), channels, &mut rgb);
            match row.interlace() {
                png::InterlaceInfo::Null(_) => put(&rgb),
                png::InterlaceInfo::Adam7(place) => png::expand_interlaced_row(&mut whole, line, &rgb, place, 24),
            }
        }
        put(&whole);
        Ok(Vec::new())
    }
}

/// What texts begin with that hold EXIF data, and an XMP packet.
const PROFILE: &[u8] = b"Raw profile type exif\0";
const XMP: &[u8] = b"XML:com.adobe.xmp\0";

/// A chunk's type and data, and what follows it.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let (data, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((kind, data, rest.get(4..)?))
}

/// EXIF data as ImageMagick writes them into a text: three lines, of which the last is a length, and then hexadecimal
/// digits.
fn raw_profile(kind: &[u8; 4], data: &[u8]) -> Option<Vec<u8>> {
    let text = data.strip_prefix(PROFILE)?;
    let text = if kind == b"zTXt" { inflate(text.strip_prefix(b"\0")?).ok()? } else { text.to_vec() };
    let digits: Vec<u8> =
        text.splitn(4, |byte| *byte == b'\n').nth(3)?.iter().copied().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    digits.as_chunks::<2>().0.iter().map(|[high, low]| Some(16 * value(*high)? + value(*low)?)).collect()
}

/// The text of an XMP packet.
fn xmp_text(data: &[u8]) -> Option<Vec<u8>> {
    let rest = data.strip_prefix(XMP)?;
    let (&[compressed, _], rest) = rest.split_first_chunk::<2>()?;
    // Behind the language and the translated keyword, each with a zero at its end.
    let text = rest.splitn(3, |byte| *byte == 0).nth(2)?;
    if compressed == 0 { Some(text.to_vec()) } else { inflate(text).ok() }
}

/// Decompresses a text, at most a megabyte of it: EXIF and XMP data with an orientation are shorter.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut text = Vec::new();
    ZlibDecoder::new(bytes).take(1 << 20).read_to_end(&mut text).context("a damaged text")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_palette_that_ends_in_a_colour_is_refused() {
        let file = include_bytes!("../../../tests/fixtures/found/png/half-a-colour-in-the-palette.png");
        assert!(Png::open(file).err().unwrap().to_string().contains("palette of 149 bytes"));
        // Nobody reads that of a picture with colours of its own. It comes behind the header, of 33 bytes.
        let (start, rest) = include_bytes!("../../../tests/fixtures/decode/rgb.png").split_at(33);
        let palette = b"PLTE\x01\x02\x03\x04";
        let chunk = [&4u32.to_be_bytes()[..], palette, &crc32fast::hash(palette).to_be_bytes()].concat();
        assert!(Png::open(&[start, &chunk, rest].concat()).is_ok());
    }

    #[test]
    fn few_texts_are_read_for_the_orientation() {
        let file = include_bytes!("../../../tests/fixtures/decode/rgb.png");
        let chunk = |text: &[u8]| {
            let checked = [b"iTXt", text].concat();
            [&(text.len() as u32).to_be_bytes()[..], &checked, &crc32fast::hash(&checked).to_be_bytes()].concat()
        };
        let xmp = |content: &str| [XMP, b"\0\0\0\0", content.as_bytes()].concat();
        let of = |before: usize| {
            let others = chunk(&xmp("nothing")).repeat(before);
            let with = [&file[..], &others, &chunk(&xmp("tiff:Orientation=\"6\""))].concat();
            Png::open(&with).unwrap().orientation()
        };
        assert_eq!([0, 15, 16, 5000].map(of), [6, 6, 1, 1]);
    }
}
