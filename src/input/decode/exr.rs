//! How much an OpenEXR file says that it holds. What is stored may be far larger than the picture, which is a window onto
//! it, and the decoder makes room for what a header says before it looks how much of that the file has.

use std::io::Cursor;

use exr::block::{self, chunk::CompressedBlock};
use exr::compression::Compression;
use exr::meta::{BlockDescription, header::Header};

use crate::error::{Context, Reason, Result, ensure};

/// A block may be larger than 8 MiB only if it has no more than 2,048 times the file's bytes. Deflate reaches 1,032; DWA may
/// reach more, with blocks of one colour.
const LARGE: u64 = 8 << 20;
const MOST_COMPRESSED: u64 = 2048;

/// What has to be decoded.
pub(super) struct Stored {
    /// Width and height of the largest layer, in pixels.
    pub(super) size: (u32, u32),
    /// The bytes of the largest block, before it was compressed.
    pub(super) block: u64,
}

impl Stored {
    /// Reads the headers of layers, and those of blocks where these say how much room is to be made.
    ///
    /// # Errors
    /// If a header is damaged, or says that there is more than the file can hold.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, Reason> {
        let reader = block::read(Cursor::new(bytes), false)?;
        let headers = reader.headers().to_vec();
        let block = headers.iter().map(size_of_block).max().context("it has no layer")?;
        let most = LARGE.max(MOST_COMPRESSED * bytes.len() as u64);
        ensure!(block <= most, "its blocks are larger than the file can hold");
        let is_dwa = |header: &Header| matches!(header.compression, Compression::DWAA(_) | Compression::DWAB(_));
        if headers.iter().any(is_dwa) {
            for chunk in reader.all_chunks(false)? {
                let chunk = chunk?;
                let of_dwa = headers.get(chunk.layer_index).filter(|header| is_dwa(header));
                let likely = of_dwa.is_none_or(|header| is_likely(header, &chunk.compressed_block));
                ensure!(likely, "a block says that it is larger than it is");
            }
        }
        let sizes = headers.iter().map(|header| header.layer_size);
        let largest = sizes.max_by_key(|size| size.0 as u64 * size.1 as u64).context("it has no layer")?;
        Ok(Self { size: (largest.0.try_into()?, largest.1.try_into()?), block })
    }
}

/// The bytes of a block of a layer, before it is compressed.
fn size_of_block(header: &Header) -> u64 {
    let (width, height) = (header.layer_size.0, header.layer_size.1);
    let (columns, rows) = match header.blocks {
        BlockDescription::ScanLines => (width, header.compression.scan_lines_per_block()),
        BlockDescription::Tiles(tiles) => (tiles.tile_size.0.min(width), tiles.tile_size.1),
    };
    size_of_pixels(header, columns, rows.min(height))
}

/// The bytes of so many pixels of a layer.
fn size_of_pixels(header: &Header, width: usize, height: usize) -> u64 {
    let pixels = (width as u64).saturating_mul(height as u64);
    pixels.saturating_mul(header.channels.bytes_per_pixel as u64)
}

/// Whether what a block of DWA says of its parts fits its size. It begins with eleven numbers of eight bytes, as OpenEXR's
/// `ImfDwaCompressor.cpp` writes them, of which these are sizes without compression or numbers of coefficients.
fn is_likely(header: &Header, block: &CompressedBlock) -> bool {
    let bytes = match block {
        CompressedBlock::ScanLine(lines) => &lines.compressed_pixels_le,
        CompressedBlock::Tile(tile) => &tile.compressed_pixels_le,
        // They are not decoded.
        CompressedBlock::DeepScanLine(_) | CompressedBlock::DeepTile(_) => return true,
    };
    let place = header.get_block_data_indices(block);
    let Ok(place) = place.and_then(|place| header.get_absolute_block_pixel_coordinates(place)) else {
        // Nor are blocks that lie elsewhere.
        return true;
    };
    let size = size_of_pixels(header, place.size.0, place.size.1);
    if bytes.len() as u64 == size {
        // It did not get smaller, and is stored as it was.
        return true;
    }
    let (numbers, _) = bytes.as_chunks::<8>();
    // Coefficients are those of 8 by 8 pixels, also where there are fewer.
    let most = size.saturating_mul(8).saturating_add(1 << 16);
    [1, 6, 7, 8, 9].into_iter().filter_map(|at| numbers.get(at)).all(|number| u64::from_le_bytes(*number) <= most)
}
