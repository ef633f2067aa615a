//! The two passes of a resize, over several rows at a time.

use std::ops::Range;

use super::taps::{PRECISION, Taps};
use crate::simd::vectorised;

/// Rows that [`horizontal_pass`] makes together. They share the weights: the pixels of one column, each with a fourth
/// channel that is thrown away, are one long vector.
pub(super) const ROWS: usize = 16;

/// Added to a sum of weighted values, it makes [`to_u8`] round to the nearest.
const HALF: i32 = 1 << (PRECISION - 1);

#[inline(always)]
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

vectorised! {
    /// Resizes rows along their length: from `source`, whose rows have `stride` bytes each, to `out`, `[rows, outputs of
    /// taps, 3]`. Of each row only the bytes `read` are looked at, which begin with the first pixel that `taps` reads.
    /// `pixels` is working memory for [`ROWS`] times the pixels in `read`, with four channels.
    pub(super) fn horizontal_pass(
        source: &[u8],
        stride: usize,
        read: Range<usize>,
        taps: &Taps,
        pixels: &mut [u8],
        out: &mut [u8],
    ) {
        let outputs = taps.first.len();
        let origin = taps.reach().0;
        let mut sums = [0i32; ROWS * 4];
        for (source, out) in source.chunks(ROWS * stride).zip(out.chunks_mut(ROWS * outputs * 3)) {
            let lanes = source.len() / stride * 4;
            for (row, source) in source.chunks_exact(stride).enumerate() {
                let source = source[read.clone()].as_chunks::<3>().0;
                for (column, pixel) in pixels.chunks_exact_mut(lanes).zip(source) {
                    column[row * 4..][..4].copy_from_slice(&[pixel[0], pixel[1], pixel[2], 0]);
                }
            }
            for (output, (first, weights)) in taps.first.iter().zip(taps.weights.chunks_exact(taps.count)).enumerate() {
                let sums = &mut sums[..lanes];
                sums.fill(HALF);
                for (column, weight) in pixels[(first - origin) * lanes..].chunks_exact(lanes).zip(weights) {
                    for (sum, value) in sums.iter_mut().zip(column) {
                        *sum += i32::from(*value) * weight;
                    }
                }
                for (out, sum) in out.chunks_exact_mut(outputs * 3).zip(sums.as_chunks::<4>().0) {
                    out[output * 3..][..3].copy_from_slice(&[to_u8(sum[0]), to_u8(sum[1]), to_u8(sum[2])]);
                }
            }
        }
    }
}

vectorised! {
    /// Makes one row, `out`, as the weighted sum of the first rows of `source`, as many as there are weights. All rows,
    /// and the working memory `sums`, have the same length.
    pub(super) fn vertical_pass(source: &[u8], weights: &[i32], sums: &mut [i32], out: &mut [u8]) {
        sums.fill(HALF);
        for (row, weight) in source.chunks_exact(out.len()).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums.iter()) {
            *out = to_u8(*sum);
        }
    }
}
