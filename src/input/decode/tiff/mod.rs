//! TIFF files, first page, decoded to what Pillow makes of them: by its own code (`TiffImagePlugin.py`) where the
//! file is not compressed, else by libtiff. One difference is intended: unsigned grey of 9 to 16 bits keeps its upper
//! 8 bits, where Pillow clips.
//!
//! The crate tiff is not used, because it refuses or misreads much of what Pillow reads: palettes, premultiplied
//! alpha, fax, old LZW, subsampled colours.
//!
//! ```text
//! directory     the header, and the tags with their values
//! tiles         where strips or tiles lie, and their samples
//! compression   what a strip or tile is compressed with; jpeg for JPEG
//! samples       samples of any size -> 8 bits
//! limits        how much memory and time that may take
//! colour        8-bit samples -> RGB; lab for CIE L*a*b*
//! ```

mod colour;
mod compression;
mod directory;
mod jpeg;
mod lab;
mod limits;
mod samples;
mod tiles;

use crate::error::{Reason, Result, ensure};
use crate::input::decode::Decoder;
use crate::input::decode::orientation;
use colour::Colour;
use compression::Compression;
use directory::Directory;
use samples::{SampleFormat, Samples};
use tiles::Tiles;

/// A TIFF file whose first directory has been read.
pub(super) struct Tiff<'a> {
    width: u32,
    height: u32,
    orientation: u8,
    tiles: Tiles<'a>,
    samples: Samples,
    colour: Colour,
    /// The colours have been multiplied by alpha, which follows them.
    premultiplied: bool,
}

impl<'a> Tiff<'a> {
    /// Reads the header and the first directory.
    ///
    /// # Errors
    /// If they are damaged, or the picture is of a kind that is not decoded.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let directory = Directory::first(bytes)?;
        let (width, height) = directory.size()?;
        let compression = Compression::of(&directory)?;
        // As Pillow, which assumes that old-style JPEG is YCbCr.
        let missing = if matches!(compression, Compression::OldJpeg { .. }) { 3 } else { 1 };
        let per_pixel = directory.integer(277).unwrap_or(missing);
        ensure!((1..=64).contains(&per_pixel), "{per_pixel} samples per pixel are not decoded");
        let per_pixel = per_pixel as usize;
        let subsampling = colour::subsampling(&directory, compression, per_pixel)?;
        let colour = Colour::of(&directory, compression, per_pixel, subsampling)?;
        let extra = directory.field(338).map_or(0, |field| field.len());
        // As in Pillow, RGB may have an alpha that is not declared.
        let undeclared = extra == 0 && per_pixel == 4 && matches!(colour, Colour::Rgb);
        ensure!(
            undeclared || per_pixel == colour.channels() + extra,
            "{per_pixel} samples per pixel, {extra} of them beside the colours, do not fit the kind of colours"
        );
        let format = SampleFormat::of(&directory, per_pixel)?;
        let bits = directory.same(258, per_pixel)?.unwrap_or(1);
        let samples = Samples::new(bits, format, directory.big_endian, &colour)?;
        ensure!(
            bits == 8 || !compression.has_samples() && subsampling == (1, 1),
            "{bits} bits per sample with JPEG, WebP or subsampled colours are not decoded"
        );
        let old_jpeg = matches!(compression, Compression::OldJpeg { .. });
        let planar = per_pixel > 1 && directory.integer(284) == Some(2) && !old_jpeg;
        // What Pillow reads by libtiff and plane by plane, it divides by an undeclared alpha too.
        let premultiplied = directory.integer(338) == Some(1) && matches!(colour, Colour::Rgb | Colour::Grey { .. })
            || undeclared && planar && compression != Compression::None;
        ensure!(
            subsampling == (1, 1) || per_pixel == 3 && !planar,
            "subsampled colours in planes, or with alpha, are not decoded"
        );
        // Of planes, only those that have colours are read, and alpha if it is needed for them.
        let wanted = colour.channels() + usize::from(premultiplied);
        let layout = if planar { (1, per_pixel, wanted) } else { (per_pixel, 1, 1) };
        let tiles = Tiles::new(&directory, compression, samples, layout, subsampling)?;
        let orientation = match directory.integer(274) {
            Some(orientation) if (1..=8).contains(&orientation) => orientation as u8,
            Some(_) => 1,
            None => orientation::of(None, directory.field(700).map(|field| field.bytes)),
        };
        Ok(Self { width, height, orientation, tiles, samples, colour, premultiplied })
    }
}

impl Decoder for Tiff<'_> {
    fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn orientation(&self) -> u8 {
        self.orientation
    }

    fn memory(&self) -> u64 {
        self.tiles.memory().saturating_add(8 * u64::from(self.width))
    }

    fn read(self: Box<Self>, put: &mut dyn FnMut(&[u8])) -> Result<Vec<String>, Reason> {
        let Self { width, height, tiles, .. } = *self;
        let channels = self.colour.channels() + usize::from(self.premultiplied);
        let at_a_time = if tiles.planes > 1 { 1 } else { channels };
        let mut line = vec![0; width as usize * channels];
        let mut rgb = Vec::with_capacity(width as usize * 3);
        let mut warnings = Vec::new();
        for (index, top) in (0..height).step_by(tiles.height as usize).enumerate() {
            let rows = tiles.height.min(height - top);
            let row_bytes = tiles.row_bytes;
            let decoded = tiles.row(index, rows, &mut warnings)?;
            for row in 0..rows as usize {
                for (plane, tiles_across) in decoded.chunks(tiles.across).enumerate() {
                    let places = line.chunks_mut(tiles.width.min(width) as usize * channels);
                    for (tile, place) in tiles_across.iter().zip(places) {
                        let samples = &tile[row * row_bytes..][..row_bytes];
                        self.samples.convert(samples, tiles.per_pixel, at_a_time, &mut place[plane..], channels);
                    }
                }
                if self.premultiplied {
                    for pixel in line.chunks_mut(channels) {
                        self.colour.undo_premultiplication(pixel);
                    }
                }
                rgb.clear();
                self.colour.to_rgb(&line, channels, &mut rgb);
                put(&rgb);
            }
        }
        Ok(warnings)
    }
}
