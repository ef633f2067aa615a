//! The depthwise 3x3 convolution of one row of pixels.
//!
//! Its input is three rows of the block's hidden activation, which the caller keeps in a ring. A row
//! of outputs is made four pixels at a time: for each vector of channels and each filter, the 3 x 6
//! inputs under them (3 x 9 with stride 2) and the nine weights are loaded once, for 36
//! multiply-adds. A second filter finds the inputs in the first-level cache.

use super::buffer::Buffer;
use super::vector::{Vector, for_each_vector};

/// Depthwise filters for `channels` channels, a multiple of the vector's lanes.
#[derive(Clone, Debug)]
pub struct Filters {
    /// `[filters, 9, channels]`
    pub weight: Buffer,
    /// `[filters, channels]`
    pub bias: Buffer,
    pub filters: usize,
    pub channels: usize,
    pub stride: usize,
}

/// A row of outputs: from the rows above, at and below its centre (`None` outside the image), each
/// `width` pixels of `pixel` values, to `out`, `ceil(width / stride)` pixels of `out_pixel` values,
/// filter by filter.
///
/// # Panics
/// If a slice is too short.
pub fn row(f: &Filters, rows: [Option<&[f32]>; 3], width: usize, pixel: usize, out: &mut [f32], out_pixel: usize) {
    assert!(width > 0 && pixel >= f.channels && out_pixel >= f.filters * f.channels);
    assert!(rows.iter().flatten().all(|row| row.len() >= (width - 1) * pixel + f.channels), "too short a row");
    assert!(out.len() >= (width.div_ceil(f.stride) - 1) * out_pixel + f.filters * f.channels, "too little room");
    // SAFETY: the assertions are what the kernel needs.
    unsafe { row_any(f, rows.map(|row| row.map(<[f32]>::as_ptr)), width, pixel, out.as_mut_ptr(), out_pixel) }
}

for_each_vector! {
    unsafe fn row_any(
        f: &Filters,
        rows: [Option<*const f32>; 3],
        width: usize,
        pixel: usize,
        out: *mut f32,
        out_pixel: usize,
    ) = row_with
}

/// Output pixels that are made together.
const PIXELS: usize = 4;

#[inline(always)]
unsafe fn row_with<V: Vector, const ROWS: usize>(
    f: &Filters,
    rows: [Option<*const f32>; 3],
    width: usize,
    pixel: usize,
    out: *mut f32,
    out_pixel: usize,
) {
    let outputs = width.div_ceil(f.stride);
    let mut x = 0;
    while x < outputs {
        // SAFETY: the caller vouches for the rows; `x` and its neighbours stay below `outputs`.
        unsafe {
            let out = out.add(x * out_pixel);
            // All inputs of these four pixels lie inside the row.
            let inside = x > 0 && (x + PIXELS - 1) * f.stride + 1 < width && x + PIXELS <= outputs;
            // Strides are given as literals, so that each has code of its own.
            x += match f.stride {
                1 if inside => {
                    pixels::<V, PIXELS>(f, 1, rows, x, None, pixel, out, out_pixel);
                    PIXELS
                }
                2 if inside => {
                    pixels::<V, PIXELS>(f, 2, rows, x, None, pixel, out, out_pixel);
                    PIXELS
                }
                stride => {
                    pixels::<V, 1>(f, stride, rows, x, Some(width), pixel, out, out_pixel);
                    1
                }
            };
        }
    }
}

/// `N` output pixels from `x` on. Inputs outside a row of the given width count as zero; without
/// one, all lie inside.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a convolution")]
unsafe fn pixels<V: Vector, const N: usize>(
    f: &Filters,
    stride: usize,
    rows: [Option<*const f32>; 3],
    x: usize,
    width: Option<usize>,
    pixel: usize,
    out: *mut f32,
    out_pixel: usize,
) {
    for channel in (0..f.channels).step_by(V::LANES) {
        for filter in 0..f.filters {
            // SAFETY: the caller vouches for the rows; the filters are whole by construction.
            unsafe {
                let weight = f.weight.as_slice().as_ptr().add(filter * 9 * f.channels + channel);
                let bias = f.bias.as_slice().as_ptr().add(filter * f.channels + channel);
                let mut sums = [V::load(bias); N];
                for (ky, row) in rows.into_iter().enumerate() {
                    let Some(row) = row else { continue };
                    for kx in 0..3 {
                        let weight = V::load(weight.add((ky * 3 + kx) * f.channels));
                        for (i, sum) in sums.iter_mut().enumerate() {
                            // One more than the column, which may be -1.
                            let column = (x + i) * stride + kx;
                            if width.is_none_or(|width| (1..=width).contains(&column)) {
                                *sum = V::load(row.add((column - 1) * pixel + channel)).mul_add(weight, *sum);
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
