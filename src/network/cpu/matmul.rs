//! Products of pixels with weights, `[m, k] x [k, n]`, the weights packed once at load ([`Panels`]).
//!
//! A panel is used for all `m` pixels before the next one, so it stays in the first-level cache: `k`
//! is taken in blocks for that ([`accumulate`]). The products that [`gate`]
//! multiplies need their sums whole; `k` is then a block's input width, at most 512.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::extent;
use super::kernel::{Floats, Kernel, for_each_kernel};
use super::microkernel::{Tile, accumulate_microkernel, gate_microkernel, with_rows};
use super::operand::{Format, Rows};
use super::panels::Panels;
use super::vector::{Vector, for_each_vector, lanes};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Level, level};

/// `c += a b`: `a` is `[m, k]`, and `c` has `m` rows of at least `n` values, `c_stride` apart.
///
/// # Panics
/// If a slice is too short, or pixels and weights have different formats.
pub fn accumulate(m: usize, a: Rows, b: &Panels, c: &mut [f32], c_stride: usize) {
    if m == 0 {
        return;
    }
    assert!(a.format == b.format(), "pixels and weights of different formats");
    assert!(a.has(m, b.k()), "too few pixels to multiply");
    assert!(c.len() >= extent(m, c_stride, b.n()), "too little room for a product");
    // SAFETY: the assertions are what it asks for.
    unsafe { accumulate_part(m, a, b, 0..b.count(), c.as_mut_ptr(), c_stride) }
}

/// [`accumulate`] of some panels only, of which `c` has the first one's columns at its beginning.
///
/// # Safety
/// `a` must have `m` rows of `b.k()` values ([`Rows::has`]) in the format of `b`, which must have the panels; `c` must
/// have `m` rows, `c_stride` apart, of the values of these panels, that may be written.
pub(super) unsafe fn accumulate_part(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    c: *mut f32,
    c_stride: usize,
) {
    debug_assert!(a.format == b.format() && a.has(m, b.k()) && panels.end <= b.count());
    // SAFETY: passed on.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if uses_tiles(b.format()) {
            return amx::accumulate(m, a, b, panels, c, c_stride);
        }
        accumulate_any(m, a, b, panels, c, c_stride);
    }
}

/// Values from one window to the next in [`accumulate_windows`]. A constant, so that the twelve
/// addresses of a register tile need one register.
const WINDOW_STRIDE: usize = 2;

/// `c += a b` in float32, where element `j` of row `i` of `a` is `a[2 * i + offsets[j]]`: the windows of a
/// convolution of stride 2 over one row of pixels.
///
/// # Panics
/// If a slice is too short, there are not as many offsets as `b` has rows, or `b` is not in float32.
pub fn accumulate_windows(m: usize, a: &[f32], offsets: &[usize], b: &Panels, c: &mut [f32], c_stride: usize) {
    assert!(b.format() == Format::Float, "pixels and weights of different formats");
    assert!(offsets.len() == b.k(), "another number of offsets than of weights");
    let Some(largest) = offsets.iter().max().filter(|_| m > 0) else { return };
    assert!(a.len() > extent(m, WINDOW_STRIDE, *largest), "too few pixels to multiply");
    assert!(c.len() >= extent(m, c_stride, b.n()), "too little room for a product");
    // SAFETY: the assertions are what the kernel asks for.
    unsafe { accumulate_windows_any(m, Rows::floats(a, WINDOW_STRIDE), offsets, b, c.as_mut_ptr(), c_stride) }
}

/// `c = (a b1 + bias1) * (a b2 + bias2)`, where panel `p` of `b` holds the vector `p` of `b1` and
/// that of `b2`, as do the vectors of `bias`: [`Panels::for_gate`].
///
/// `a` is `[m, k]`, and `c` has `m` rows, `c_stride` apart, of as many values as `b` has panels
/// times the vector's lanes.
///
/// # Panics
/// If a slice is too short, or pixels and weights have different formats.
pub fn gate(m: usize, a: Rows, b: &Panels, bias: &[f32], c: &mut [f32], c_stride: usize) {
    if m == 0 {
        return;
    }
    let columns = b.count() * lanes();
    assert!(a.format == b.format(), "pixels and weights of different formats");
    assert!(a.has(m, b.k()), "too few pixels to multiply");
    assert!(bias.len() >= 2 * columns, "too few biases");
    assert!(c.len() >= extent(m, c_stride, columns), "too little room for a product");
    // SAFETY: the assertions are what it asks for.
    unsafe { gate_part(m, a, b, 0..b.count(), bias.as_ptr(), c.as_mut_ptr(), c_stride) }
}

/// [`gate`] of some panels only, of which `c` has the first one's columns at its beginning.
///
/// # Safety
/// As [`accumulate_part`]; two vectors for each panel of `b` must be readable at `bias`, and `c` has a vector for each
/// of these panels.
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
pub(super) unsafe fn gate_part(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    debug_assert!(a.format == b.format() && a.has(m, b.k()) && panels.end <= b.count());
    // SAFETY: passed on.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if uses_tiles(b.format()) {
            return amx::gate(m, a, b, panels, bias, c, c_stride);
        }
        gate_any(m, a, b, panels, bias, c, c_stride);
    }
}

/// Whether products of this format are computed by tiles.
#[cfg(target_arch = "x86_64")]
fn uses_tiles(format: Format) -> bool {
    level() == Level::Amx && matches!(format, Format::Bfloat | Format::Bytes)
}

for_each_kernel! {
    /// [`accumulate_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`accumulate_with`].
    unsafe fn accumulate_any(m: usize, a: Rows<'_>, b: &Panels, panels: Range<usize>, c: *mut f32, c_stride: usize) = accumulate_with, b.format()
}

for_each_vector! {
    /// [`accumulate_windows_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`accumulate_windows_with`].
    unsafe fn accumulate_windows_any(
        m: usize,
        a: Rows<'_>,
        offsets: &[usize],
        b: &Panels,
        c: *mut f32,
        c_stride: usize,
    ) = accumulate_windows_with
}

for_each_kernel! {
    /// [`gate_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`gate_with`].
    unsafe fn gate_any(m: usize, a: Rows<'_>, b: &Panels, panels: Range<usize>, bias: *const f32, c: *mut f32, c_stride: usize) = gate_with, b.format()
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
/// The function must be inlined into one that enables the instructions of `K`, whose vectors must have
/// [`lanes`] lanes and whose format must be that of `a` and `b`. `a` must have `m` rows of `b.k()` values; `c` must
/// have `m` rows of the values of `panels`, `c_stride` apart, that may be written.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
unsafe fn accumulate_with<K: Kernel, const ROWS: usize>(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    c: *mut f32,
    c_stride: usize,
) {
    for start in (0..b.steps()).step_by(b.block()) {
        let steps = b.block().min(b.steps() - start);
        // SAFETY: the steps stay below `b.steps()`, which is as far as the rows of `a` reach; the rest is passed on.
        unsafe { accumulate_steps::<K, ROWS>(m, a, |i| start + i, start, steps, b, panels.clone(), c, c_stride) }
    }
}

/// [`accumulate_windows`] with register tiles of at most `ROWS` rows.
///
/// # Safety
/// As [`accumulate_with`], but for `a`: there must be `b.k()` offsets, and `a` must have more values than
/// its stride times `m - 1` and the largest of them together.
#[inline(always)]
unsafe fn accumulate_windows_with<V: Vector, const ROWS: usize>(
    m: usize,
    a: Rows,
    offsets: &[usize],
    b: &Panels,
    c: *mut f32,
    c_stride: usize,
) {
    // A constant is what keeps the addresses in one register.
    let a = Rows { stride: WINDOW_STRIDE, ..a };
    // SAFETY: it is called for steps below the number of offsets.
    let at = |i: usize| unsafe { *offsets.get_unchecked(i) };
    // SAFETY: the steps stay below `b.k()`, the number of offsets; the rest is passed on.
    unsafe { accumulate_steps::<Floats<V>, ROWS>(m, a, at, 0, b.k(), b, 0..b.count(), c, c_stride) }
}

/// `steps` of the steps of `c += a b`, from `start` on. Step `i` of them reads group `at(i)` of the rows of `a`.
///
/// # Safety
/// As [`accumulate_with`], but for `a`: it must have group `at(i)` of each of `m` rows, for every `i` below
/// `steps`. `start` must be a multiple of `b.block()`, and `start + steps` at most `b.steps()`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
unsafe fn accumulate_steps<K: Kernel, const ROWS: usize>(
    m: usize,
    a: Rows,
    at: impl Fn(usize) -> usize + Copy,
    start: usize,
    steps: usize,
    b: &Panels,
    panels: Range<usize>,
    c: *mut f32,
    c_stride: usize,
) {
    let width = 2 * K::Float::LANES;
    let blocks = b.steps().div_ceil(b.block());
    for panel in panels.clone() {
        let columns = (b.n() - panel * width).min(width);
        for (row, rows) in tiles::<ROWS>(m) {
            // SAFETY: a panel has `b.steps()` rows of `width` groups; the tile's rows lie below `m`, and the caller
            // vouches for those of `a` and `c`.
            unsafe {
                let weights = b.values().as_ptr().add(panel * b.stride() + start * width);
                let tile = Tile {
                    steps,
                    a: a.groups.as_ptr().add(row * a.stride),
                    a_stride: a.stride,
                    scales: a.scales.as_ptr().wrapping_add(row),
                    weights,
                    columns: b.columns().as_ptr().wrapping_add((panel * blocks + start / b.block()) * 2 * width),
                    // The next panel, of which each tile fetches as much.
                    next: weights.wrapping_add(b.stride() + (row * steps * width) / m).cast(),
                    next_step: 4 * width * rows / m,
                };
                let c = c.add(row * c_stride + (panel - panels.start) * width);
                with_rows!(rows, accumulate_microkernel::<K>(tile, at, c, c_stride, columns));
            }
        }
    }
}

/// [`gate`] with register tiles of at most `ROWS` rows.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `K`, whose vectors must have
/// [`lanes`] lanes and whose format must be that of `a` and `b`. `a` must have `m` rows of `b.k()` values; two
/// vectors for each panel of `b` must be readable at `bias`; `c` must have `m` rows, `c_stride` apart, of a vector
/// for each of `panels`, that may be written.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
unsafe fn gate_with<K: Kernel, const ROWS: usize>(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    let lanes = K::Float::LANES;
    for panel in panels.clone() {
        for (row, rows) in tiles::<ROWS>(m) {
            // SAFETY: as in `accumulate_steps`; and the caller vouches for the biases.
            unsafe {
                let weights = b.values().as_ptr().add(panel * b.stride());
                let tile = Tile {
                    steps: b.steps(),
                    a: a.groups.as_ptr().add(row * a.stride),
                    a_stride: a.stride,
                    scales: a.scales.as_ptr().wrapping_add(row),
                    weights,
                    columns: b.columns().as_ptr().wrapping_add(panel * 4 * lanes),
                    next: weights.wrapping_add(b.stride() + row * b.stride() / m).cast(),
                    next_step: 8 * lanes * rows / m,
                };
                let c = c.add(row * c_stride + (panel - panels.start) * lanes);
                with_rows!(rows, gate_microkernel::<K>(tile, bias.add(panel * 2 * lanes), c, c_stride));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::operand::{Operand, Products};
    use super::super::{panels::gate_column, panic_of};
    use super::*;
    use crate::random::tests::{test_stream, uniform};
    use rand::rngs::ChaCha8Rng;

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
            let panels = Panels::new(Format::Float, k, n, |i, j| b[i * n + j]);
            let c_stride = n + 2;
            let before = uniform(m * c_stride, -1.0..1.0, rng);
            let mut c = before.clone();
            accumulate(m, Rows::floats(&a, stride), &panels, &mut c, c_stride);
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
            let panels =
                Panels::for_gate(Format::Float, k, 2 * padded, |i, j| pick(&|column| b[i * 2 * w + column], j));
            let packed_bias: Vec<f32> = (0..2 * padded).map(|j| pick(&|column| bias[column], j)).collect();
            let mut c = vec![f32::NAN; m * padded];
            gate(m, Rows::floats(&a, k), &panels, &packed_bias, &mut c, padded);
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

    /// The formats that the CPU at hand computes in, but for float32.
    fn formats() -> Vec<Format> {
        let formats = [Products::Bfloat16, Products::Int8].map(Products::format);
        formats.into_iter().filter(|format| *format != Format::Float).collect()
    }

    /// Whole numbers from -127 to 127 that rounding leaves as they are, as weights and pixels: every column and every
    /// row has the largest, and every row the smallest.
    fn whole_numbers(m: usize, k: usize, n: usize, rng: &mut ChaCha8Rng) -> (Vec<f32>, Vec<f32>) {
        let mut draw =
            |len: usize| -> Vec<f32> { uniform(len, -127.0..127.0, rng).iter().map(|v| v.round()).collect() };
        let (mut a, mut b) = (draw(m * k), draw(k * n));
        a.chunks_exact_mut(k).for_each(|row| (row[0], row[k - 1]) = (-127.0, 128.0));
        b[..n].fill(127.0);
        (a, b)
    }

    /// What is rounded without a loss has exact products, in whatever order they are added up: bit for bit those of
    /// plain Rust. The sums stay below 2^24.
    #[test]
    fn rounded_products_are_exact_for_whole_numbers() {
        let rng = &mut test_stream(2);
        for format in formats() {
            for (m, k, n) in [(1, 2, 1), (5, 7, 3), (13, 64, 32), (33, 300, 80), (16, 515, 33), (47, 1023, 17)] {
                let (a, b) = whole_numbers(m, k, n, rng);
                let expected = product(m, k, n, &a, k, &b);
                let mut operand = Operand::default();
                operand.round(format, 0, m, &a, k, k);
                let rows = operand.rows(format, k);
                let mut c = vec![1.0; m * n];
                accumulate(m, rows, &Panels::new(format, k, n, |i, j| b[i * n + j]), &mut c, n);
                for (found, expected) in c.iter().zip(&expected) {
                    assert_eq!(f64::from(*found), expected + 1.0, "{format:?} {m}x{k}x{n}");
                }

                let padded = n.next_multiple_of(lanes());
                let panels = Panels::for_gate(format, k, 2 * padded, |i, j| match gate_column(j) {
                    (0, column) if column < n => b[i * n + column],
                    // The second factor is the first row of the pixels.
                    (1, column) if column < n && i == 0 => 127.0,
                    _ => 0.0,
                });
                let mut c = vec![f32::NAN; m * padded];
                gate(m, rows, &panels, &vec![0.0; 2 * padded], &mut c, padded);
                for (i, row) in c.chunks_exact(padded).enumerate() {
                    for (j, found) in row[..n].iter().enumerate() {
                        let wanted = expected[i * n + j] as f32 * (f64::from(a[i * k]) * 127.0) as f32;
                        assert_eq!(*found, wanted, "{format:?} {m}x{k}x{n}");
                    }
                }
            }
        }
    }

    /// Any numbers: near what plain Rust makes of the same rounded values.
    #[test]
    fn rounded_products_are_those_of_rounded_values() {
        let rng = &mut test_stream(3);
        for format in formats() {
            for (m, k, n) in [(1, 3, 5), (20, 130, 40), (49, 2048, 33)] {
                let (a, b) = (uniform(m * k, -1.0..3.0, rng), uniform(k * n, -1.0..1.0, rng));
                let nearest =
                    |value: f32| f32::from_bits(u32::from(crate::network::cpu::operand::to_bfloat(value)) << 16);
                let (mut ra, mut rb) = (a.clone(), b.clone());
                if format == Format::Bfloat {
                    ra.iter_mut().chain(&mut rb).for_each(|value| *value = nearest(*value));
                } else {
                    for row in ra.chunks_exact_mut(k) {
                        let (least, most) = row.iter().fold((row[0], row[0]), |(l, m), v| (l.min(*v), m.max(*v)));
                        let step = (most - least) / 255.0;
                        let inverse = 1.0 / step;
                        for v in row {
                            *v = ((*v - least) * inverse).round_ties_even() * step + least;
                        }
                    }
                    for j in 0..n {
                        let step = (0..k).fold(0f32, |largest, i| largest.max(b[i * n + j].abs())) / 127.0;
                        (0..k).for_each(|i| rb[i * n + j] = (b[i * n + j] / step).round_ties_even() * step);
                    }
                }
                let expected = product(m, k, n, &ra, k, &rb);
                let largest = expected.iter().fold(0f64, |largest, v| largest.max(v.abs()));
                let mut operand = Operand::default();
                operand.round(format, 0, m, &a, k, k);
                let mut c = vec![0.0; m * n];
                let panels = Panels::new(format, k, n, |i, j| b[i * n + j]);
                accumulate(m, operand.rows(format, k), &panels, &mut c, n);
                for (found, expected) in c.iter().zip(&expected) {
                    let difference = (f64::from(*found) - expected).abs() / largest;
                    assert!(difference < 2e-6, "{format:?} {m}x{k}x{n}: {difference:e}");
                }
            }
        }
    }

    /// Calls a product of `[4, 8]` and `[8, n]` with one value less than it takes of one operand, in a buffer
    /// whose end would show what was written past it.
    #[test]
    fn short_operands_are_refused() {
        let n = 2 * lanes();
        let panels = Panels::new(Format::Float, 8, n, |_, _| 1.0);
        let offsets: Vec<usize> = (0..8).collect();
        let (a, bias) = (vec![1.0; 4 * 8], vec![1.0; n]);
        let rows = |len| Rows::floats(&a[..len], 8);
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
        let far = Rows::floats(&a, usize::MAX / 3 + 1);
        check("a matrix larger than the memory", &|c| accumulate(4, far, &panels, c, n));
    }
}
