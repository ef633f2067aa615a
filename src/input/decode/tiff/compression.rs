//! The tag Compression, and the decompression of a strip or tile.

use std::io::{Cursor, ErrorKind, Read};

use hayro_ccitt::{DecodeSettings, DecoderContext, EncodingMode};
use weezl::{BitOrder, LzwStatus};

use super::directory::Directory;
use super::jpeg;
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::input::decode::CUT_SHORT;
use crate::input::decode::jpeg::Colours;
use crate::input::decode::riff;
use crate::input::decode::webp::ensure_room;

/// What strips and tiles are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression<'a> {
    /// Nothing.
    None,
    /// One of CCITT's, of 1 bit per pixel.
    Fax {
        /// Which one.
        encoding: EncodingMode,
        /// Each row begins with a new byte.
        byte_aligned: bool,
    },
    /// LZW, TIFF's or that of old versions of libtiff.
    Lzw,
    /// JPEG as TIFF 6.0 had it. Decoded where the file holds the whole picture as one stream; some files hold only
    /// its tables, in many places.
    OldJpeg {
        /// The whole picture.
        stream: &'a [u8],
    },
    /// A JPEG stream for each strip or tile.
    Jpeg {
        /// A stream with the tables that the others lack.
        tables: Option<&'a [u8]>,
        /// The streams hold YCbCr, of which libjpeg makes RGB.
        to_rgb: bool,
    },
    /// zlib's.
    Deflate,
    /// Run lengths of bytes.
    PackBits,
    /// An xz file for each strip or tile.
    Lzma,
    /// Zstandard.
    Zstd,
    /// A WebP file for each strip or tile.
    WebP,
}

impl<'a> Compression<'a> {
    /// The largest number of bytes that Zstandard and LZMA may refer back to: twice the most that xz's presets have,
    /// and as many as ruzstd allows.
    pub(super) const LARGEST_WINDOW: u64 = 1 << 27;

    /// Reads the compression from the directory.
    ///
    /// # Errors
    /// If it is not decoded.
    pub(super) fn of(directory: &Directory<'a>) -> Result<Self, Reason> {
        let two_dimensional = directory.integer(292).unwrap_or(0) & 1 == 1;
        Ok(match directory.integer(259).unwrap_or(1) {
            1 => Self::None,
            2 => Self::Fax { encoding: EncodingMode::Group3_1D, byte_aligned: true },
            3 if two_dimensional => Self::Fax { encoding: EncodingMode::Group3_2D, byte_aligned: false },
            3 => Self::Fax { encoding: EncodingMode::Group3_1D, byte_aligned: false },
            4 => Self::Fax { encoding: EncodingMode::Group4, byte_aligned: false },
            5 => Self::Lzw,
            6 => Self::OldJpeg { stream: jpeg::whole_stream(directory)? },
            7 => Self::Jpeg {
                tables: directory.field(347).map(|field| field.bytes),
                to_rgb: directory.integer(262) == Some(6) && directory.integer(284) != Some(2),
            },
            8 | 32946 => Self::Deflate,
            32773 => Self::PackBits,
            34925 => Self::Lzma,
            50000 => Self::Zstd,
            50001 => Self::WebP,
            other => {
                let name = match other {
                    9 | 10 | 34661 => "JBIG",
                    32766 => "NeXT's",
                    32771 => "word-aligned CCITT",
                    32809 => "ThunderScan",
                    32895..=32898 => "IT8",
                    32908 | 32909 => "Pixar's",
                    32947 => "Kodak's DCS",
                    33003 | 33004 | 33005 | 34712 => "JPEG 2000",
                    34676 | 34677 => "SGI's LogLuv",
                    34718 => "Microsoft's document imaging",
                    34887 => "LERC",
                    34892 => "lossy JPEG of a camera's raw data",
                    34933 => "PNG",
                    34934 | 22610 => "JPEG XR",
                    50002 | 52546 => "JPEG XL",
                    _ => "unknown",
                };
                bail!("{name} compression ({other}) is not decoded")
            }
        })
    }

    /// Whether it is old or new JPEG.
    pub(super) fn is_jpeg(self) -> bool {
        matches!(self, Self::Jpeg { .. } | Self::OldJpeg { .. })
    }

    /// Whether it compresses samples of 8 bits, and not any bytes.
    pub(super) fn has_samples(self) -> bool {
        self.is_jpeg() || self == Self::WebP
    }

    /// Whether libtiff regards the tag Predictor.
    pub(super) fn has_predictor(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate | Self::Lzma | Self::Zstd)
    }
}

/// The size of a strip or tile.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// In pixels.
    pub(super) width: u32,
    /// In pixels.
    pub(super) height: u32,
    /// How many rows belong to the picture: the upper ones. Only these are decoded.
    pub(super) rows: u32,
    /// Samples per pixel.
    pub(super) samples: usize,
    /// Bytes of `rows` decompressed rows.
    pub(super) size: usize,
}

impl Shape {
    /// Checks the size of a JPEG or WebP image before anything is allocated for it.
    ///
    /// # Errors
    /// If it is too small or too large.
    pub(super) fn ensure(self, (width, height): (u32, u32)) -> Result<(), Reason> {
        let Self { width: expected, rows, .. } = self;
        // As in libtiff, the last strip may have more rows than are left, and some have been rounded up.
        let most = self.height.saturating_add(64);
        let fits = width == expected && (rows..=most).contains(&height);
        ensure!(fits, "the image inside has {width}x{height} pixels, not {expected}x{rows}");
        Ok(())
    }
}

/// Decompresses a strip or tile. Data beyond `shape` are ignored. Faults in the data that did not stop the decoder are
/// added to `warnings`.
///
/// # Errors
/// If it is damaged or cut short.
pub(super) fn decompress(
    compression: Compression,
    data: &[u8],
    shape: Shape,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>, Reason> {
    let mut out = vec![0; shape.size];
    match compression {
        Compression::None => out.copy_from_slice(data.get(..shape.size).context(CUT_SHORT)?),
        Compression::Fax { encoding, byte_aligned } => {
            fax(data, encoding, byte_aligned, shape, &mut out, warnings)?;
        }
        Compression::Lzw => lzw(data, &mut out)?,
        Compression::Deflate => fill(flate2::read::ZlibDecoder::new(data), &mut out)?,
        Compression::PackBits => packbits(data, &mut out).context(CUT_SHORT)?,
        Compression::Lzma => {
            let limit = (Compression::LARGEST_WINDOW >> 10) as u32;
            fill(lzma_rust2::XzReader::new_mem_limit(data, false, limit), &mut out)?;
        }
        Compression::Zstd => fill(ruzstd::decoding::StreamingDecoder::new(data)?, &mut out)?,
        Compression::WebP => webp(data, shape, &mut out)?,
        Compression::OldJpeg { .. } => return jpeg::decompress(data, None, Some(Colours::YCbCr), shape, warnings),
        Compression::Jpeg { tables, to_rgb } => {
            return jpeg::decompress(data, tables, to_rgb.then_some(Colours::Rgb), shape, warnings);
        }
    }
    Ok(out)
}

/// Decompresses as much as `out` holds.
fn fill(mut decoder: impl Read, out: &mut [u8]) -> Result<(), Reason> {
    decoder.read_exact(out).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Reason::new(CUT_SHORT),
        _ => error.into(),
    })
}

/// Decompresses TIFF's LZW, or the kind that libtiff wrote before 1991 and still reads: with the bits of a byte in the
/// other order, and codes that grow one code later (`LZWDecodeCompat`).
fn lzw(data: &[u8], mut out: &mut [u8]) -> Result<(), Reason> {
    let mut decoder = match data {
        [0, second, ..] if second & 1 == 1 => weezl::decode::Decoder::new(BitOrder::Lsb, 8),
        _ => weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8),
    };
    let mut data = data;
    while !out.is_empty() {
        let result = decoder.decode_bytes(data, out);
        data = &data[result.consumed_in..];
        out = &mut out[result.consumed_out..];
        ensure!(out.is_empty() || matches!(result.status?, LzwStatus::Ok), "{CUT_SHORT}");
    }
    Ok(())
}

/// Decompresses run lengths. `None` if the data ends too early.
fn packbits(mut data: &[u8], mut out: &mut [u8]) -> Option<()> {
    while !out.is_empty() {
        let (&head, rest) = data.split_first()?;
        let (from, length) = match head {
            128 => (rest, 0),
            0..128 => {
                let length = usize::from(head) + 1;
                // As in libtiff, what does not fit is left out.
                let (literal, to) = (rest.get(..length)?, length.min(out.len()));
                out[..to].copy_from_slice(&literal[..to]);
                (&rest[length..], to)
            }
            _ => {
                let to = (257 - usize::from(head)).min(out.len());
                out[..to].fill(*rest.first()?);
                (&rest[1..], to)
            }
        };
        data = from;
        out = &mut out[length..];
    }
    Some(())
}

/// The rows of a fax that are still to be decoded: 1 bit per pixel, of which 1 is black.
struct FaxRows<'a> {
    rows: std::slice::ChunksExactMut<'a, u8>,
    width: u32,
}

impl hayro_ccitt::Decoder for FaxRows<'_> {
    fn push_row(&mut self, changes: &[u32]) {
        let Some(row) = self.rows.next() else { return };
        for run in changes.chunks(2) {
            let end = run.get(1).copied().unwrap_or(self.width);
            for pixel in run[0] as usize..end as usize {
                row[pixel / 8] |= 128 >> (pixel % 8);
            }
        }
    }
}

/// Decompresses CCITT's encodings. Most damage leaves codes that exist, and shows only where a row has too many pixels,
/// or another one does not begin behind it: then what can be decoded is, with a warning.
fn fax(
    data: &[u8],
    encoding: EncodingMode,
    byte_aligned: bool,
    shape: Shape,
    out: &mut [u8],
    warnings: &mut Vec<String>,
) -> Result<(), Reason> {
    let settings = DecodeSettings {
        columns: shape.width,
        rows: shape.rows,
        end_of_block: true,
        end_of_line: false,
        rows_are_byte_aligned: byte_aligned,
        encoding,
        strict: true,
    };
    let Err(fault) = fax_rows(data, settings, out) else { return Ok(()) };
    out.fill(0);
    fax_rows(data, DecodeSettings { strict: false, ..settings }, out)?;
    warnings.push(format!("CCITT data that do not follow the standard: {fault}"));
    Ok(())
}

/// Decompresses the rows of a fax into `out`, which is all 0.
fn fax_rows(data: &[u8], settings: DecodeSettings, out: &mut [u8]) -> Result<(), Reason> {
    let width = settings.columns;
    let mut rows = FaxRows { rows: out.chunks_exact_mut(width.div_ceil(8) as usize), width };
    let result = hayro_ccitt::decode(data, &mut rows, &mut DecoderContext::new(settings));
    let missing = rows.rows.len();
    if missing > 0 {
        result?;
        bail!("it is cut short by {missing} rows");
    }
    Ok(())
}

/// Decompresses WebP to RGB, or to RGBA where there are four samples, as libtiff's `tif_webp.c`.
fn webp(data: &[u8], shape: Shape, out: &mut [u8]) -> Result<(), Reason> {
    ensure_room(data)?;
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(data))?;
    shape.ensure(decoder.dimensions())?;
    riff::largest(data).map_or(Ok(()), |size| shape.ensure(size))?;
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut pixels = vec![0; decoder.output_buffer_size().context("the WebP inside is too large")?];
    decoder.read_image(&mut pixels)?;
    for (to, from) in out.chunks_mut(shape.samples).zip(pixels.chunks(channels)) {
        to.fill(255);
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::input::decode::{Options, Picture, decode};

    #[test]
    fn damage_of_a_fax_is_told() {
        let files = [
            &include_bytes!("../../../../tests/fixtures/decode/fax-group3.tiff")[..],
            include_bytes!("../../../../tests/fixtures/decode/fax-group3-2d.tiff"),
            include_bytes!("../../../../tests/fixtures/decode/fax-huffman.tiff"),
        ];
        let read = |file: &[u8]| {
            let mut pixels = Vec::new();
            let picture = Picture::open(file, "a.tiff".as_ref(), Options::default()).unwrap();
            let warning = picture.read(&mut |rows| pixels.extend_from_slice(rows)).unwrap();
            (pixels, warning)
        };
        for file in files {
            let (whole, none) = read(file);
            assert_eq!(none, None);
            // In the middle of the only strip, which begins at 8.
            let mut damaged = file.to_vec();
            damaged[8 + 101] ^= 0x3c;
            let (other, warning) = read(&damaged);
            assert!(other != whole && other.len() == whole.len());
            assert_eq!(
                warning.as_deref(),
                Some("CCITT data that do not follow the standard: invalid CCITT code sequence")
            );
            let strict = Options { strict: true, ..Options::default() };
            let error = decode(&damaged, "a.tiff".as_ref(), strict).unwrap_err().to_string();
            assert!(error.contains("damaged TIFF: CCITT data that do not follow the standard: "), "{error}");
        }
    }
}
