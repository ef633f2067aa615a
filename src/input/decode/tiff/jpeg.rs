//! JPEG streams inside TIFF.

use super::compression::Shape;
use super::directory::Directory;
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::input::decode::CUT_SHORT;
use crate::input::decode::jpeg::{Colours, decode_samples};

/// The marker that a stream begins with.
const START: &[u8] = b"\xff\xd8";

/// Decodes a strip or tile to samples of 8 bits. `tables` are the tables that it lacks, a stream of their own from the
/// tag JPEGTables. If `ycbcr` is given, three samples are YCbCr, and converted to these colours. Faults in the data
/// that did not stop the decoder are added to `warnings`.
///
/// # Errors
/// If it is damaged or cut short, or of another size or number of samples.
pub(super) fn decompress(
    data: &[u8],
    tables: Option<&[u8]>,
    ycbcr: Option<Colours>,
    shape: Shape,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>, Reason> {
    let (stored, wanted) = match (shape.samples, ycbcr) {
        (1, _) => (Colours::Grey, Colours::Grey),
        (3, Some(wanted)) => (Colours::YCbCr, wanted),
        (3, None) => (Colours::Rgb, Colours::Rgb),
        (4, None) => (Colours::Cmyk, Colours::Cmyk),
        (other, _) => bail!("JPEG compression of {other} samples of such colours is not decoded"),
    };
    let tables = tables.and_then(|tables| tables.strip_prefix(START)).unwrap_or_default();
    let tables = tables.strip_suffix(b"\xff\xd9").unwrap_or(tables);
    let image = data.strip_prefix(START).context("it is no JPEG stream")?;
    let check = |size| shape.ensure(size);
    let mut pixels = decode_samples(&[START, tables, image].concat(), stored, wanted, check, warnings)?;
    ensure!(pixels.len() >= shape.size, "{CUT_SHORT}");
    pixels.truncate(shape.size);
    pixels.shrink_to_fit();
    Ok(pixels)
}

/// The stream that holds the whole picture in a file with old-style JPEG: the tag JPEGInterchangeFormat.
///
/// # Errors
/// If there is none.
pub(super) fn whole_stream<'a>(directory: &Directory<'a>) -> Result<&'a [u8], Reason> {
    let start = directory.integer(513).and_then(|start| usize::try_from(start).ok());
    let stream = start.and_then(|start| directory.bytes.get(start..)).filter(|stream| stream.starts_with(START));
    stream.context("old-style JPEG compression (6) without a JPEG stream is not decoded")
}
