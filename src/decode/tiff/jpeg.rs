//! JPEG streams inside TIFF.

use anyhow::{Context, Result, bail, ensure};

use super::compression::Shape;
use super::directory::Directory;
use crate::decode::jpeg::{Colours, samples};

/// The marker that a stream begins with.
const START: &[u8] = b"\xff\xd8";

/// Decodes a strip or tile, to 8 bits per sample, and adds what is wrong with it to `warnings`. The tables that it lacks come from the tag JPEGTables, as a
/// stream of their own. `ycbcr` is what to make of three samples if they are YCbCr.
///
/// # Errors
/// If it is damaged or cut short, or of another size or number of samples.
pub fn decompress(
    data: &[u8],
    tables: Option<&[u8]>,
    ycbcr: Option<Colours>,
    shape: Shape,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>> {
    let (stored, wanted) = match (shape.samples, ycbcr) {
        (1, _) => (Colours::Grey, Colours::Grey),
        (3, Some(wanted)) => (Colours::YCbCr, wanted),
        (3, None) => (Colours::Rgb, Colours::Rgb),
        (4, None) => (Colours::Cmyk, Colours::Cmyk),
        (other, _) => bail!("JPEG compression of {other} samples per pixel is not decoded"),
    };
    let tables = tables.and_then(|tables| tables.strip_prefix(START)).unwrap_or_default();
    let tables = tables.strip_suffix(b"\xff\xd9").unwrap_or(tables);
    let image = data.strip_prefix(START).context("it is no JPEG stream")?;
    shape.ensure(size(image).context("it is no JPEG stream")?)?;
    let mut pixels = samples(&[START, tables, image].concat(), stored, wanted, warnings)?;
    ensure!(pixels.len() >= shape.size, "it is cut short");
    pixels.truncate(shape.size);
    pixels.shrink_to_fit();
    Ok(pixels)
}

/// Width and height by the frame header, before anything is allocated for them.
fn size(mut segments: &[u8]) -> Option<(u32, u32)> {
    loop {
        let at = segments.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
        let (marker, segment) = (segments[at + 1], &segments[at + 2..]);
        let number = |at: usize| segment.get(at..at + 2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        segments = match marker {
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return Some((number(5)?, number(3)?)),
            // Markers without a segment.
            0x01 | 0xd0..=0xd8 => segment,
            0xd9 | 0xda => return None,
            _ => segment.get(number(0)? as usize..)?,
        };
    }
}

/// The stream of an old-style file, for the whole picture: the tag JPEGInterchangeFormat.
///
/// # Errors
/// If there is none.
pub fn whole_stream<'a>(directory: &Directory<'a>) -> Result<&'a [u8]> {
    let start = directory.integer(513).and_then(|start| usize::try_from(start).ok());
    let stream = start.and_then(|start| directory.bytes.get(start..)).filter(|stream| stream.starts_with(START));
    stream.context("old-style JPEG compression (6) without a JPEG stream is not decoded")
}
