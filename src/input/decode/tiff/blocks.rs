//! The strips or tiles that a picture is stored in. A strip is a tile as wide as the picture.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};

use super::compression::{Compression, Shape, decompress};
use super::directory::{Directory, Field};
use super::samples::Samples;
use crate::input::decode::CUT_SHORT;

/// Where the strips or tiles lie, and how.
pub struct Blocks<'a> {
    /// Pixels of each.
    pub width: u32,
    pub height: u32,
    /// How many there are side by side.
    pub across: usize,
    /// How many times the picture is covered: by each sample in turn, or by all at once.
    pub planes: usize,
    /// Samples per pixel in each.
    pub per_pixel: usize,
    /// Bytes of a row of samples in each.
    pub row_bytes: usize,
    name: &'static str,
    down: usize,
    bytes: &'a [u8],
    offsets: Field<'a>,
    sizes: Option<Field<'a>>,
    compression: Compression<'a>,
    /// The first pixel is in the lowest bits of a byte.
    reversed: bool,
    predictor: u64,
    samples: Samples,
    /// Pixels per sample of Cb and Cr, across and down.
    subsampling: (u32, u32),
}

impl<'a> Blocks<'a> {
    /// For a picture with `planes` planes of `per_pixel` samples.
    ///
    /// # Errors
    /// If there are too few, they are too large, their size is missing, or they cannot be compressed like this.
    pub fn of(
        directory: &Directory<'a>,
        compression: Compression<'a>,
        samples: Samples,
        (per_pixel, planes): (usize, usize),
        subsampling: (u32, u32),
    ) -> Result<Self> {
        let (picture_width, picture_height) = directory.size()?;
        // As in libtiff, tiles are recognised by their size; some files have their places in the tags of strips.
        let tiles = directory.side(322).zip(directory.side(323));
        let (name, (width, height)) = match tiles {
            _ if matches!(compression, Compression::OldJpeg { .. }) => ("JPEG stream", (picture_width, picture_height)),
            Some(sides) => ("tile", sides),
            None => ("strip", (picture_width, directory.side(278).unwrap_or(u32::MAX).min(picture_height))),
        };
        let either = |tile, strip| directory.field(tile).filter(|_| tiles.is_some()).or(directory.field(strip));
        let offsets = either(324, 273).with_context(|| format!("the places of its {name}s are missing"))?;
        let (across, down) = (picture_width.div_ceil(width) as usize, picture_height.div_ceil(height) as usize);
        // Hostile files have tiles by which a small picture would take much memory.
        let pixels = |width: u32, height: u32| u64::from(width) * u64::from(height);
        let (one, picture) = (pixels(width, height), pixels(picture_width, picture_height));
        ensure!(
            one <= (picture.saturating_mul(4)).max(1 << 22),
            "a {name} of {width}x{height} pixels is too large for the picture"
        );
        let needed = (across as u64 * down as u64).saturating_mul(planes as u64);
        let found = offsets.len() as u64;
        // libtiff passes over those that are too many; here not where that would leave open which ones they are.
        let too_many = found > needed && planes == 1 && compression != Compression::None;
        ensure!(found == needed || too_many, "there are {found} {name}s instead of {needed}");
        let fax = matches!(compression, Compression::Fax { .. });
        ensure!(!fax || samples.bytes(8) * per_pixel as u64 == 1, "CCITT of more than one bit is not decoded");
        ensure!(
            !compression.is_jpeg() || matches!(per_pixel, 1 | 3 | 4),
            "JPEG compression of {per_pixel} samples per pixel is not decoded"
        );
        let predictor = directory.integer(317).filter(|_| compression.has_predictor()).unwrap_or(1);
        samples.ensure_predictor(predictor)?;
        let row_bytes = samples.bytes(u64::from(width) * per_pixel as u64);
        let bytes = row_bytes.saturating_mul(height.into());
        // As in libtiff and Pillow.
        ensure!(bytes <= i32::MAX as u64, "{name}s of more than 2 GiB are not decoded");
        Ok(Self {
            width,
            height,
            across,
            planes,
            per_pixel,
            row_bytes: row_bytes as usize,
            name,
            down,
            bytes: directory.bytes,
            offsets,
            sizes: either(325, 279),
            compression,
            // libtiff leaves JPEG streams as they are.
            reversed: directory.integer(266) == Some(2) && !compression.is_jpeg(),
            predictor,
            samples,
            subsampling,
        })
    }

    /// Bytes that [`Self::band`] takes, and what it needs for its work.
    pub fn memory(&self) -> u64 {
        let one = self.row_bytes as u64 * u64::from(self.height);
        let all = one.saturating_mul(self.across as u64 * self.planes as u64);
        match self.compression {
            Compression::None if !self.reversed && self.subsampling == (1, 1) => 0,
            // Coefficients of 16 bits, and a buffer that grows.
            Compression::Jpeg { .. } | Compression::OldJpeg { .. } => all.saturating_add(4 * one),
            Compression::Lzma | Compression::Zstd => all.saturating_add(one + Compression::LARGEST_WINDOW),
            _ => all.saturating_add(one),
        }
    }

    /// The strips or tiles that lie side by side, as rows of samples, for the first `planes` one by one. Of the
    /// lowest, only some `rows` belong to the picture. What is wrong with them, and was passed over, is added to
    /// `warnings`.
    ///
    /// # Errors
    /// If one is missing, damaged or cut short.
    pub fn band(
        &self,
        band: usize,
        rows: u32,
        planes: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Cow<'a, [u8]>>> {
        let indices = (0..planes).flat_map(|plane| {
            let first = (plane * self.down + band) * self.across;
            first..first + self.across
        });
        indices
            .map(|index| self.block(index, rows, warnings).with_context(|| format!("{} {index}", self.name)))
            .collect()
    }

    fn block(&self, index: usize, rows: u32, warnings: &mut Vec<String>) -> Result<Cow<'a, [u8]>> {
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
            rows = spread(&rows, self.subsampling, self.width as usize, size).into();
        }
        Ok(rows)
    }

    /// What lies in the file; `size` is the number of bytes if it is not compressed.
    fn stored(&self, index: usize, size: usize) -> Result<&'a [u8]> {
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
            length => usize::try_from(length.context("its size is missing")?)?,
        };
        rest.get(..length).context(CUT_SHORT)
    }
}

/// Gives each pixel the Cb and Cr of its group: the samples of a group lie together, each Y and then Cb and Cr.
fn spread(groups: &[u8], (across, down): (u32, u32), width: usize, size: usize) -> Vec<u8> {
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
