//! How much an OpenEXR file says that it holds. What is stored may be far larger than the picture, which is a window onto
//! it, and the decoder makes room for a whole block before it looks how much of that the file has.

use std::io::Cursor;

use exr::meta::{BlockDescription, MetaData, header::Header};

use crate::error::{Context, Reason, Result, ensure};

/// No way to compress makes blocks this many times smaller: deflate reaches 1,032, others less.
const MOST_COMPRESSED: u64 = 2048;

/// Width and height of the largest layer of a file, in pixels.
///
/// # Errors
/// If the header is damaged, or blocks are larger than what the file can hold.
pub(super) fn largest_layer(bytes: &[u8]) -> Result<(u32, u32), Reason> {
    let headers = MetaData::read_from_buffered(Cursor::new(bytes), false)?.headers;
    let most = MOST_COMPRESSED * bytes.len() as u64;
    ensure!(headers.iter().all(|header| block(header) <= most), "its blocks are larger than the file can hold");
    let sizes = headers.iter().map(|header| header.layer_size);
    let largest = sizes.max_by_key(|size| size.0 as u64 * size.1 as u64).context("it has no layer")?;
    Ok((largest.0.try_into()?, largest.1.try_into()?))
}

/// The bytes of a block of a layer, before it is compressed.
fn block(header: &Header) -> u64 {
    let (width, height) = (header.layer_size.0, header.layer_size.1);
    let (columns, rows) = match header.blocks {
        BlockDescription::ScanLines => (width, header.compression.scan_lines_per_block()),
        BlockDescription::Tiles(tiles) => (tiles.tile_size.0.min(width), tiles.tile_size.1),
    };
    let pixels = (columns as u64).saturating_mul(rows.min(height) as u64);
    pixels.saturating_mul(header.channels.bytes_per_pixel as u64)
}
