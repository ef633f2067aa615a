//! Products of pixels with weights, `[m, k] x [k, n]`, the weights packed once at load ([`Panels`]).
//!
//! A panel is used for all `m` pixels before the next one, so it stays in the first-level cache: `k`
//! is taken in blocks of at most [`K_BLOCK`] for that ([`accumulate`]). The products that [`gate`]
//! multiplies need their sums whole; `k` is then a block's input width, at most 512.

use super::extent;
use super::microkernel::{accumulate_microkernel, gate_microkernel, with_rows};
use super::panels::Panels;
use super::vector::{Vector, for_each_vector, lanes};

/// Rows of a panel that are multiplied in one go: 256 rows of 32 values are 32 KiB.
const K_BLOCK: usize = 256;

/// Rows of a matrix in memory: element `j` of row `i` is at `data[i * stride + j]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The rows, and what lies between them.
    pub data: &'a [f32],
    /// Values from the beginning of one row to that of the next.
    pub stride: usize,
}

/// `c += a b`: `a` is `[m, k]`, and `c` has `m` rows of at least `n` values, `c_stride` apart.
///
/// # Panics
/// If a slice is too short.
pub fn accumulate(m: usize, a: Rows, b: &Panels, c: &mut [f32], c_stride: usize) {
    if m == 0 {
        return;
    }
    assert!(a.data.len() >= extent(m, a.stride, b.k()), "too few pixels to multiply");
    assert!(c.len() >= extent(m, c_stride, b.n()), "too little room for a product");
    // SAFETY: the assertions are what the kernel asks for.
    unsafe { accumulate_any(m, a, b, c.as_mut_ptr(), c_stride) }
}

/// Values from one window to the next in [`accumulate_windows`]. A constant, so that the twelve
/// addresses of a register tile need one register.
const WINDOW_STRIDE: usize = 2;

/// `c += a b`, where element `j` of row `i` of `a` is `a[2 * i + offsets[j]]`: the windows of a
/// convolution of stride 2 over one row of pixels.
///
/// # Panics
/// If a slice is too short, or there are not as many offsets as `b` has rows.
pub fn accumulate_windows(m: usize, a: &[f32], offsets: &[usize], b: &Panels, c: &mut [f32], c_stride: usize) {
    assert!(offsets.len() == b.k(), "another number of offsets than of weights");
    let Some(largest) = offsets.iter().max().filter(|_| m > 0) else { return };
    assert!(a.len() > extent(m, WINDOW_STRIDE, *largest), "too few pixels to multiply");
    assert!(c.len() >= extent(m, c_stride, b.n()), "too little room for a product");
    // SAFETY: the assertions are what the kernel asks for.
    unsafe { accumulate_windows_any(m, a, offsets, b, c.as_mut_ptr(), c_stride) }
}

/// `c = (a b1 + bias1) * (a b2 + bias2)`, where panel `p` of `b` holds the vector `p` of `b1` and
/// that of `b2`, as do the vectors of `bias`: [`Panels::new`] with `gate_column`.
///
/// `a` is `[m, k]`, and `c` has `m` rows, `c_stride` apart, of as many values as `b` has panels
/// times the vector's lanes.
///
/// # Panics
/// If a slice is too short.
pub fn gate(m: usize, a: Rows, b: &Panels, bias: &[f32], c: &mut [f32], c_stride: usize) {
    if m == 0 {
        return;
    }
    let columns = b.count() * lanes();
    assert!(a.data.len() >= extent(m, a.stride, b.k()), "too few pixels to multiply");
    assert!(bias.len() >= 2 * columns, "too few biases");
    assert!(c.len() >= extent(m, c_stride, columns), "too little room for a product");
    // SAFETY: the assertions are what the kernel asks for.
    unsafe { gate_any(m, a, b, bias.as_ptr(), c.as_mut_ptr(), c_stride) }
}

for_each_vector! {
    /// [`accumulate_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`accumulate_with`].
    unsafe fn accumulate_any(m: usize, a: Rows<'_>, b: &Panels, c: *mut f32, c_stride: usize) = accumulate_with
}

for_each_vector! {
    /// [`accumulate_windows_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`accumulate_windows_with`].
    unsafe fn accumulate_windows_any(
        m: usize,
        a: &[f32],
        offsets: &[usize],
        b: &Panels,
        c: *mut f32,
        c_stride: usize,
    ) = accumulate_windows_with
}

for_each_vector! {
    /// [`gate_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`gate_with`].
    unsafe fn gate_any(m: usize, a: Rows<'_>, b: &Panels, bias: *const f32, c: *mut f32, c_stride: usize) = gate_with
}

/// Splits `m` rows into tiles of at most `ROWS` that differ by at most one: first row and number of
/// rows of each.
#[inline(always)]
fn tiles<const ROWS: usize>(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = m.div_ceil(ROWS);
    (0..count).map(move |i| (i * m / count, (i + 1) * m / count - i * m / count))
}

/// [`accumulate`] with register tiles of at most `ROWS` rows.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `V`, and `V` must have
/// [`lanes`] lanes. `a` must have `m` rows of `b.k()` values; `c` must have `m` rows of `b.n()` values,
/// `c_stride` apart, that may be written.
#[inline(always)]
unsafe fn accumulate_with<V: Vector, const ROWS: usize>(m: usize, a: Rows, b: &Panels, c: *mut f32, c_stride: usize) {
    for start in (0..b.k()).step_by(K_BLOCK) {
        let steps = K_BLOCK.min(b.k() - start);
        // SAFETY: the steps stay below `b.k()`, which is as far as the rows of `a` reach; the rest is passed on.
        unsafe { accumulate_steps::<V, ROWS>(m, a, |i| start + i, start, steps, b, c, c_stride) }
    }
}

/// [`accumulate_windows`] with register tiles of at most `ROWS` rows.
///
/// # Safety
/// As [`accumulate_with`], but for `a`: there must be `b.k()` offsets, and `a` must be longer than
/// `WINDOW_STRIDE * (m - 1)` and the largest of them together.
#[inline(always)]
unsafe fn accumulate_windows_with<V: Vector, const ROWS: usize>(
    m: usize,
    a: &[f32],
    offsets: &[usize],
    b: &Panels,
    c: *mut f32,
    c_stride: usize,
) {
    let a = Rows { data: a, stride: WINDOW_STRIDE };
    // SAFETY: the steps stay below `b.k()`, the number of offsets; the rest is passed on.
    unsafe { accumulate_steps::<V, ROWS>(m, a, |i| *offsets.get_unchecked(i), 0, b.k(), b, c, c_stride) }
}

/// `steps` of the `k` steps of `c += a b`, from `start` on. Step `i` of them reads element `at(i)` of the rows
/// of `a`.
///
/// # Safety
/// As [`accumulate_with`], but for `a`: it must have element `at(i)` of each of `m` rows, for every `i` below
/// `steps`. `start + steps` must be at most `b.k()`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
unsafe fn accumulate_steps<V: Vector, const ROWS: usize>(
    m: usize,
    a: Rows,
    at: impl Fn(usize) -> usize + Copy,
    start: usize,
    steps: usize,
    b: &Panels,
    c: *mut f32,
    c_stride: usize,
) {
    let width = 2 * V::LANES;
    let weights = b.values().as_ptr();
    for panel in 0..b.n().div_ceil(width) {
        let columns = (b.n() - panel * width).min(width);
        for (row, rows) in tiles::<ROWS>(m) {
            // SAFETY: a panel has `b.k()` rows of `width` values; the tile's rows lie below `m`, and the caller
            // vouches for those of `a` and `c`.
            unsafe {
                let weights = weights.add((panel * b.k() + start) * width);
                let a_row = a.data.as_ptr().add(row * a.stride);
                let c = c.add(row * c_stride + panel * width);
                with_rows!(
                    rows,
                    accumulate_microkernel::<V>(steps, a_row, a.stride, at, weights, c, c_stride, columns)
                );
            }
        }
    }
}

/// [`gate`] with register tiles of at most `ROWS` rows.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `V`, and `V` must have
/// [`lanes`] lanes. `a` must have `m` rows of `b.k()` values; two vectors for each panel of `b` must be
/// readable at `bias`; `c` must have `m` rows, `c_stride` apart, of a vector for each panel, that may be
/// written.
#[inline(always)]
unsafe fn gate_with<V: Vector, const ROWS: usize>(
    m: usize,
    a: Rows,
    b: &Panels,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    let width = 2 * V::LANES;
    let weights = b.values().as_ptr();
    for panel in 0..b.n().div_ceil(width) {
        for (row, rows) in tiles::<ROWS>(m) {
            // SAFETY: as in `accumulate_steps`; and the caller vouches for the biases.
            unsafe {
                let weights = weights.add(panel * b.k() * width);
                let bias = bias.add(panel * width);
                let a_row = a.data.as_ptr().add(row * a.stride);
                let c = c.add(row * c_stride + panel * V::LANES);
                with_rows!(rows, gate_microkernel::<V>(b.k(), a_row, a.stride, weights, bias, c, c_stride));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{panels::gate_column, panic_of};
    use super::*;
    use crate::random::tests::{test_stream, uniform};

    /// `[m, k] x [k, n]` in float64, `a` with a stride.
    fn product(m: usize, k: usize, n: usize, a: &[f32], stride: usize, b: &[f32]) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                c[i * n + j] = (0..k).map(|l| f64::from(a[i * stride + l]) * f64::from(b[l * n + j])).sum();
            }
        }
        c
    }

    #[test]
    fn accumulate_adds_the_product() {
        let rng = &mut test_stream(1);
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (13, 64, 32), (49, 300, 80), (25, 513, 33), (12, 16, 64)] {
            let stride = k + 3;
            let (a, b) = (uniform(m * stride, -1.0..1.0, rng), uniform(k * n, -1.0..1.0, rng));
            let panels = Panels::new(k, n, |i, j| b[i * n + j]);
            let c_stride = n + 2;
            let before = uniform(m * c_stride, -1.0..1.0, rng);
            let mut c = before.clone();
            accumulate(m, Rows { data: &a, stride }, &panels, &mut c, c_stride);
            let expected = product(m, k, n, &a, stride, &b);
            for i in 0..m {
                for j in 0..c_stride {
                    let wanted = f64::from(before[i * c_stride + j]) + if j < n { expected[i * n + j] } else { 0.0 };
                    let difference = (f64::from(c[i * c_stride + j]) - wanted).abs();
                    assert!(difference < 2e-5, "{m}x{k}x{n} at {i},{j}: {difference}");
                }
            }
        }
    }

    #[test]
    fn gate_multiplies_two_products() {
        let rng = &mut test_stream(1);
        for (m, k, w) in [(1, 1, 16), (7, 20, 48), (30, 64, 5), (49, 130, 64)] {
            let (a, b, bias) =
                (uniform(m * k, -1.0..1.0, rng), uniform(k * 2 * w, -1.0..1.0, rng), uniform(2 * w, -1.0..1.0, rng));
            let padded = w.div_ceil(lanes()) * lanes();
            let pick = |values: &dyn Fn(usize) -> f32, j: usize| {
                let (factor, column) = gate_column(j);
                if column < w { values(factor * w + column) } else { 0.0 }
            };
            let panels = Panels::new(k, 2 * padded, |i, j| pick(&|column| b[i * 2 * w + column], j));
            let packed_bias: Vec<f32> = (0..2 * padded).map(|j| pick(&|column| bias[column], j)).collect();
            let mut c = vec![f32::NAN; m * padded];
            gate(m, Rows { data: &a, stride: k }, &panels, &packed_bias, &mut c, padded);
            let sums = product(m, k, 2 * w, &a, k, &b);
            for i in 0..m {
                for j in 0..padded {
                    let factor = |f: usize| sums[i * 2 * w + f * w + j] + f64::from(bias[f * w + j]);
                    let wanted = if j < w { factor(0) * factor(1) } else { 0.0 };
                    let difference = (f64::from(c[i * padded + j]) - wanted).abs();
                    assert!(difference < 2e-4, "{m}x{k}x{w} at {i},{j}: {difference}");
                }
            }
        }
    }

    /// Calls a product of `[4, 8]` and `[8, n]` with one value less than it takes of one operand, in a buffer
    /// whose end would show what was written past it.
    #[test]
    fn short_operands_are_refused() {
        let n = 2 * lanes();
        let panels = Panels::new(8, n, |_, _| 1.0);
        let offsets: Vec<usize> = (0..8).collect();
        let (a, bias) = (vec![1.0; 4 * 8], vec![1.0; n]);
        let rows = |len| Rows { data: &a[..len], stride: 8 };
        let check = |words: &str, call: &dyn Fn(&mut [f32])| {
            let mut c = vec![7.0; 4 * n + 64];
            assert_eq!(panic_of(|| call(&mut c)), words);
            assert!(c.iter().all(|value| *value == 7.0), "{words}: something was written");
        };
        let (few, small) = ("too few pixels to multiply", "too little room for a product");
        check(few, &|c| accumulate(4, rows(31), &panels, c, n));
        check(small, &|c| accumulate(4, rows(32), &panels, &mut c[..4 * n - 1], n));
        check(few, &|c| gate(4, rows(31), &panels, &bias, c, n));
        check(small, &|c| gate(4, rows(32), &panels, &bias, &mut c[..3 * n + lanes() - 1], n));
        check("too few biases", &|c| gate(4, rows(32), &panels, &bias[1..], c, n));
        check(few, &|c| accumulate_windows(4, &a[..13], &offsets, &panels, c, n));
        check(small, &|c| accumulate_windows(4, &a[..14], &offsets, &panels, &mut c[..4 * n - 1], n));
        let words = "another number of offsets than of weights";
        check(words, &|c| accumulate_windows(4, &a, &offsets[1..], &panels, c, n));
        // The stride wraps the end of the last row around to a small number.
        let far = Rows { data: &a, stride: usize::MAX / 3 + 1 };
        check("a matrix larger than the memory", &|c| accumulate(4, far, &panels, c, n));
    }
}
