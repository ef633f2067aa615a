//! JPEG by libjpeg-turbo's C code, with Pillow's settings, which are the library's defaults: Pillow's pixels
//! to the bit. The crate mozjpeg-sys carries the sources; decoding is libjpeg-turbo's, untouched.

use std::ops::Range;

use mozjpeg_sys as ffi;

use super::colour::{cmyk_to_rgb, to_rgb};
use super::libjpeg::Decompressor;
use super::{Decoder, orientation};
use crate::error::{Reason, Result, bail, ensure};

/// A JPEG file whose header has been read.
pub(super) struct Jpeg<'a> {
    decompressor: Decompressor<'a>,
    bytes: &'a [u8],
    /// The columns that will be looked at, if not all.
    columns: Option<Range<u32>>,
}

impl<'a> Jpeg<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If there is none, or it has neither one, three nor four components of 8 bits.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let mut decompressor = Decompressor::open(bytes)?;
        // As Pillow: the library has found out how the colours are stored.
        let components = decompressor.info().num_components;
        decompressor.info_mut().out_color_space = match components {
            1 => ffi::JCS_GRAYSCALE,
            3 => ffi::JCS_RGB,
            4 => ffi::JCS_CMYK,
            n => bail!("a JPEG of {n} components is not decoded"),
        };
        Ok(Self { decompressor, bytes, columns: None })
    }
}

impl Decoder for Jpeg<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.decompressor.info().image_width, self.decompressor.info().image_height)
    }

    fn orientation(&self) -> u8 {
        let (exif, xmp) = metadata(self.bytes);
        orientation::of(exif.as_deref(), xmp)
    }

    fn memory(&self) -> u64 {
        let info = self.decompressor.info();
        let values = u64::from(info.image_width) * u64::from(info.image_height) * info.num_components as u64;
        // SAFETY: `info` is that of an open file, whose header has been read, as the function demands.
        let whole = unsafe { ffi::jpeg_has_multiple_scans(info) } != 0;
        // All coefficients of a progressive file, 16 bits each; of others, rows.
        if whole { 2 * values } else { 64 * u64::from(info.image_width) * info.num_components as u64 }
    }

    fn expect(&mut self, columns: Range<u32>) {
        self.columns = Some(columns);
    }

    fn read(mut self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let mut rgb = Vec::new();
        self.decompressor.read(self.columns.take(), &mut |samples, channels| match channels {
            3 => put(samples),
            1 => {
                to_rgb(samples, 1, &mut rgb);
                put(&rgb);
            }
            _ => {
                rgb.clear();
                // Adobe's programs store what is left of white, and Pillow assumes theirs.
                let inks = samples.as_chunks().0.iter().map(|cmyk: &[u8; 4]| cmyk.map(|ink| 255 - ink));
                rgb.extend(inks.flat_map(cmyk_to_rgb));
                put(&rgb);
            }
        })?;
        Ok(self.decompressor.warning().into_iter().collect())
    }
}

/// EXIF and XMP, as Pillow puts them together.
fn metadata(bytes: &[u8]) -> (Option<Vec<u8>>, Option<&[u8]>) {
    // The orientation is at the beginning of EXIF data, so what comes after this many bytes is left out.
    const MOST: usize = 1 << 20;
    let (mut exif, mut xmp): (Option<Vec<u8>>, _) = (None, None);
    for segment in segments_of_metadata(bytes) {
        if let Some(more) = segment.strip_prefix(b"Exif\0\0") {
            let exif = exif.get_or_insert_default();
            exif.extend_from_slice(&more[..more.len().min(MOST.saturating_sub(exif.len()))]);
        } else {
            xmp = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0").or(xmp);
        }
    }
    (exif, xmp)
}

/// The content of the segments APP1 before the first scan. libjpeg would keep them in a list that it walks along for each.
fn segments_of_metadata(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    const APP1: u8 = 0xe1;
    const START_OF_SCAN: u8 = 0xda;
    std::iter::from_fn(move || {
        loop {
            // As libjpeg, which passes over what lies between.
            rest = &rest[rest.iter().position(|byte| *byte == 0xff)? + 1..];
            let (marker, behind) = rest.split_first()?;
            match *marker {
                // More of them may stand before a marker.
                0xff => {}
                // Without content, the end of a stream that had tables alone among them.
                0 | 1 | 0xd0..=0xd9 => rest = behind,
                START_OF_SCAN => return None,
                marker => {
                    let length = usize::from(u16::from_be_bytes(*behind.first_chunk()?)).max(2);
                    let (segment, behind) = behind.split_at_checked(length)?;
                    rest = behind;
                    if marker == APP1 {
                        return Some(&segment[2..]);
                    }
                }
            }
        }
    })
}

/// What the components of a JPEG stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// One component.
    Grey,
    /// Three components.
    Rgb,
    /// Three components, brightness and two of colour.
    YCbCr,
    /// Four components, as they are stored.
    Cmyk,
}

impl Colours {
    /// The number of components.
    fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// Decodes a JPEG stream that is part of another file, to samples of 8 bits: `[height, width, channels]` of the
/// colours `wanted`. The other file says what the components are: `stored`. Before anything is allocated, `check`
/// is given width and height, and refuses wrong ones. libjpeg's warnings are added to `warnings`.
///
/// # Errors
/// If it is damaged, or has another size or number of components.
pub(super) fn decode_samples(
    stream: &[u8],
    stored: Colours,
    wanted: Colours,
    check: impl FnOnce((u32, u32)) -> Result<(), Reason>,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>, Reason> {
    let space = |colours| match colours {
        Colours::Grey => ffi::JCS_GRAYSCALE,
        Colours::Rgb => ffi::JCS_RGB,
        Colours::YCbCr => ffi::JCS_YCbCr,
        Colours::Cmyk => ffi::JCS_CMYK,
    };
    let mut decompressor = Decompressor::open(stream)?;
    let info = decompressor.info_mut();
    check((info.image_width, info.image_height))?;
    let (found, expected) = (info.num_components, stored.channels());
    ensure!(found as usize == expected, "the JPEG inside has {found} components, not {expected}");
    info.jpeg_color_space = space(stored);
    info.out_color_space = space(wanted);
    // libtiff, which is the one to ask for YCbCr, repeats the samples of Cb and Cr and does not smooth them.
    info.do_fancy_upsampling = (wanted != Colours::YCbCr).into();
    let mut pixels = Vec::new();
    decompressor.read(None, &mut |samples, _| pixels.extend_from_slice(samples))?;
    warnings.extend(decompressor.warning());
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a JPEG file of which these columns are expected.
    fn rows(bytes: &[u8], expected: Option<Range<u32>>) -> (Vec<u8>, Result<Vec<String>, Reason>) {
        let mut jpeg = Box::new(Jpeg::open(bytes).unwrap());
        if let Some(columns) = expected {
            jpeg.expect(columns);
        }
        let mut rows = Vec::new();
        let warnings = jpeg.read(&mut |strip| rows.extend_from_slice(strip));
        (rows, warnings)
    }

    #[test]
    fn metadata_is_what_stands_before_the_first_scan() {
        let exif = |content: &[u8]| [b"\xff\xe1\0", &[8 + content.len() as u8][..], b"Exif\0\0", content].concat();
        let xmp = b"\xff\xe1\0\x20http://ns.adobe.com/xap/1.0/\0x";
        let tables = [b"\xff\xd8\xff\xdb\0\x04\xff\xe1", &exif(b"a")[..], b"\xff\xd9"].concat();
        // Zeros between segments, and more than one byte before a marker.
        let start = [b"\xff\xd8\0\0\xff\xff", &exif(b"b")[..], &xmp[..], &exif(b"")].concat();
        let scan = [b"\xff\xda\0\x02", &exif(b"c")[..]].concat();
        assert_eq!(metadata(&[&tables, &start[..], &scan].concat()), (Some(b"ab".to_vec()), Some(&b"x"[..])));
        assert_eq!(metadata(&[&start[..], b"\xff\xe1\xff\xffExif\0\0"].concat()).0, Some(b"b".to_vec()));
        assert_eq!(metadata(b"\xff\xd8\xff\xe1\0\0\xff"), (None, None));
    }

    #[test]
    fn columns_that_are_left_out_change_nothing_in_the_others() {
        let names = [
            "rgb",
            "subsampled",
            "subsampled-4x1",
            "restarts",
            "arithmetic",
            "grey",
            "cmyk-subsampled",
            "rgb-inside",
            "progressive-subsampled",
            "damaged-codes",
            "damaged-scan",
            "16-bit-quantisation",
        ];
        for name in names {
            let path = format!("{}/tests/fixtures/decode/{name}.jpg", env!("CARGO_MANIFEST_DIR"));
            let bytes = std::fs::read(path).unwrap();
            let (width, _) = Jpeg::open(&bytes).unwrap().dimensions();
            let (whole, warnings) = rows(&bytes, None);
            for start in 0..width {
                for end in start + 1..=width {
                    let (part, of_part) = rows(&bytes, Some(start..end));
                    assert_eq!((part.len(), &of_part), (whole.len(), &warnings), "{name}, {start} to {end}");
                    let inside = 3 * start as usize..3 * end as usize;
                    let lines = part.chunks_exact(3 * width as usize).zip(whole.chunks_exact(3 * width as usize));
                    let same = lines.into_iter().all(|(part, whole)| part[inside.clone()] == whole[inside.clone()]);
                    assert!(same, "{name}, {start} to {end}");
                }
            }
        }
    }
}
