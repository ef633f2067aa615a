//! From samples of any size to samples of 8 bits.

use super::colour::Colour;
use super::directory::{Directory, integer};
use crate::error::{Reason, Result, bail};

/// The tag SampleFormat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleFormat {
    /// Whole numbers from 0.
    Unsigned,
    /// Whole numbers, as two's complements.
    Signed,
    /// Floating-point numbers.
    Float,
}

impl SampleFormat {
    /// Reads the format of the first `samples` samples of a pixel.
    ///
    /// # Errors
    /// If they differ, or are complex numbers.
    pub(super) fn of(directory: &Directory, samples: usize) -> Result<Self, Reason> {
        Ok(match directory.same(339, samples)?.unwrap_or(1) {
            // 4 is "undefined", which says nothing.
            1 | 4 => Self::Unsigned,
            2 => Self::Signed,
            3 => Self::Float,
            5 | 6 => bail!("complex numbers as samples are not decoded"),
            other => bail!("samples of the unknown format {other} are not decoded"),
        })
    }
}

/// How samples are stored in a row, and how they become 8 bits.
#[derive(Clone, Copy)]
pub(super) struct Samples {
    bits: usize,
    format: SampleFormat,
    big_endian: bool,
    /// Makes 8 bits of the value of a sample and its number of bits.
    convert: fn(u64, usize) -> u8,
}

impl Samples {
    /// Chooses how samples of `bits` bits become 8 bits.
    ///
    /// # Errors
    /// If samples of this format do not occur with these colours, or are not decoded.
    pub(super) fn new(bits: u64, format: SampleFormat, big_endian: bool, colour: &Colour) -> Result<Self, Reason> {
        use Colour::{Cmyk, Grey, Lab, Palette, Rgb, YCbCr};
        use SampleFormat::{Float, Signed, Unsigned};
        let convert: fn(u64, usize) -> u8 = match (format, bits, colour) {
            (Unsigned, 8, _) | (Unsigned, 1..8, Palette(_)) | (Signed, 8, Grey { .. }) => |value, _| value as u8,
            (Unsigned, 1..8, Grey { .. } | Rgb | Cmyk) => |value, bits| {
                let most = (1 << bits) - 1;
                ((value * 255 + most / 2) / most) as u8
            },
            // Pillow clips grey of 9 to 16 bits instead, which makes nearly all of it white.
            (Unsigned, 9..=16, Grey { .. }) | (Unsigned, 9..=32, Rgb | Cmyk) | (Unsigned, 16, Lab(_)) => {
                |value, bits| (value >> (bits - 8)) as u8
            }
            // As Pillow: such numbers are measurements, which have no largest value to scale by.
            (Unsigned, 17..=32, Grey { .. }) | (Signed, 32, Grey { .. }) => |value, _| clip(value as i32),
            (Signed, 16, Grey { .. }) => |value, _| clip((value as i16).into()),
            // `as` clips, and truncates as C does.
            (Float, 32, Grey { .. }) => |value, _| f32::from_bits(value as u32) as u8,
            (Float, 64, Grey { .. }) => |value, _| f64::from_bits(value) as u8,
            (Float, 32, Rgb) => |value, _| (f32::from_bits(value as u32) * 255.0).round() as u8,
            (Float, 64, Rgb) => |value, _| (f64::from_bits(value) * 255.0).round() as u8,
            _ => {
                let format = match format {
                    Unsigned => "unsigned",
                    Signed => "signed",
                    Float => "floating-point",
                };
                let colour = match colour {
                    Grey { .. } => "grey",
                    Rgb => "RGB",
                    Palette(_) => "palette",
                    Cmyk => "CMYK",
                    YCbCr(_) => "YCbCr",
                    Lab(_) => "Lab",
                };
                bail!("{format} {colour} samples of {bits} bits are not decoded")
            }
        };
        Ok(Self { bits: bits as usize, format, big_endian, convert })
    }

    /// Converts the first `channels` of the `per_pixel` samples of each pixel to 8 bits. The pixels in `out` are
    /// `stride` bytes apart, and as many are converted as fit.
    pub(super) fn convert(&self, row: &[u8], per_pixel: usize, channels: usize, out: &mut [u8], stride: usize) {
        for (index, pixel) in out.chunks_mut(stride).enumerate() {
            for (channel, value) in pixel.iter_mut().take(channels).enumerate() {
                *value = self.value(row, index * per_pixel + channel);
            }
        }
    }

    /// The sample with this index, in 8 bits.
    fn value(&self, row: &[u8], index: usize) -> u8 {
        if self.bits == 8 {
            return row[index];
        }
        let bits = index * self.bits..(index + 1) * self.bits;
        let value = if self.bits.is_multiple_of(8) {
            integer(&row[bits.start / 8..bits.end / 8], self.big_endian)
        } else {
            // 32 bits at most, which lie in 5 bytes.
            let end = bits.end.div_ceil(8);
            let value = integer(&row[bits.start / 8..end], true) >> (8 * end - bits.end);
            value & ((1u64 << self.bits) - 1)
        };
        (self.convert)(value, self.bits)
    }

    /// Bytes of a row of this many samples.
    pub(super) fn bytes(&self, samples: u64) -> u64 {
        (samples * self.bits as u64).div_ceil(8)
    }

    /// Checks the tag Predictor.
    ///
    /// # Errors
    /// If the predictor is not known, or not defined for such samples.
    pub(super) fn ensure_predictor(&self, predictor: u64) -> Result<(), Reason> {
        match predictor {
            1 => Ok(()),
            2 if [8, 16, 32, 64].contains(&self.bits) => Ok(()),
            3 if self.format == SampleFormat::Float => Ok(()),
            _ => bail!("predictor {predictor} with samples of {} bits is not decoded", self.bits),
        }
    }

    /// Undoes the prediction that the tag Predictor names, row by row. With 2, a sample is stored as its difference to
    /// the one `stride` samples before; with 3, bytes are (Adobe's TIFF Technical Note 3).
    pub(super) fn undo_predictor(&self, predictor: u64, data: &mut [u8], row_bytes: usize, stride: usize) {
        let rows = data.chunks_exact_mut(row_bytes);
        let width = self.bits / 8;
        match predictor {
            2 => rows.for_each(|row| add_previous(row, width, stride, self.big_endian)),
            3 => {
                for row in rows {
                    add_previous(row, 1, stride, true);
                    // Now the row has the highest bytes of all samples, then the next ones, and so on.
                    let planes = row.to_vec();
                    for (index, sample) in row.chunks_exact_mut(width).enumerate() {
                        for (byte, plane) in planes.chunks_exact(planes.len() / width).enumerate() {
                            sample[if self.big_endian { byte } else { width - 1 - byte }] = plane[index];
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// Adds to each sample, of `width` bytes, the one that is `stride` samples before.
fn add_previous(row: &mut [u8], width: usize, stride: usize, big_endian: bool) {
    let back = stride * width;
    for start in (back..row.len()).step_by(width) {
        let mut carry = 0;
        for byte in 0..width {
            let at = start + if big_endian { width - 1 - byte } else { byte };
            let sum = u16::from(row[at]) + u16::from(row[at - back]) + carry;
            row[at] = sum as u8;
            carry = sum >> 8;
        }
    }
}

fn clip(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_summed_with_carry() {
        // 0x00ff, then 1 more, then 1 less; two samples per pixel.
        let mut row = [0x00, 0xff, 0, 0, 0x00, 0x01, 0, 7, 0xff, 0xff, 0, 0];
        let mut swapped: Vec<u8> = row.as_chunks::<2>().0.iter().flat_map(|[a, b]| [*b, *a]).collect();
        add_previous(&mut row, 2, 2, true);
        assert_eq!(row, [0x00, 0xff, 0, 0, 0x01, 0x00, 0, 7, 0x00, 0xff, 0, 7]);
        add_previous(&mut swapped, 2, 2, false);
        swapped.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
        assert_eq!(swapped, row);
    }

    #[test]
    fn few_bits_are_scaled_and_many_cut() {
        let grey = Colour::Grey { white_is_zero: false };
        let convert = |bits, row: &[u8]| {
            let mut out = [0; 2];
            Samples::new(bits, SampleFormat::Unsigned, true, &grey).unwrap().convert(row, 1, 1, &mut out, 1);
            out
        };
        assert_eq!(convert(1, &[0b0100_0000]), [0, 255]);
        assert_eq!(convert(2, &[0b0110_0000]), [85, 170]);
        assert_eq!(convert(3, &[0b0011_1100]), [36, 255]);
        assert_eq!(convert(10, &[0xff, 0x40, 0x10]), [255, 0]);
        assert_eq!(convert(12, &[0xab, 0xc1, 0x23]), [0xab, 0x12]);
        assert_eq!(convert(31, &((7_u64 << 31 | 200) << 2).to_be_bytes()), [7, 200]);
        assert_eq!(convert(31, &((1_u64 << 61 | 1) << 2).to_be_bytes()), [255, 1]);
        assert_eq!(convert(16, &[0xab, 0xcd, 0x12, 0x34]), [0xab, 0x12]);
        assert_eq!(convert(32, &[0, 0, 1, 0, 0, 0, 0, 7]), [255, 7]);
    }
}
