//! From samples of 8 bits to RGB: the tag PhotometricInterpretation.

use super::compression::Compression;
use super::directory::Directory;
use super::lab;
use crate::error::{Context, Reason, Result, bail, ensure};
use crate::input::decode::colour::cmyk_to_rgb;

/// The kind of colours that the samples of a pixel are.
pub(super) enum Colour {
    /// One sample.
    Grey {
        /// 0 is white, and the largest number black.
        white_is_zero: bool,
    },
    /// Red, green and blue.
    Rgb,
    /// One sample, which is an index of these colours, RGB.
    Palette(Box<[[u8; 3]; 256]>),
    /// Cyan, magenta, yellow and black ink.
    Cmyk,
    /// Brightness and two differences of colour, with the tables that convert them.
    YCbCr(Box<YCbCr>),
    /// CIE L*a*b*, with the table that converts it.
    Lab(lab::Table),
}

impl Colour {
    /// Reads the kind of colours from the directory, and the palette or coefficients that belong to it.
    ///
    /// # Errors
    /// If this kind is not decoded, or what belongs to it is missing or damaged.
    pub(super) fn of(
        directory: &Directory,
        compression: Compression,
        per_pixel: usize,
        subsampling: (u32, u32),
    ) -> Result<Self, Reason> {
        Ok(match photometric(directory, compression) {
            // With floating-point numbers, Pillow does not invert.
            0 => Self::Grey { white_is_zero: directory.integer(339) != Some(3) },
            1 => Self::Grey { white_is_zero: false },
            2 => Self::Rgb,
            3 => Self::Palette(palette(directory)?),
            5 => Self::Cmyk,
            6 if per_pixel == 1 => Self::Grey { white_is_zero: false },
            6 if matches!(compression, Compression::Jpeg { to_rgb: true, .. }) => Self::Rgb,
            6 if compression == Compression::None && subsampling == (1, 1) => Self::YCbCr(YCbCr::by_pillow()),
            6 => Self::YCbCr(YCbCr::by_libtiff(directory)?),
            8 => Self::Lab(lab::Table::new()),
            other => {
                let name = match other {
                    4 => "a transparency mask",
                    9 => "ICC Lab",
                    10 => "ITU Lab",
                    32803 => "a colour filter array (a camera's raw data)",
                    32844 => "LogL",
                    32845 => "LogLuv",
                    34892 => "linear raw data of a camera",
                    51177 => "a depth map",
                    _ => "unknown",
                };
                bail!("a picture whose photometric interpretation is {name} ({other}) is not decoded")
            }
        })
    }

    /// Samples per pixel without alpha.
    pub(super) fn channels(&self) -> usize {
        match self {
            Self::Grey { .. } | Self::Palette(_) => 1,
            Self::Rgb | Self::YCbCr(_) | Self::Lab(_) => 3,
            Self::Cmyk => 4,
        }
    }

    /// Divides by alpha, the last sample, as Pillow's `unpackRGBa` and, for grey, `la2lA`.
    pub(super) fn undo_premultiplication(&self, pixel: &mut [u8]) {
        let Some((alpha, values)) = pixel.split_last_mut() else { return };
        for value in values {
            match (u32::from(*value) * 255).checked_div(u32::from(*alpha)) {
                Some(quotient) => *value = quotient.min(255) as u8,
                None if matches!(self, Self::Rgb) => *value = 0,
                None => {}
            }
        }
    }

    /// Appends the colours of a row to `rgb`. Each pixel has `channels` samples.
    pub(super) fn to_rgb(&self, row: &[u8], channels: usize, rgb: &mut Vec<u8>) {
        // Neighbours are often of one colour, and this kind takes so long to convert that it pays to look.
        let slow = matches!(self, Self::Lab(_));
        let mut last: (&[u8], [u8; 3]) = (&[], [0; 3]);
        for pixel in row.chunks(channels) {
            if !slow || pixel != last.0 {
                last = (pixel, self.rgb(pixel));
            }
            rgb.extend(last.1);
        }
    }

    /// The colour of one pixel, from its channels and what follows them.
    fn rgb(&self, samples: &[u8]) -> [u8; 3] {
        match (self, samples) {
            (Self::Grey { white_is_zero }, [grey, ..]) => [if *white_is_zero { 255 - grey } else { *grey }; 3],
            (Self::Palette(palette), [index, ..]) => palette[usize::from(*index)],
            (Self::Rgb, &[red, green, blue, ..]) => [red, green, blue],
            (Self::Cmyk, &[cyan, magenta, yellow, black, ..]) => cmyk_to_rgb([cyan, magenta, yellow, black]),
            (Self::YCbCr(tables), &[y, cb, cr, ..]) => tables.rgb(y, cb, cr),
            (Self::Lab(table), &[lightness, a, b, ..]) => table.rgb(lightness, a, b),
            _ => unreachable!("there are as many samples as channels"),
        }
    }
}

/// The tag PhotometricInterpretation. As in Pillow, white is 0 where it is missing, and old-style JPEG is YCbCr.
fn photometric(directory: &Directory, compression: Compression) -> u64 {
    match compression {
        Compression::OldJpeg { .. } => 6,
        _ => directory.integer(262).unwrap_or(0),
    }
}

/// Pixels per sample of Cb and Cr, across and down, in decompressed data: the tag YCbCrSubSampling.
///
/// # Errors
/// If they are other than 1, 2 or 4.
pub(super) fn subsampling(
    directory: &Directory,
    compression: Compression,
    per_pixel: usize,
) -> Result<(u32, u32), Reason> {
    let field = directory.field(530);
    let none = match compression {
        // The tag is often missing, and Pillow does not know it.
        Compression::None => field.is_none(),
        // libjpeg makes all samples.
        Compression::Jpeg { to_rgb: true, .. } | Compression::OldJpeg { .. } => true,
        _ => false,
    };
    if none || per_pixel == 1 || photometric(directory, compression) != 6 {
        return Ok((1, 1));
    }
    match field.map_or(Some((2, 2)), |field| field.integer(0).zip(field.integer(1))) {
        Some((across @ (1 | 2 | 4), down @ (1 | 2 | 4))) => Ok((across as u32, down as u32)),
        _ => bail!("this subsampling of YCbCr is not decoded"),
    }
}

/// The palette, RGB. The tag ColorMap has all reds, then all greens, then all blues, 16 bits each. As in Pillow,
/// indices beyond its end are black.
fn palette(directory: &Directory) -> Result<Box<[[u8; 3]; 256]>, Reason> {
    let map = directory.field(320).context("the palette is missing")?;
    let colours = map.len() / 3;
    ensure!(colours <= 256, "a palette of {colours} colours is not decoded");
    let mut palette = Box::new([[0; 3]; 256]);
    for (index, colour) in palette.iter_mut().take(colours).enumerate() {
        let part = |plane| map.integer(plane * colours + index).map(|value| (value >> 8) as u8);
        *colour = [part(0), part(1), part(2)].map(Option::unwrap_or_default);
    }
    Ok(palette)
}

/// Tables that convert YCbCr to RGB.
pub(super) struct YCbCr {
    /// What Y adds to each of the three.
    y: [i32; 256],
    /// What Cr adds to red.
    red: [i32; 256],
    /// What Cb adds to blue.
    blue: [i32; 256],
    /// What Cb and Cr add to green, times 65536.
    green: [[i32; 256]; 2],
}

impl YCbCr {
    /// The tables of Pillow's `ImagingConvertYCbCr2RGB`, which ignores the file's coefficients: for files that it reads
    /// without libtiff.
    fn by_pillow() -> Box<Self> {
        // Pillow's tables have 6 fractional bits.
        let table = |factor: f64| std::array::from_fn(|index| (factor * (index as f64 - 128.0) * 64.0 + 0.5) as i32);
        let whole = |factor: f64| table(factor).map(|value: i32| value >> 6);
        let green = [-0.34414, -0.71414].map(|factor| table(factor).map(|value| value << 10));
        Box::new(Self { y: std::array::from_fn(|index| index as i32), red: whole(1.402), blue: whole(1.772), green })
    }

    /// The tables of libtiff's `TIFFYCbCrToRGBInit`, by the tags YCbCrCoefficients and ReferenceBlackWhite.
    fn by_libtiff(directory: &Directory) -> Result<Box<Self>, Reason> {
        let [luma_red, luma_green, luma_blue] = directory.reals(529).unwrap_or([0.299, 0.587, 0.114]);
        ensure!(luma_green != 0.0, "the coefficients of YCbCr are damaged");
        let [y_black, y_white, cb_black, cb_white, cr_black, cr_white] =
            directory.reals(532).unwrap_or([0.0, 255.0, 128.0, 255.0, 128.0, 255.0]);
        let fixed = |factor: f32| (f64::from(factor.clamp(0.0, 2.0)) * 65536.0 + 0.5) as i32;
        let (red, blue) = (2.0 - 2.0 * luma_red, 2.0 - 2.0 * luma_blue);
        let code = |value: i32, black: f32, white: f32, range: f32| {
            let span = if white == black { 1.0 } else { white - black };
            let value = value.wrapping_sub(black as i32) as f32 * range / span;
            value.clamp(-128.0 * 32.0, 128.0 * 32.0) as i32
        };
        let chroma =
            |index: usize, black: f32, white: f32| code(index as i32 - 128, black - 128.0, white - 128.0, 127.0);
        let cb = |index| chroma(index, cb_black, cb_white);
        let cr = |index| chroma(index, cr_black, cr_white);
        Ok(Box::new(Self {
            y: std::array::from_fn(|index| code(index as i32, y_black, y_white, 255.0)),
            red: std::array::from_fn(|index| (fixed(red) * cr(index) + 32768) >> 16),
            blue: std::array::from_fn(|index| (fixed(blue) * cb(index) + 32768) >> 16),
            green: [
                std::array::from_fn(|index| 32768 - fixed(luma_blue * blue / luma_green) * cb(index)),
                std::array::from_fn(|index| -fixed(luma_red * red / luma_green) * cr(index)),
            ],
        }))
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let [y, cb, cr] = [y, cb, cr].map(usize::from);
        let green = (self.green[0][cb] + self.green[1][cr]) >> 16;
        [self.red[cr], green, self.blue[cb]].map(|part| (self.y[y] + part).clamp(0, 255) as u8)
    }
}
