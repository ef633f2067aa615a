//! OpenEXR, the first layer with colours, by the crate exr. What is stored may be larger than the picture, which is a window
//! onto it, or smaller; beside what is stored the picture is black.
//!
//! The `image` crate, whose values these are, makes room for two pictures of floating-point numbers, whatever the file holds,
//! and has blocks decompressed without a look at what they say of themselves.

use std::collections::HashSet;
use std::io::Cursor;

use exr::block::chunk::{Chunk, CompressedBlock};
use exr::block::reader::{ChunksReader, Reader};
use exr::block::{self, UncompressedBlock};
use exr::compression::Compression;
use exr::math::Vec2;
use exr::meta::attribute::{IntegerBounds, SampleType};
use exr::meta::{BlockDescription, header::Header};
use exr::prelude::f16;
use image::{DynamicImage, Rgb32FImage};

use super::Decoder;
use crate::error::{Context, Reason, Result, bail, ensure};

/// A block may be larger than 8 MiB only if it has no more than 2,048 times the file's bytes. Deflate reaches 1,032; DWA may
/// reach more, with blocks of one colour.
const LARGE_BLOCK: u64 = 8 << 20;
const MOST_OF_BLOCK: u64 = 2048;
/// All blocks together may be larger than a gigabyte only if they have no more than 16 bytes a pixel, or 64 times the file's
/// bytes: all channels are decompressed, also those that are not looked at.
const LARGE_LAYER: u64 = 1 << 30;
const BYTES_OF_PIXEL: u64 = 16;
const MOST_OF_LAYER: u64 = 64;
/// Room is made for what a block says it has before that is looked for, up to what a block may have: of a tile also what is
/// beside the layer, and in all layers, for a block says itself of which it is.
const LARGE_TILE: u64 = 32 << 20;
const MOST_OF_TILE: u64 = 64;
/// An attribute of ten bytes takes up to a kilobyte.
const MANY_ATTRIBUTES: usize = 1 << 16;
const BYTES_OF_ATTRIBUTE: usize = 32;
/// A picture of more pixels than 8K has is at most 16 times as large as what is stored of it.
const LARGE_PICTURE: u64 = 1 << 26;
const MOST_BESIDE: u64 = 16;
/// DWA sorts channels by rules that a block may bring, each of which it compares with each channel and those before.
const MOST_CHANNELS_OF_DWA: usize = 256;
const LONGEST_RULES: u16 = 1024;

/// An OpenEXR file whose headers have been read.
pub(super) struct Exr<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
    /// The file's bytes.
    length: usize,
    /// The number of the layer that is decoded.
    layer: usize,
    /// Of red, green and blue: the bytes per pixel of the channels before it in a row, and what its values are.
    channels: [(usize, SampleType); 3],
}

impl<'a> Exr<'a> {
    /// Reads the headers of layers.
    ///
    /// # Errors
    /// If one is damaged, none has colours, or the first that has says that there is more than the file can hold.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        ensure_attributes(bytes)?;
        let reader = block::read(Cursor::new(bytes), false)?;
        let colours = |header: &Header| {
            let [red, green, blue] = ["R", "G", "B"].map(|name| channel(header, name));
            Some([red?, green?, blue?]).filter(|_| !header.deep)
        };
        let mut layers = reader.headers().iter().enumerate();
        let found = layers.find_map(|(layer, header)| Some((layer, colours(header)?)));
        let (layer, channels) = found.context("it has no layer with the channels R, G and B")?;
        let length = bytes.len() as u64;
        ensure_room(&reader.headers()[layer], length)?;
        for (number, header) in reader.headers().iter().enumerate() {
            let of_layer = if number == layer { size_of_block(header) } else { 0 };
            let most = LARGE_TILE.max(MOST_OF_TILE.saturating_mul(length)).max(of_layer);
            ensure!(size_of_tile(header) <= most, "its blocks are larger than the file can hold");
        }
        Ok(Self { reader, length: bytes.len(), layer, channels })
    }

    fn header(&self) -> &Header {
        &self.reader.headers()[self.layer]
    }
}

/// The channel of that name: the bytes per pixel of the channels before it, and what its values are.
fn channel(header: &Header, name: &str) -> Option<(usize, SampleType)> {
    let mut channels = header.channels.channels_with_byte_offset();
    channels.find(|(_, channel)| channel.name.eq(name)).map(|(before, channel)| (before, channel.sample_type))
}

/// The part of the plane that the picture shows.
fn window(header: &Header) -> IntegerBounds {
    header.shared_attributes.display_window
}

fn sides(size: Vec2<usize>) -> (u32, u32) {
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    (side(size.0), side(size.1))
}

fn area(size: Vec2<usize>) -> u64 {
    (size.0 as u64).saturating_mul(size.1 as u64)
}

/// Refuses a file with more attributes than its length makes likely. An attribute is a name and a type, each with a zero at its
/// end, a length of four bytes, and the value. A zero ends a header, and another the headers, where there may be several.
fn ensure_attributes(bytes: &[u8]) -> Result<(), Reason> {
    let most = MANY_ATTRIBUTES.max(bytes.len() / BYTES_OF_ATTRIBUTE);
    // A text has at least one byte.
    let behind_text = |bytes: &[u8]| Some(1 + bytes.get(1..)?.iter().position(|byte| *byte == 0)?);
    let behind = |rest: &[u8]| {
        let name = 1 + behind_text(rest)?;
        let kind = name + 1 + behind_text(&rest[name..])?;
        let length = u32::from_le_bytes(*rest.get(kind..)?.first_chunk()?);
        kind.checked_add(4)?.checked_add(length as usize)
    };
    let is_multipart = bytes.get(5).is_some_and(|flags| flags & 0x10 != 0);
    let mut rest = bytes.get(8..).unwrap_or_default();
    for _ in 0..most {
        if let [0, headers @ ..] = rest {
            if !is_multipart || headers.first() == Some(&0) {
                return Ok(());
            }
            rest = headers;
        }
        // What is wrong the crate says.
        let Some(next) = behind(rest).and_then(|length| rest.get(length..)) else { return Ok(()) };
        rest = next;
    }
    bail!("it has more than {most} attributes")
}

/// Refuses a layer for which more room, or time, would be needed than a file of so many bytes makes likely.
fn ensure_room(header: &Header, file: u64) -> Result<(), Reason> {
    let (stored, shown) = (area(header.layer_size), area(window(header).size));
    ensure!(stored > 0, "its layer has no pixels");
    let most = LARGE_BLOCK.max(MOST_OF_BLOCK.saturating_mul(file));
    ensure!(size_of_block(header) <= most, "its blocks are larger than the file can hold");
    let size = size_of_pixels(header, header.layer_size);
    let most = LARGE_LAYER.max(BYTES_OF_PIXEL.saturating_mul(stored)).max(MOST_OF_LAYER.saturating_mul(file));
    ensure!(size <= most, "its channels have {size} bytes, and the file has {file}");
    let most = LARGE_PICTURE.max(MOST_BESIDE.saturating_mul(stored));
    ensure!(shown <= most, "its window is far larger than what is stored");
    let channels = header.channels.list.len();
    ensure!(!is_dwa(header) || channels <= MOST_CHANNELS_OF_DWA, "DWA of {channels} channels is not decoded");
    Ok(())
}

fn is_dwa(header: &Header) -> bool {
    matches!(header.compression, Compression::DWAA(_) | Compression::DWAB(_))
}

/// The bytes of the largest block of a layer, before it is compressed.
fn size_of_block(header: &Header) -> u64 {
    let Vec2(columns, rows) = sides_of_tile(header);
    size_of_pixels(header, Vec2(columns.min(header.layer_size.0), rows.min(header.layer_size.1)))
}

/// The same with what is beside the layer.
fn size_of_tile(header: &Header) -> u64 {
    size_of_pixels(header, sides_of_tile(header))
}

/// Columns and rows of a block, which may be more than the layer has.
fn sides_of_tile(header: &Header) -> Vec2<usize> {
    match header.blocks {
        BlockDescription::ScanLines => Vec2(header.layer_size.0, header.compression.scan_lines_per_block()),
        BlockDescription::Tiles(tiles) => tiles.tile_size,
    }
}

/// The bytes of so many pixels of a layer.
fn size_of_pixels(header: &Header, size: Vec2<usize>) -> u64 {
    area(size).saturating_mul(header.channels.bytes_per_pixel as u64)
}

impl Decoder for Exr<'_> {
    fn dimensions(&self) -> (u32, u32) {
        sides(window(self.header()).size)
    }

    fn decoded(&self) -> (u32, u32) {
        sides(self.header().layer_size)
    }

    fn memory(&self) -> u64 {
        // The picture, a block as it is decompressed, sorted and converted, and of each block where it is.
        let header = self.header();
        let picture = area(window(header).size).saturating_mul(3);
        picture.saturating_add(size_of_block(header).saturating_mul(3)).saturating_add(64 * header.chunk_count as u64)
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let Self { reader, length, layer, channels } = *self;
        // Of several resolutions the highest.
        let mut chunks =
            reader.filter_chunks(false, |_, tile, block| block.layer == layer && tile.is_largest_resolution_level())?;
        let mut picture = Shown::new(&chunks.headers()[layer]);
        let (mut read, mut taken) = (HashSet::new(), 0);
        while let Some(chunk) = chunks.next() {
            let chunk = chunk?;
            let meta = chunks.meta_data();
            let header = &meta.headers[layer];
            // The table of blocks says where each begins, and the block says again which it is.
            let place = header.get_block_data_indices(&chunk.compressed_block)?;
            let is_new = read.insert((place.tile_index.0, place.tile_index.1));
            let is_wanted = chunk.layer_index == layer && place.is_largest_resolution_level();
            ensure!(is_wanted && is_new, "a block lies where another should be");
            // Bytes of one block are not also those of another, which would make work of nothing.
            taken += stored(&chunk).len();
            ensure!(taken <= length, "its blocks are the same bytes");
            ensure_likely(header, &chunk)?;
            picture.add(UncompressedBlock::decompress_chunk(chunk, meta, false)?, header, channels);
        }
        put(&picture.pixels);
        Ok(Vec::new())
    }
}

/// The picture, as far as it has been decoded.
struct Shown {
    /// `[height, width, 3]`
    pixels: Vec<u8>,
    size: Vec2<usize>,
    /// Where in the picture the first pixel of the layer is: it may be outside.
    layer: (i64, i64),
}

impl Shown {
    fn new(header: &Header) -> Self {
        let (window, layer) = (window(header), header.own_attributes.layer_position);
        let place = |layer: i32, window: i32| i64::from(layer) - i64::from(window);
        Self {
            pixels: vec![0; 3 * window.size.0 * window.size.1],
            size: window.size,
            layer: (place(layer.0, window.position.0), place(layer.1, window.position.1)),
        }
    }

    /// Puts the pixels of a block where they belong, in the conversion of the `image` crate.
    fn add(&mut self, block: UncompressedBlock, header: &Header, channels: [(usize, SampleType); 3]) {
        let Vec2(width, _) = block.index.pixel_size;
        let Vec2(left, top) = block.index.pixel_position;
        let mut row = vec![0.0; 3 * width];
        let lines = block.data.chunks_exact(header.channels.bytes_per_pixel * width);
        for (line, y) in lines.zip((self.layer.1 + top as i64)..) {
            let Some(y) = usize::try_from(y).ok().filter(|y| *y < self.size.1) else { continue };
            for (colour, (before, kind)) in channels.into_iter().enumerate() {
                // A row has all values of the first channel, then those of the second.
                let values = &line[before * width..][..kind.bytes_per_sample() * width];
                put_values(values, kind, row[colour..].iter_mut().step_by(3));
            }
            // It has as many values as pixels of three.
            let Some(pixels) = Rgb32FImage::from_raw(width as u32, 1, row) else { return };
            let image = DynamicImage::ImageRgb32F(pixels);
            let rgb = image.to_rgb8();
            let x = self.layer.0 + left as i64;
            let hidden = usize::try_from(-x).unwrap_or(0).min(width);
            let x = usize::try_from(x).unwrap_or(0).min(self.size.0);
            let count = (width - hidden).min(self.size.0 - x);
            let place = &mut self.pixels[3 * (y * self.size.0 + x)..][..3 * count];
            place.copy_from_slice(&rgb.as_raw()[3 * hidden..][..3 * count]);
            row = image.into_rgb32f().into_raw();
        }
    }
}

/// Reads values of a channel.
fn put_values<'a>(bytes: &[u8], kind: SampleType, places: impl Iterator<Item = &'a mut f32>) {
    fn put<'a, const N: usize>(
        bytes: &[u8],
        places: impl Iterator<Item = &'a mut f32>,
        value: impl Fn([u8; N]) -> f32,
    ) {
        for (place, bytes) in places.zip(bytes.as_chunks::<N>().0) {
            *place = value(*bytes);
        }
    }
    // As the crate gives them, in the order of bytes of this machine.
    match kind {
        SampleType::F16 => put(bytes, places, |bytes| f16::from_ne_bytes(bytes).to_f32()),
        SampleType::F32 => put(bytes, places, f32::from_ne_bytes),
        SampleType::U32 => put(bytes, places, |bytes| u32::from_ne_bytes(bytes) as f32),
    }
}

/// The bytes of a block as they are in the file.
fn stored(chunk: &Chunk) -> &[u8] {
    match &chunk.compressed_block {
        CompressedBlock::ScanLine(lines) => &lines.compressed_pixels_le,
        CompressedBlock::Tile(tile) => &tile.compressed_pixels_le,
        // The crate refuses them.
        CompressedBlock::DeepScanLine(_) | CompressedBlock::DeepTile(_) => &[],
    }
}

/// Refuses a block of DWA if what it says of its parts does not fit its size: room is made for them. It begins with eleven
/// numbers of eight bytes, as OpenEXR's `ImfDwaCompressor.cpp` writes them, and the length of its rules.
fn ensure_likely(header: &Header, chunk: &Chunk) -> Result<(), Reason> {
    let bytes = stored(chunk);
    let place = header.get_absolute_block_pixel_coordinates(header.get_block_data_indices(&chunk.compressed_block)?)?;
    let size = size_of_pixels(header, place.size);
    // What did not get smaller is stored as it was.
    if !is_dwa(header) || bytes.len() as u64 == size {
        return Ok(());
    }
    let number = |at: usize| bytes.as_chunks::<8>().0.get(at).map_or(0, |number| u64::from_le_bytes(*number));
    // Sizes without compression: of channels that are none of the others, and of runs, packed and then unpacked. Then the numbers
    // of coefficients, of two bytes: of each 8 by 8 pixels, also where there are fewer, 63 and 1.
    let likely = [(1, size), (6, 2 * size), (7, size), (8, 4 * size), (9, size)];
    let likely = likely.into_iter().all(|(at, most)| number(at) <= most + (1 << 16));
    ensure!(likely, "a block says that it is larger than it is");
    let rules = bytes.get(88..90).map_or(0, |length| u16::from_le_bytes([length[0], length[1]]));
    ensure!(rules <= LONGEST_RULES, "a block has {rules} bytes of rules for its channels");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::input::decode::{Options, decode};

    fn file(path: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    fn ensure_as_by_image(bytes: &[u8], what: &str) {
        let expected = image::load_from_memory(bytes).unwrap().into_rgb8();
        assert!(decode(bytes, what.as_ref(), Options::default()).unwrap() == expected, "{what}");
    }

    #[test]
    fn pixels_are_those_of_the_crate_image() {
        for name in ["b44", "dwa.exr", "no", "piz", "pxr24", "rle", "zip"] {
            ensure_as_by_image(&file(&format!("fuzz/seeds/exr/{name}")), name);
        }
        // What is stored is 5 pixels wide and 4 high: less than it is shown, more, and only its corner.
        let mut bytes = file("fuzz/seeds/exr/zip");
        let name = b"displayWindow\0box2i\0\x10\0\0\0";
        let window = name.len() + bytes.windows(name.len()).position(|bytes| bytes == name).unwrap();
        for sides in [[-2, -1, 6, 4], [1, 1, 3, 2], [3, -2, 9, 1], [-4, 3, 1, 9], [5, 0, 6, 1]] {
            bytes[window..][..16].copy_from_slice(&sides.map(i32::to_le_bytes).concat());
            ensure_as_by_image(&bytes, &format!("{sides:?}"));
        }
    }

    #[test]
    fn what_is_larger_than_the_file_can_hold_or_lies_elsewhere_is_refused() {
        for (name, words) in [
            ("dwa-behind-the-table", "a block says that it is larger than it is"),
            ("window-around-one-pixel", "its window is far larger than what is stored"),
            ("one-block-for-all", "a block lies where another should be"),
            ("another-resolution", "a block lies where another should be"),
            ("rows-in-one-another", "its blocks are the same bytes"),
            ("tile-of-10-gigabytes", "its blocks are larger than the file can hold"),
            ("block-of-another-part", "its blocks are larger than the file can hold"),
        ] {
            let bytes = file(&format!("tests/fixtures/found/exr/{name}.exr"));
            let error = decode(&bytes, name.as_ref(), Options::default()).unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }

    #[test]
    fn attributes_are_as_many_as_a_file_may_have() {
        // Of one part, and of two of which the second has none.
        for flags in [0, 0x10] {
            let file = |count: usize| {
                let start = [0x76, 0x2f, 0x31, 0x01, 2, flags, 0, 0];
                let end: &[u8] = if flags == 0 { &[0; 1000] } else { b"\0x\0x\0\0\0\0\0\0\0" };
                [&start[..], &b"a\0a\0\0\0\0\0".repeat(count), end].concat()
            };
            let error = |count| decode(&file(count), "a.exr".as_ref(), Options::default()).unwrap_err().to_string();
            assert!(error(100_000).contains("it has more than 65536 attributes"), "{}", error(100_000));
            assert!(!error(60_000).contains("attributes"), "{}", error(60_000));
        }
    }
}
