//! The strips or tiles that a picture is stored in. Here a strip is a tile that is as wide as the picture.

use std::borrow::Cow;

use super::compression::{Compression, Shape, decompress};
use super::directory::{Directory, Field};
use super::limits::{Limits, up_to_next};
use super::samples::Samples;
use crate::error::{Context, Reason, Result, ensure};
use crate::input::decode::CUT_SHORT;

/// All strips or tiles of a picture: where they lie in the file, and how they are stored.
pub(super) struct Tiles<'a> {
    /// Width of each, in pixels.
    pub(super) width: u32,
    /// Height of each, in pixels. The lowest ones may reach below the picture.
    pub(super) height: u32,
    /// How many there are side by side.
    pub(super) across: usize,
    /// How many there are one below the other.
    down: usize,
    /// How many planes there are: one for each sample of a pixel, or a single one for all.
    pub(super) planes: usize,
    /// How many of them are read: the first ones.
    wanted: usize,
    /// Samples per pixel in each plane.
    pub(super) per_pixel: usize,
    /// Bytes of a row of a tile, when it is decompressed.
    pub(super) row_bytes: usize,
    /// `strip` or `tile`, for messages.
    name: &'static str,
    /// The whole file.
    bytes: &'a [u8],
    /// Where each one begins in the file, plane after plane.
    offsets: Field<'a>,
    /// How many bytes each one has in the file.
    sizes: Option<Field<'a>>,
    /// Where they begin, in order, if each one is read only up to where the next one begins.
    starts: Vec<u64>,
    compression: Compression<'a>,
    /// The bits of each byte are stored in reverse order (the tag FillOrder).
    reversed: bool,
    predictor: u64,
    samples: Samples,
    /// Pixels per sample of Cb and Cr, across and down.
    subsampling: (u32, u32),
}

impl<'a> Tiles<'a> {
    /// Finds the strips or tiles of a picture with `planes` planes of `per_pixel` samples per pixel, of which the first
    /// `wanted` are to be read.
    ///
    /// # Errors
    /// If some are missing, they are too large or too often the same bytes, or such samples cannot be compressed like
    /// this.
    pub(super) fn new(
        directory: &Directory<'a>,
        compression: Compression<'a>,
        samples: Samples,
        (per_pixel, planes, wanted): (usize, usize, usize),
        subsampling: (u32, u32),
    ) -> Result<Self, Reason> {
        let picture = directory.size()?;
        // As in libtiff, tiles are recognised by their size; in some files the tags of strips say where they are.
        let tiled = directory.side(322).zip(directory.side(323));
        let (name, (width, height)) = match tiled {
            _ if matches!(compression, Compression::OldJpeg { .. }) => ("JPEG stream", picture),
            Some(sides) => ("tile", sides),
            None => ("strip", (picture.0, directory.side(278).unwrap_or(u32::MAX).min(picture.1))),
        };
        let either = |tile, strip| directory.field(tile).filter(|_| tiled.is_some()).or(directory.field(strip));
        let offsets = either(324, 273).with_context(|| format!("the places of its {name}s are missing"))?;
        let (across, down) = (picture.0.div_ceil(width) as usize, picture.1.div_ceil(height) as usize);
        let needed = (across as u64 * down as u64).saturating_mul(planes as u64);
        let found = offsets.len() as u64;
        // libtiff ignores those that are too many; here not where that would leave open which ones they are.
        let too_many = found > needed && planes == 1 && compression != Compression::None;
        ensure!(found == needed || too_many, "there are {found} {name}s instead of {needed}");
        let sizes = either(325, 279);
        ensure_compressible(compression, samples, per_pixel)?;
        let predictor = directory.integer(317).filter(|_| compression.has_predictor()).unwrap_or(1);
        samples.ensure_predictor(predictor)?;
        let row_bytes = samples.bytes(u64::from(width) * per_pixel as u64);
        let bytes = row_bytes.saturating_mul(height.into());
        // As in libtiff and Pillow.
        ensure!(bytes <= i32::MAX as u64, "{name}s of more than 2 GiB are not decoded");
        let mut tiles = Self {
            width,
            height,
            across,
            down,
            planes,
            wanted,
            per_pixel,
            row_bytes: row_bytes as usize,
            name,
            bytes: directory.bytes,
            offsets,
            sizes,
            starts: Vec::new(),
            compression,
            // libtiff leaves JPEG streams as they are.
            reversed: directory.integer(266) == Some(2) && !compression.is_jpeg(),
            predictor,
            samples,
            subsampling,
        };
        tiles.limit(picture)?;
        Ok(tiles)
    }

    /// Refuses what would take far more memory or time than the picture or the file explains, as [`Limits`] has it.
    fn limit(&mut self, (width, height): (u32, u32)) -> Result<(), Reason> {
        let pixels = u64::from(width) * u64::from(height);
        let limits = Limits { name: self.name, pixels, file: self.bytes.len() as u64 };
        limits.ensure_wide(self.width, self.across)?;
        let row_bytes = self.row_bytes as u64;
        if !self.borrows() {
            // Of the lowest tiles, only the rows of the picture are decompressed.
            let side_by_side = row_bytes * self.across as u64 * self.wanted as u64;
            let all = side_by_side.saturating_mul(height.into());
            // Other compressions are undone no further than that; JPEG and WebP as a whole.
            let rows = if self.compression.has_samples() { self.height } else { self.height.min(height) };
            limits.ensure_decompressed(side_by_side.saturating_mul(rows.into()), all)?;
        }
        let count = self.across * self.down * self.wanted;
        if count < 2 {
            return Ok(());
        }
        let (offsets, sizes, uncompressed) = (self.offsets, self.sizes, self.compression == Compression::None);
        let size = row_bytes * u64::from(self.height.min(height));
        let places = (0..count).map(move |index| {
            let said = sizes.and_then(|sizes| sizes.integer(index)).unwrap_or(0);
            (offsets.integer(index).unwrap_or(0), if uncompressed { size } else { said })
        });
        if uncompressed {
            return limits.ensure_once_as_they_are(places);
        }
        let tables = match self.compression {
            Compression::Jpeg { tables, .. } => tables.map_or(0, |tables| tables.len() as u64),
            _ => 0,
        };
        self.starts = limits.ensure_once(places, tables)?;
        Ok(())
    }

    /// Whether [`Self::row`] returns bytes of the file as they are.
    fn borrows(&self) -> bool {
        self.compression == Compression::None && !self.reversed && self.subsampling == (1, 1)
    }

    /// The number of bytes that [`Self::row`] returns, and those that it holds besides while it decompresses.
    pub(super) fn memory(&self) -> u64 {
        let one = self.row_bytes as u64 * u64::from(self.height);
        let side_by_side = self.across as u64 * self.wanted as u64;
        let places = side_by_side * size_of::<Cow<[u8]>>() as u64 + self.starts.len() as u64 * 8;
        if self.borrows() {
            return places;
        }
        let all = one.saturating_mul(side_by_side).saturating_add(places);
        match self.compression {
            // Coefficients of 16 bits, and a buffer that grows.
            Compression::Jpeg { .. } | Compression::OldJpeg { .. } => all.saturating_add(4 * one),
            Compression::Lzma | Compression::Zstd => all.saturating_add(one + Compression::LARGEST_WINDOW),
            _ => all.saturating_add(one),
        }
    }

    /// Decompresses the tiles that lie side by side in row `row` of the tiles, for each of the planes that are read.
    /// Only the upper `height` rows of pixels are decoded: of the lowest tiles the others lie below the picture.
    /// Faults in the file that did not stop the decoder are added to `warnings`.
    ///
    /// # Errors
    /// If one is missing, damaged or cut short.
    pub(super) fn row(
        &self,
        row: usize,
        height: u32,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Cow<'a, [u8]>>, Reason> {
        let mut tiles = Vec::with_capacity(self.wanted * self.across);
        for plane in 0..self.wanted {
            let first = (plane * self.down + row) * self.across;
            for index in first..first + self.across {
                let tile = self.tile(index, height, warnings);
                tiles.push(tile.with_context(|| format!("{} {index}", self.name))?);
            }
        }
        Ok(tiles)
    }

    /// Decompresses the upper `rows` rows of a tile.
    fn tile(&self, index: usize, rows: u32, warnings: &mut Vec<String>) -> Result<Cow<'a, [u8]>, Reason> {
        let (across, down) = self.subsampling;
        let size = self.row_bytes * rows as usize;
        let stored = match self.subsampling {
            (1, 1) => size,
            _ => self.width.div_ceil(across) as usize * rows.div_ceil(down) as usize * (across * down + 2) as usize,
        };
        let (width, height) = (self.width, self.height);
        let shape = Shape { width, height, rows, samples: self.per_pixel, size: stored };
        let data = self.stored(index, stored)?;
        let data = if self.reversed {
            Cow::Owned(data.iter().map(|byte| byte.reverse_bits()).collect::<Vec<u8>>())
        } else {
            Cow::Borrowed(data)
        };
        let mut rows = match self.compression {
            Compression::None => data,
            compression => decompress(compression, &data, shape, warnings)?.into(),
        };
        if self.predictor != 1 {
            self.samples.undo_predictor(self.predictor, rows.to_mut(), self.row_bytes, self.per_pixel);
        }
        if self.subsampling != (1, 1) {
            rows = upsample(&rows, self.subsampling, self.width as usize, size).into();
        }
        Ok(rows)
    }

    /// The bytes of a tile as they lie in the file. `size` is their number if they are not compressed.
    fn stored(&self, index: usize, size: usize) -> Result<&'a [u8], Reason> {
        if let Compression::OldJpeg { stream } = self.compression {
            return Ok(stream);
        }
        let offset = self.offsets.integer(index).filter(|offset| *offset > 0).context("it is missing")?;
        let rest = self.bytes.get(usize::try_from(offset)?..).context("it lies outside the file")?;
        let length = match self.sizes.and_then(|sizes| sizes.integer(index)) {
            // Pillow does not look at it where nothing is compressed.
            _ if self.compression == Compression::None => size,
            // libtiff guesses, and this is its guess for a single strip.
            None | Some(0) if self.offsets.len() == 1 => rest.len(),
            length => {
                let length = length.context("its size is missing")?;
                usize::try_from(length.min(up_to_next(&self.starts, offset)))?
            }
        };
        rest.get(..length).context(CUT_SHORT)
    }
}

/// Refuses samples to which a compression does not apply.
fn ensure_compressible(compression: Compression, samples: Samples, per_pixel: usize) -> Result<(), Reason> {
    let fax = matches!(compression, Compression::Fax { .. });
    ensure!(!fax || samples.bytes(8) * per_pixel as u64 == 1, "CCITT of more than one bit is not decoded");
    ensure!(
        !compression.is_jpeg() || matches!(per_pixel, 1 | 3 | 4),
        "JPEG compression of {per_pixel} samples per pixel is not decoded"
    );
    Ok(())
}

/// Gives each pixel the Cb and Cr of its group of pixels. The samples of a group lie together: the Y of each pixel,
/// then Cb and Cr.
fn upsample(groups: &[u8], (across, down): (u32, u32), width: usize, size: usize) -> Vec<u8> {
    let (across, down) = (across as usize, down as usize);
    let length = across * down + 2;
    let mut pixels = Vec::with_capacity(size);
    for y in 0..size / (3 * width) {
        for x in 0..width {
            let group = &groups[(y / down * width.div_ceil(across) + x / across) * length..][..length];
            pixels.extend([group[y % down * across + x % across], group[length - 2], group[length - 1]]);
        }
    }
    pixels
}
