//! The depthwise 3x3 convolution of one row of pixels.
//!
//! Its input is three rows of the block's hidden activation, which the caller keeps in a ring. A row
//! of outputs is made four pixels at a time: for each vector of channels and each filter, the 3 x 6
//! inputs under them (3 x 9 with stride 2) and the nine weights are loaded once, for 36
//! multiply-adds. A second filter finds the inputs in the first-level cache.

use std::io::{self, Write};
use std::ops::Range;

use super::buffer::Buffer;
#[cfg(all(test, target_os = "linux"))]
use super::edges::guarded::Edge;
use super::extent;
use super::packed::{Packed, Sections};
use super::vector::{Vector, for_each_vector, lanes};

/// Depthwise filters, for a number of channels that is a multiple of the vector's lanes.
#[derive(Clone, Debug)]
pub struct Filters {
    /// `[filters, 9, channels]`
    weight: Packed,
    /// `[filters, channels]`
    bias: Packed,
    /// Filters of each channel.
    filters: usize,
    channels: usize,
    stride: usize,
}

impl Filters {
    /// From PyTorch's weight `[channels * filters, 1, 3, 3]` and bias `[channels * filters]`, in which output
    /// `filters * c + k` is filter `k` of channel `c`. Channels that are zero fill up the last vector.
    ///
    /// # Panics
    /// If `filters` or `stride` is zero, or weight and bias do not have these lengths.
    pub fn new(weight: &[f32], bias: &[f32], filters: usize, stride: usize) -> Self {
        assert!(filters > 0 && stride > 0, "depthwise filters need a filter and a stride");
        assert!(bias.len().is_multiple_of(filters), "{} biases are no multiple of {filters}", bias.len());
        let (taps, rest) = weight.as_chunks::<9>();
        assert!(taps.len() == bias.len() && rest.is_empty(), "depthwise filters need nine weights for every bias");
        let channels = (bias.len() / filters).next_multiple_of(lanes());
        let mut packed = Buffer::zeros::<f32>(filters * 9 * channels);
        let mut packed_bias = Buffer::zeros::<f32>(filters * channels);
        let (weight, biases) = (packed.as_mut_slice(), packed_bias.as_mut_slice());
        for (row, (taps, bias)) in taps.iter().zip(bias).enumerate() {
            let (channel, filter) = (row / filters, row % filters);
            biases[filter * channels + channel] = *bias;
            for (tap, value) in taps.iter().enumerate() {
                weight[(filter * 9 + tap) * channels + channel] = *value;
            }
        }
        Self { weight: packed.into(), bias: packed_bias.into(), filters, channels, stride }
    }

    /// [`Self::new`] with what [`Self::write`] has written of as many filters for as many `channels`, if there is so
    /// much. No network has another stride than 1 or 2.
    pub fn restore(channels: usize, filters: usize, stride: usize, sections: &mut Sections) -> Option<Self> {
        if filters == 0 || !(1..=2).contains(&stride) {
            return None;
        }
        let channels = channels.checked_next_multiple_of(lanes())?;
        let outputs = filters.checked_mul(channels)?;
        let (weight, bias) = (sections.take::<f32>(outputs.checked_mul(9)?)?, sections.take::<f32>(outputs)?);
        Some(Self { weight, bias, filters, channels, stride })
    }

    /// Writes the filters as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.weight.write(out)?;
        self.bias.write(out)
    }

    /// A copy at the edges of forbidden pages.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn guarded(&self, edge: Edge) -> Self {
        Self { weight: self.weight.guarded(edge), bias: self.bias.guarded(edge), ..self.clone() }
    }
}

/// Three rows of inputs: above, at and below the centre of a row of outputs, `None` outside the image. Each has
/// `width` pixels that begin `pixel` values apart.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    pub rows: [Option<&'a [f32]>; 3],
    pub width: usize,
    pub pixel: usize,
}

/// The pixels `part` of a row of `ceil(width / stride)` outputs, to `out`, where they begin `out_pixel` values apart,
/// filter by filter.
///
/// # Panics
/// If a slice is too short, a pixel has not as many values as the filters read or write, or the row has no such
/// part.
pub fn row(f: &Filters, x: Around, part: Range<usize>, out: &mut [f32], out_pixel: usize) {
    let outputs = f.filters * f.channels;
    assert!(out_pixel >= outputs, "pixels of too few values");
    assert!(out.len() >= extent(part.len(), out_pixel, outputs), "too little room");
    // SAFETY: the assertions are what it asks for.
    unsafe { row_of(f, x, part, 0..f.channels, out.as_mut_ptr(), out_pixel) }
}

/// [`row`] of some channels only. The inputs have these, and the outputs all channels.
///
/// # Safety
/// `out` must have a pixel of `f.filters * f.channels` values for each of `part`, `out_pixel` values apart; in each,
/// those of the channels must be such that may be written.
///
/// # Panics
/// If the inputs are too short, the row has no such part, or the channels are no whole vectors of the filters'.
pub unsafe fn row_of(
    f: &Filters,
    x: Around,
    part: Range<usize>,
    channels: Range<usize>,
    out: *mut f32,
    out_pixel: usize,
) {
    assert!(x.pixel >= channels.len(), "pixels of too few values");
    let needed = extent(x.width, x.pixel, channels.len());
    assert!(x.rows.iter().flatten().all(|row| row.len() >= needed), "too short a row");
    assert!(part.end <= x.width.div_ceil(f.stride), "a part of no row");
    let whole = [channels.start, channels.end].iter().all(|channel| channel.is_multiple_of(lanes()));
    assert!(whole && channels.end <= f.channels, "other channels than the filters have");
    // SAFETY: the assertions are what the kernel asks for, and the caller vouches for the output.
    unsafe { row_any(f, x, part, channels, out, out_pixel) }
}

for_each_vector! {
    /// [`row_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`row_with`].
    unsafe fn row_any(
        f: &Filters,
        x: Around<'_>,
        part: Range<usize>,
        channels: Range<usize>,
        out: *mut f32,
        out_pixel: usize,
    ) = row_with
}

/// Output pixels that are made together.
const PIXELS: usize = 4;

/// [`row_of`], whatever the rows per register tile.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `V`, and `V` must have [`lanes`]
/// lanes. The rows of `x` must have its pixels, each of the values of `channels`; `part` must end at
/// `ceil(x.width / stride)` at most; `channels` must be whole vectors of those of `f`; for `out` see [`row_of`].
#[inline(always)]
unsafe fn row_with<V: Vector, const ROWS: usize>(
    f: &Filters,
    x: Around,
    part: Range<usize>,
    channels: Range<usize>,
    out: *mut f32,
    out_pixel: usize,
) {
    let (mut at, width) = (part.start, x.width);
    while at < part.end {
        // SAFETY: `at` and the pixels that are made with it stay in `part`, and for these the caller
        // vouches. Without a width, all inputs lie inside the rows: that is what `inside` says.
        unsafe {
            let out = out.add((at - part.start) * out_pixel);
            // All inputs of these four pixels lie inside the row.
            let inside = at > 0 && (at + PIXELS - 1) * f.stride + 1 < width && at + PIXELS <= part.end;
            // Strides are given as literals, so that each has code of its own.
            at += match f.stride {
                1 if inside => {
                    pixels::<V, PIXELS>(f, 1, x, at, None, channels.clone(), out, out_pixel);
                    PIXELS
                }
                2 if inside => {
                    pixels::<V, PIXELS>(f, 2, x, at, None, channels.clone(), out, out_pixel);
                    PIXELS
                }
                stride => {
                    pixels::<V, 1>(f, stride, x, at, Some(width), channels.clone(), out, out_pixel);
                    1
                }
            };
        }
    }
}

/// `N` output pixels from `at` on. Inputs outside a row of the given width count as zero; without one, all lie
/// inside.
///
/// # Safety
/// As [`row_with`], for the inputs under these pixels; `out` is the first of them. Without a width, the columns
/// from `at * stride - 1` to `(at + N - 1) * stride + 1` must lie inside the rows.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a convolution")]
unsafe fn pixels<V: Vector, const N: usize>(
    f: &Filters,
    stride: usize,
    x: Around,
    at: usize,
    width: Option<usize>,
    channels: Range<usize>,
    out: *mut f32,
    out_pixel: usize,
) {
    let (weights, biases): (&[f32], &[f32]) = (f.weight.as_slice(), f.bias.as_slice());
    for channel in channels.clone().step_by(V::LANES) {
        for filter in 0..f.filters {
            // SAFETY: `Filters::new` makes whole vectors of channels for each filter and tap, and nothing changes
            // them. Columns outside a row are left out if there is a width; otherwise the caller vouches for
            // them, as it does for the output.
            unsafe {
                let weight = weights.as_ptr().add(filter * 9 * f.channels + channel);
                let bias = biases.as_ptr().add(filter * f.channels + channel);
                let mut sums = [V::load(bias); N];
                for (ky, row) in x.rows.into_iter().enumerate() {
                    let Some(row) = row else { continue };
                    let row = row.as_ptr().add(channel - channels.start);
                    for kx in 0..3 {
                        let weight = V::load(weight.add((ky * 3 + kx) * f.channels));
                        for (i, sum) in sums.iter_mut().enumerate() {
                            // One more than the column, which may be -1.
                            let column = (at + i) * stride + kx;
                            if width.is_none_or(|width| (1..=width).contains(&column)) {
                                *sum = V::load(row.add((column - 1) * x.pixel)).mul_add(weight, *sum);
                            }
                        }
                    }
                }
                for (i, sum) in sums.into_iter().enumerate() {
                    sum.store(out.add(i * out_pixel + filter * f.channels + channel));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::panic_of;
    use super::*;
    use crate::random::tests::{test_stream, uniform};

    /// The same with loops; `rows` are whole, `[width, channels]`, in PyTorch's order of outputs.
    fn plain(weight: &[f32], bias: &[f32], filters: usize, stride: usize, rows: &[Option<Vec<f32>>; 3]) -> Vec<f32> {
        let channels = bias.len() / filters;
        let width = rows.iter().flatten().next().unwrap().len() / channels;
        let mut out = Vec::new();
        for x in 0..width.div_ceil(stride) {
            for (output, bias) in bias.iter().enumerate() {
                let mut sum = *bias;
                for (ky, row) in rows.iter().enumerate() {
                    let Some(row) = row else { continue };
                    for kx in 0..3 {
                        let column = x * stride + kx;
                        if (1..=width).contains(&column) {
                            sum += weight[output * 9 + ky * 3 + kx] * row[(column - 1) * channels + output / filters];
                        }
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    #[test]
    fn rows_are_those_of_plain_loops() {
        let rng = &mut test_stream(1);
        for (channels, filters, stride, width) in
            [(16, 2, 1, 9), (16, 1, 2, 9), (21, 2, 2, 14), (5, 3, 1, 1), (16, 1, 3, 7)]
        {
            let weight = uniform(channels * filters * 9, -1.0..1.0, rng);
            let bias = uniform(channels * filters, -1.0..1.0, rng);
            let rows = [Some(0), None, Some(1)].map(|row| row.map(|_| uniform(width * channels, -1.0..1.0, rng)));
            let expected = plain(&weight, &bias, filters, stride, &rows);

            let packed = Filters::new(&weight, &bias, filters, stride);
            let (pixel, out_pixel) = (packed.channels + 3, filters * packed.channels + 1);
            let spread = rows.map(|row| {
                row.map(|row| {
                    let mut spread = vec![0.0; width * pixel];
                    for (to, from) in spread.chunks_exact_mut(pixel).zip(row.chunks_exact(channels)) {
                        to[..channels].copy_from_slice(from);
                    }
                    spread
                })
            });
            let mut out = vec![f32::NAN; width.div_ceil(stride) * out_pixel];
            // In two parts, as which they are the same.
            let spread = spread.each_ref().map(|row| row.as_deref());
            let (outputs, first) = (width.div_ceil(stride), width.div_ceil(stride) / 2);
            let (left, right) = out.split_at_mut(first * out_pixel);
            for (part, out) in [(0..first, left), (first..outputs, right)] {
                if !part.is_empty() {
                    row(&packed, Around { rows: spread, width, pixel }, part, out, out_pixel);
                }
            }
            for (x, pixel) in out.chunks_exact(out_pixel).enumerate() {
                for output in 0..channels * filters {
                    let found = pixel[output % filters * packed.channels + output / filters];
                    let wanted = expected[x * channels * filters + output];
                    assert!((found - wanted).abs() < 1e-5, "{channels}x{filters}, stride {stride}: {found} {wanted}");
                }
            }
        }
    }

    #[test]
    fn filters_of_other_sizes_are_refused() {
        for (weight, bias, filters, stride) in
            [(9 * 8 - 1, 8, 1, 1), (9 * 8 + 9, 8, 1, 1), (9 * 8, 8, 3, 1), (9 * 8, 8, 0, 1), (9 * 8, 8, 1, 0)]
        {
            let message = panic_of(|| drop(Filters::new(&vec![0.0; weight], &vec![0.0; bias], filters, stride)));
            assert!(message.contains("filters") || message.contains("multiple"), "{message}");
        }
    }

    #[test]
    fn short_rows_are_refused() {
        let filters = Filters::new(&[1.0; 9 * 16], &[1.0; 16], 1, 1);
        let input = vec![1.0; 5 * 16];
        let check = |words: &str, width, pixel, len, out_len| {
            let mut out = vec![7.0; 5 * 16];
            let message = panic_of(|| {
                let x = Around { rows: [None, Some(&input[..len]), None], width, pixel };
                row(&filters, x, 0..width, &mut out[..out_len], 16);
            });
            assert_eq!(message, words);
            assert!(out.iter().all(|value| *value == 7.0), "{words}: something was written");
        };
        check("too short a row", 5, 16, 79, 80);
        check("too little room", 5, 16, 80, 79);
        check("pixels of too few values", 5, 15, 80, 80);
        check("at least one row", 0, 16, 80, 80);
        check("a matrix larger than the memory", usize::MAX / 16 + 2, 16, 80, 80);
    }
}
