//! From the bytes of an image file to pixels: 8-bit RGB, as Pillow's `Image.open(f).convert("RGB")` gives
//! them, row by row.
//!
//! In come bytes, which may be anybody's; out go rows of pixels, and what was wrong with the file. Alpha is
//! dropped, grey and palette are expanded, and of 16 bits the upper 8 are kept. (Pillow keeps them of
//! colour; of 16-bit grey it makes white what exceeds 255, which nobody wants.) Each format has a file, in
//! which a [`Decoder`] reads its header and then its rows; nothing here knows of the network.

mod arithmetic;
mod bmp;
mod dds;
mod gif;
mod ico;
mod jpeg;
mod kind;
mod little_endian;
mod memory;
mod orientation;
mod other;
mod png;
mod tiff;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::RgbImage;

pub use jpeg::NAME as JPEG_DECODER;
use kind::Kind;
use orientation::Turned;

/// The most pixels that an image may have unless more are allowed: the number from which Pillow refuses
/// one as a decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// What is wrong with a file that ends too early.
const CUT_SHORT: &str = "it is cut short";

/// How files are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Turns the picture as the camera was held; Pillow, and so timm, does not do that unless asked.
    pub exif: bool,
    /// Makes an error of what is wrong with a file even where all of its pixels could be decoded.
    pub strict: bool,
    /// Refuses larger pictures.
    pub max_pixels: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { exif: true, strict: false, max_pixels: MAX_PIXELS }
    }
}

/// What decodes one file. It has read the header; the pixels are still in the file.
trait Decoder {
    /// Width and height of the picture as it is stored, in pixels.
    fn dimensions(&self) -> (u32, u32);

    /// How the picture has to be turned, as EXIF numbers it: 1 (not at all) to 8.
    fn orientation(&self) -> u8 {
        1
    }

    /// At most so many bytes are held at a time while the picture is read, besides the file.
    fn memory(&self) -> u64;

    /// Decodes, and puts whole rows from the top to the bottom, any number at a time: RGB, 8 bits each, as
    /// the picture is stored. Returns what was wrong and could be passed over.
    ///
    /// # Errors
    /// If the file is damaged, cut short, or of a kind that is not decoded.
    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>>;
}

/// A picture whose pixels are still to be decoded.
pub struct Picture<'a> {
    decoder: Box<dyn Decoder + 'a>,
    kind: Kind,
    orientation: u8,
    strict: bool,
}

impl<'a> Picture<'a> {
    /// Reads the header of an image file, whose format is recognised by its content; the name decides only
    /// for TGA, whose content has no mark.
    ///
    /// # Errors
    /// If the format is not known, the header is damaged, or it promises more pixels than are allowed.
    pub fn open(bytes: &'a [u8], name: &Path, options: Options) -> Result<Self> {
        ensure!(!bytes.is_empty(), "the file is empty");
        let kind = Kind::of(bytes, name)?;
        let decoder = kind.decoder(bytes).with_context(|| format!("cannot decode this {kind}"))?;
        let (width, height) = decoder.dimensions();
        ensure!(width > 0 && height > 0, "the image has no pixels ({width}x{height})");
        let (pixels, most) = (u64::from(width) * u64::from(height), options.max_pixels);
        ensure!(pixels <= most, "the image is too large: {width}x{height} pixels, and {most} is the most (max-pixels)");
        // Pillow turns TIFF files whether asked or not.
        let orientation = if options.exif || kind == Kind::Tiff { decoder.orientation() } else { 1 };
        Ok(Self { decoder, kind, orientation, strict: options.strict })
    }

    /// Width and height in pixels, after it is turned.
    pub fn dimensions(&self) -> (u32, u32) {
        let (width, height) = self.decoder.dimensions();
        if orientation::swaps_sides(self.orientation) { (height, width) } else { (width, height) }
    }

    /// Decodes the picture, and puts its rows from the top to the bottom, any number at a time: `[rows, width,
    /// 3]`. Waits while other threads decode so much that memory would not be bounded. Returns what was wrong
    /// with the file although all of its pixels are there.
    ///
    /// # Errors
    /// If the file is damaged or cut short: no picture is there in part.
    pub fn read(self, put: &mut dyn FnMut(&[u8])) -> Result<Option<String>> {
        let Self { decoder, kind, orientation, strict } = self;
        let (width, height) = decoder.dimensions();
        let (line, mut rows) = (3 * width as usize, 0);
        // Where a row ends up is known only with the last one, so that a turned picture is held whole.
        let is_turned = orientation != 1;
        let held = decoder.memory() + if is_turned { line as u64 * u64::from(height) } else { 0 };
        // Nothing under it may wait for other threads' work, which may itself wait for a permit.
        let _permit = memory::permit(held);
        let mut turned = is_turned.then(|| Turned::new(width, height, orientation));
        let mut each = |strip: &[u8]| {
            match &mut turned {
                Some(turned) => turned.put(rows, strip),
                None => put(strip),
            }
            rows += strip.len() / line;
        };
        let warnings = decoder.read(&mut each).with_context(|| format!("damaged or incomplete {kind}"))?;
        ensure!(rows == height as usize, "damaged or incomplete {kind}: {rows} of {height} rows are there");
        if let Some(turned) = turned {
            put(&turned.finish());
        }
        let warning = match warnings.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            [first, more @ ..] => Some(format!("{first}, and {} more", more.len())),
        };
        match warning {
            Some(warning) if strict => Err(anyhow::anyhow!(warning).context(format!("damaged {kind}"))),
            warning => Ok(warning),
        }
    }
}

/// Decodes a whole image.
///
/// # Errors
/// As [`Picture::open`] and [`Picture::read`].
pub fn decode(bytes: &[u8], name: &Path, options: Options) -> Result<RgbImage> {
    let picture = Picture::open(bytes, name, options)?;
    let (width, height) = picture.dimensions();
    let mut pixels = Vec::new();
    picture.read(&mut |rows| pixels.extend_from_slice(rows))?;
    RgbImage::from_raw(width, height, pixels).context("the decoder gave another number of rows")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageBuffer, ImageFormat};

    use super::*;

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
