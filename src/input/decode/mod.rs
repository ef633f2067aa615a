//! From the bytes of an image file to pixels: 8-bit RGB, as Pillow's `Image.open(f).convert("RGB")` gives
//! them, row by row.
//!
//! In come the bytes of a file, which nobody has checked; out go rows of pixels, and a warning where the file is
//! damaged but all of its pixels could be decoded. This folder may use nothing else of the program but `error` and `panics`.
//!
//! Alpha is dropped, grey and palettes are expanded to RGB, and of 16 bits the upper 8 are kept. (Pillow does so
//! with 16-bit colour; in 16-bit grey it turns every value above 255 into white, which nobody wants.)
//!
//! Each format has a file, with a `Decoder` that reads the header first and the rows later:
//!
//! ```text
//! format          which format a file has
//! jpeg            JPEG, by libjpeg
//! libjpeg         libjpeg-turbo's C code
//! png             the crate png
//! gif, bmp, dds, ico, tiff/
//!                 own code, where the crates refuse files that Pillow reads, or decode them to other pixels
//! other           WebP, TGA, QOI and others, by the crate image
//! webp            how much a WebP file makes the crate take; riff, its chunks
//! exr             OpenEXR, by the crate exr
//! orientation     turns a picture upright
//! memory          bounds what all threads together hold while they decode
//! colour          conversions to RGB
//! little_endian   numbers in headers
//! ```

mod bmp;
mod colour;
mod dds;
mod exr;
mod format;
mod gif;
mod ico;
mod jpeg;
mod libjpeg;
mod little_endian;
mod memory;
pub(crate) mod orientation;
mod other;
mod png;
mod riff;
mod tiff;
mod webp;

use std::ops::Range;
use std::path::Path;

use image::RgbImage;

use crate::error::{Context, Error, Reason, Result, ensure};
use crate::panics;
use format::Format;
use orientation::Turned;

/// The library that decodes JPEG files.
pub const JPEG_DECODER: &str = "libjpeg-turbo";

/// The default limit of an image's number of pixels: the number from which Pillow refuses an image as a
/// decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// What is wrong with a file that ends too early.
const CUT_SHORT: &str = "it is cut short";

/// How image files are decoded, and which of them are refused.
///
/// ```
/// use qlnet::input::Options;
///
/// let strict = Options { strict: true, ..Options::default() };
/// assert!(strict.exif && strict.max_pixels == 178_956_970);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Turns the image upright, by what the camera noted in its EXIF or XMP data. By default yes. (Pillow, and
    /// so timm, does not do so unless it is asked to.) TIFF files are always turned, as Pillow turns them.
    pub exif: bool,
    /// Refuses a damaged file even where all of its pixels could be decoded. By default no: such a file gives
    /// its pixels and a warning.
    pub strict: bool,
    /// Refuses an image of more pixels than this, before they are decoded. By default [`MAX_PIXELS`].
    pub max_pixels: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { exif: true, strict: false, max_pixels: MAX_PIXELS }
    }
}

/// Decodes one file. It has read the header; the pixels are still in the file.
trait Decoder {
    /// Width and height of the picture as it is stored, in pixels.
    fn dimensions(&self) -> (u32, u32);

    /// Width and height of what is decoded for it, where the picture is a part of that.
    fn decoded(&self) -> (u32, u32) {
        self.dimensions()
    }

    /// How the picture has to be turned, as EXIF numbers it: 1 (not at all) to 8.
    fn orientation(&self) -> u8 {
        1
    }

    /// The number of bytes, besides the file's, that [`Self::read`] holds at most at a time.
    fn memory(&self) -> u64;

    /// Only these columns will be looked at: [`Self::read`] may hand over anything in the others.
    fn expect(&mut self, _columns: Range<u32>) {}

    /// Decodes the picture, and hands its rows to `put` from the top to the bottom, any number of whole rows at a
    /// time: `[rows, width, 3]`, RGB of 8 bits, as the picture is stored. Returns a warning for each fault in the
    /// file that did not stop it.
    ///
    /// # Errors
    /// If the file is damaged, cut short, or of a kind that is not decoded.
    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason>;
}

/// A picture whose header has been read, and whose pixels are still to be decoded.
///
/// Decoders of rare formats have bugs and may panic on a damaged file, in [`Self::open`] and in [`Self::read`].
/// [`Preprocess::crop_of`](crate::input::preprocess::Preprocess::crop_of) turns such a panic into an error.
pub struct Picture<'a> {
    decoder: Box<dyn Decoder + 'a>,
    format: Format,
    orientation: u8,
    strict: bool,
}

impl<'a> Picture<'a> {
    /// Reads the header of an image file. The content of the file tells its format; `name` is looked at only to
    /// recognise TGA, whose content has no mark.
    ///
    /// # Errors
    /// [`Error::Image`] if the format is not known or the header is damaged, [`Error::ImageTooLarge`] if the image
    /// has more pixels than `options` allow.
    pub fn open(bytes: &'a [u8], name: &Path, options: Options) -> Result<Self> {
        let (format, decoder) = open(bytes, name).map_err(Error::Image)?;
        let limit = options.max_pixels;
        for (width, height) in [decoder.dimensions(), decoder.decoded()] {
            if u64::from(width) * u64::from(height) > limit {
                return Err(Error::ImageTooLarge { width, height, limit });
            }
        }
        // Pillow turns TIFF files whether asked or not.
        let orientation = if options.exif || format == Format::Tiff { decoder.orientation() } else { 1 };
        Ok(Self { decoder, format, orientation, strict: options.strict })
    }

    /// Width and height in pixels, after the picture is turned.
    pub fn dimensions(&self) -> (u32, u32) {
        let (width, height) = self.decoder.dimensions();
        if orientation::swaps_sides(self.orientation) { (height, width) } else { (width, height) }
    }

    /// Only these columns will be looked at: [`Self::read`] may hand over anything in the others, and be faster.
    pub fn expect(&mut self, columns: Range<u32>) {
        // Of a picture that is turned, columns are rows, or begin on the other side.
        if self.orientation == 1 {
            self.decoder.expect(columns);
        }
    }

    /// Decodes the picture, and hands its rows to `put` from the top to the bottom, any number of whole rows at a
    /// time: `[rows, width, 3]`, RGB of 8 bits. Waits first while other threads decode so much that memory would
    /// not be bounded. Returns a warning if the file is damaged although all of its pixels could be decoded.
    ///
    /// # Errors
    /// [`Error::Image`] if the file is cut short, or so damaged that pixels are missing: some rows may have gone to
    /// `put` by then. With [`Options::strict`], if there would be a warning.
    pub fn read(self, put: &mut dyn FnMut(&[u8])) -> Result<Option<String>> {
        let (format, strict) = (self.format, self.strict);
        let warnings = self.read_rows(put).with_context(|| format!("damaged or incomplete {format}"));
        let warnings = warnings.map_err(Error::Image)?;
        let warning = match warnings.as_slice() {
            [] => return Ok(None),
            [one] => one.clone(),
            [first, more @ ..] => format!("{first}, and {} more", more.len()),
        };
        if strict {
            return Err(Error::Image(Reason::new(format!("damaged {format}: {warning}"))));
        }
        Ok(Some(warning))
    }

    /// Decodes and turns. Returns the decoder's warnings.
    fn read_rows(self, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let Self { decoder, orientation, .. } = self;
        let (width, height) = decoder.dimensions();
        let (line, mut rows) = (3 * width as usize, 0);
        // Only with the last row is it known where each one ends up, so a turned picture is held as a whole.
        let is_turned = orientation != 1;
        let held = decoder.memory() + if is_turned { line as u64 * u64::from(height) } else { 0 };
        // While it holds the permit, this thread must not wait for other threads' work: they may wait for a permit.
        let _permit = memory::permit(held);
        let mut turned = is_turned.then(|| Turned::new(width, height, orientation));
        let mut each = |strip: &[u8]| {
            match &mut turned {
                Some(turned) => turned.put(rows, strip),
                None => put(strip),
            }
            rows += strip.len() / line;
        };
        let warnings = decoder.read(&mut each)?;
        ensure!(rows == height as usize, "{rows} of {height} rows are there");
        if let Some(turned) = turned {
            put(&turned.finish());
        }
        Ok(warnings)
    }
}

/// Recognises the format and reads the header. The picture has at least one pixel.
fn open<'a>(bytes: &'a [u8], name: &Path) -> Result<(Format, Box<dyn Decoder + 'a>), Reason> {
    #[cfg(test)]
    assert!(bytes != PANICS, "a bug in a decoder");
    ensure!(!bytes.is_empty(), "the file is empty");
    let format = Format::of(bytes, name)?;
    let decoder = format.decoder(bytes).with_context(|| format!("cannot decode this {format}"))?;
    let (width, height) = decoder.dimensions();
    ensure!(width > 0 && height > 0, "the image has no pixels ({width}x{height})");
    Ok((format, decoder))
}

/// Decodes a whole image. `name` is looked at only to recognise TGA, whose content has no mark.
///
/// # Errors
/// [`Error::Image`] if the bytes are no image of a known format, or a damaged one: no partial picture is returned;
/// [`Error::ImageTooLarge`] if it has more pixels than `options` allow.
pub fn decode(bytes: &[u8], name: &Path, options: Options) -> Result<RgbImage> {
    without_panic(|| {
        let picture = Picture::open(bytes, name, options)?;
        let (width, height) = picture.dimensions();
        let mut pixels = Vec::new();
        picture.read(&mut |rows| pixels.extend_from_slice(rows))?;
        let image = RgbImage::from_raw(width, height, pixels).context("the decoder gave another number of rows");
        image.map_err(Error::Image)
    })
}

/// What the format is called that the bytes of a file seem to have.
pub(crate) fn format_of(bytes: &[u8], name: &Path) -> Option<String> {
    Format::of(bytes, name).ok().map(|format| format.to_string())
}

/// What `work` returns, or an [`Error::Image`] if it panics, in silence. Nothing is used again that it leaves half
/// done, except the budget of memory, whose permits are returned.
pub fn without_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let reason = "damaged, or of a kind that cannot be decoded: the decoder gave up on it";
    panics::without_panic(work).unwrap_or_else(|| Err(Error::Image(Reason::new(reason))))
}

/// A file on which the decoder panics, in tests: there is no real one that is known.
#[cfg(test)]
pub const PANICS: &[u8] = b"a file on which a decoder panics";

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageBuffer, ImageFormat};

    use super::*;

    #[test]
    fn a_decoder_that_panics_refuses_its_file() {
        assert!(matches!(decode(PANICS, "a.png".as_ref(), Options::default()), Err(Error::Image(_))));
    }

    #[test]
    fn damaged_files_are_refused() {
        let jpeg = include_bytes!("../../../tests/fixtures/decode/rgb.jpg");
        let png = include_bytes!("../../../tests/fixtures/decode/rgb.png");
        let refused = |bytes: &[u8]| decode(bytes, "a.jpg".as_ref(), Options::default()).is_err();
        assert!(!refused(jpeg) && !refused(png));
        assert!(refused(&[]) && refused(b"just text") && refused(&jpeg[..100]));
        assert!(refused(&png[..png.len() / 2]) && refused(&jpeg[..jpeg.len() / 2]));
        let few = Options { max_pixels: 100, ..Options::default() };
        assert!(decode(png, "a.png".as_ref(), few).is_err());
    }

    #[test]
    fn of_16_bits_the_upper_8_are_kept() {
        let mut png = Vec::new();
        let image = ImageBuffer::from_fn(2, 1, |x, _| image::Rgb([0x12ffu16, 0xff00, 256 * x as u16]));
        DynamicImage::ImageRgb16(image).write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
        let decoded = decode(&png, "a.png".as_ref(), Options::default()).unwrap();
        assert_eq!(decoded.as_raw(), &[0x12, 0xff, 0, 0x12, 0xff, 1]);
    }
}
