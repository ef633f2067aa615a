//! The strips or tiles that a picture is stored in. Here a strip is a tile that is as wide as the picture.

use std::borrow::Cow;

use super::compression::{Compression, Shape, decompress};
use super::directory::{Directory, Field};
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
    compression: Compression<'a>,
    /// The bits of each byte are stored in reverse order (the tag FillOrder).
    reversed: bool,
    predictor: u64,
    samples: Samples,
    /// Pixels per sample of Cb and Cr, across and down.
    subsampling: (u32, u32),
}

impl<'a> Tiles<'a> {
    /// Finds the strips or tiles of a picture with `planes` planes of `per_pixel` samples per pixel.
    ///
    /// # Errors
    /// If some are missing, they are too large, or such samples cannot be compressed like this.
    pub(super) fn new(
        directory: &Directory<'a>,
        compression: Compression<'a>,
        samples: Samples,
        (per_pixel, planes): (usize, usize),
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
        ensure_size(name, (width, height), picture)?;
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
        let decoded = bytes.saturating_mul(needed);
        let sizes_needed = sizes.filter(|_| needed > 1).map(|sizes| (sizes, needed));
        ensure_once(name, compression, sizes_needed, directory.bytes.len() as u64, decoded)?;
        Ok(Self {
            width,
            height,
            across,
            down,
            planes,
            per_pixel,
            row_bytes: row_bytes as usize,
            name,
            bytes: directory.bytes,
            offsets,
            sizes,
            compression,
            // libtiff leaves JPEG streams as they are.
            reversed: directory.integer(266) == Some(2) && !compression.is_jpeg(),
            predictor,
            samples,
            subsampling,
        })
    }

    /// The number of bytes that [`Self::row`] returns, and those that it holds besides while it decompresses.
    pub(super) fn memory(&self) -> u64 {
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

    /// Decompresses the tiles that lie side by side in row `row` of the tiles, for each of the first `planes` planes.
    /// Only the upper `height` rows of pixels are decoded: of the lowest tiles the others lie below the picture.
    /// Faults in the file that did not stop the decoder are added to `warnings`.
    ///
    /// # Errors
    /// If one is missing, damaged or cut short.
    pub(super) fn row(
        &self,
        row: usize,
        height: u32,
        planes: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Cow<'a, [u8]>>, Reason> {
        let indices = (0..planes).flat_map(|plane| {
            let first = (plane * self.down + row) * self.across;
            first..first + self.across
        });
        indices
            .map(|index| self.tile(index, height, warnings).with_context(|| format!("{} {index}", self.name)))
            .collect()
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
            length => usize::try_from(length.context("its size is missing")?)?,
        };
        rest.get(..length).context(CUT_SHORT)
    }
}

/// Refuses tiles by which a small picture would take much memory.
fn ensure_size(name: &str, (width, height): (u32, u32), picture: (u32, u32)) -> Result<(), Reason> {
    let pixels = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    ensure!(
        pixels((width, height)) <= pixels(picture).saturating_mul(4).max(1 << 22),
        "a {name} of {width}x{height} pixels is too large for the picture"
    );
    Ok(())
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

/// Refuses tiles that lie in the same bytes so often that it would take for ever to read them all. Some may: those of
/// one colour, which are few bytes for many pixels.
fn ensure_once(
    name: &str,
    compression: Compression,
    sizes: Option<(Field, u64)>,
    file: u64,
    decoded: u64,
) -> Result<(), Reason> {
    let sizes = sizes.filter(|_| !matches!(compression, Compression::None | Compression::OldJpeg { .. }));
    let Some((sizes, needed)) = sizes else { return Ok(()) };
    let each = (0..sizes.len()).take(needed as usize).filter_map(|index| sizes.integer(index));
    let all = each.fold(0, u64::saturating_add);
    // Some writers say of each that it goes to the end of the file.
    let most = decoded.saturating_add(file.saturating_mul(64));
    ensure!(all <= most, "its {name}s have {all} bytes together, and the file has {file}");
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

#[cfg(test)]
mod tests {
    use crate::input::decode::{Options, decode};

    #[test]
    fn strips_that_are_the_same_bytes_are_not_read_again_and_again() {
        let file = include_bytes!("../../../../tests/fixtures/found/tiff/strips-in-the-same-bytes.tiff");
        let error = decode(file, "a.tiff".as_ref(), Options::default()).unwrap_err().to_string();
        assert!(error.contains("its strips have 1001000 bytes together, and the file has 6124"), "{error}");
    }
}
