//! Recognises the format of a file.

use std::fmt;
use std::path::Path;

use image::ImageFormat;

use super::Decoder;
use super::bmp::{Bmp, is_dib};
use super::dds::Dds;
use super::exr::Exr;
use super::gif::Gif;
use super::ico::Ico;
use super::jpeg::Jpeg;
use super::other::Other;
use super::png::{self, Png};
use super::tiff::Tiff;
use crate::error::{Reason, Result, bail};

/// A format that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// By libjpeg-turbo.
    Jpeg,
    /// By the crate `png`.
    Png,
    /// The first frame.
    Gif,
    /// The first page.
    Tiff,
    /// Windows' bitmap.
    Bmp,
    /// BMP without its file header.
    Dib,
    /// Windows' icons.
    Ico,
    /// Windows' cursors.
    Cur,
    /// DirectDraw surfaces.
    Dds,
    /// One that the `image` crate decodes as Pillow does.
    Other(ImageFormat),
}

impl Format {
    /// Recognises the format by the first bytes of the file, and TGA, which has no mark, by the file's name.
    ///
    /// # Errors
    /// If the format is not known, or not decoded.
    pub(super) fn of(bytes: &[u8], name: &Path) -> Result<Self, Reason> {
        const OURS: [(&[u8], Format); 12] = [
            (b"\xff\xd8\xff", Format::Jpeg),
            (png::SIGNATURE, Format::Png),
            (b"GIF8", Format::Gif),
            (b"II*\0", Format::Tiff),
            (b"MM\0*", Format::Tiff),
            // In the wrong byte order, but Pillow reads them.
            (b"II\0*", Format::Tiff),
            (b"MM*\0", Format::Tiff),
            (b"II+\0", Format::Tiff),
            (b"MM\0+", Format::Tiff),
            (b"BM", Format::Bmp),
            (b"\0\0\x01\0", Format::Ico),
            (b"DDS ", Format::Dds),
        ];
        if let Some((_, kind)) = OURS.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
            return Ok(kind);
        }
        if let Some(format) = image::guess_format(bytes).ok().filter(ImageFormat::reading_enabled) {
            return Ok(Self::Other(format));
        }
        // A TGA file may begin with the same four bytes, followed by zeros and not by a number of pictures.
        if bytes.starts_with(b"\0\0\x02\0") && bytes.get(4..6).is_some_and(|count| count != [0, 0]) {
            return Ok(Self::Cur);
        }
        if is_dib(bytes) {
            return Ok(Self::Dib);
        }
        if let Some(kind) = not_decoded(bytes) {
            bail!("{kind} is not decoded here; convert it first, for example with ImageMagick: magick FILE photo.png");
        }
        if matches!(ImageFormat::from_path(name), Ok(ImageFormat::Tga)) {
            return Ok(Self::Other(ImageFormat::Tga));
        }
        bail!("not an image of a known format (JPEG, PNG, GIF, WebP, TIFF, BMP and others)")
    }

    /// Reads the header of a file of this format.
    ///
    /// # Errors
    /// If the header is damaged, or the file is of a kind that is not decoded.
    pub(super) fn decoder<'a>(self, bytes: &'a [u8]) -> Result<Box<dyn Decoder + 'a>, Reason> {
        Ok(match self {
            Self::Jpeg => Box::new(Jpeg::open(bytes)?),
            Self::Png => Box::new(Png::open(bytes)?),
            Self::Gif => Box::new(Gif::open(bytes)?),
            Self::Tiff => Box::new(Tiff::open(bytes)?),
            Self::Bmp | Self::Dib => Box::new(Bmp::open(bytes)?),
            Self::Ico | Self::Cur => Box::new(Ico::open(bytes)?),
            Self::Dds => Box::new(Dds::open(bytes)?),
            Self::Other(ImageFormat::OpenExr) => Box::new(Exr::open(bytes)?),
            Self::Other(format) => Box::new(Other::open(bytes, format)?),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Dib => "DIB",
            Self::Ico => "ICO",
            Self::Cur => "CUR",
            Self::Dds => "DDS",
            Self::Other(ImageFormat::WebP) => "WebP",
            Self::Other(format) => {
                return f.write_str(&format.extensions_str().first().copied().unwrap_or("image").to_uppercase());
            }
        })
    }
}

/// Recognises a file that has no decoder here although people may take it for a picture.
fn not_decoded(bytes: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    // ISO base media files tell their kind by a brand.
    let brand = bytes.get(4..12).filter(|start| start.starts_with(b"ftyp")).map(|start| &start[4..]);
    match brand {
        Some(b"avif" | b"avis") => Some("AVIF"),
        Some(b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1") => Some("HEIC, which phones make,"),
        Some(_) => Some("a film"),
        None if starts(b"\0\0\0\x0cjP  ") || starts(b"\xff\x4f\xff\x51") => Some("JPEG 2000"),
        None if starts(b"\0\0\0\x0cJXL ") || starts(b"\xff\x0a") => Some("JPEG XL"),
        None if starts(b"8BPS") => Some("Photoshop's PSD"),
        None if starts(b"\x01\xda") => Some("SGI's format"),
        None if starts(b"Pf\n") || starts(b"PF\n") => Some("PFM, which holds floating-point numbers,"),
        None if starts(b"icns") => Some("Apple's ICNS"),
        None if starts(b"%PDF-") => Some("a PDF"),
        None if starts(b"%!PS") => Some("PostScript"),
        None if starts(b"<svg") || starts(b"<?xml") => Some("SVG"),
        None => None,
    }
}
