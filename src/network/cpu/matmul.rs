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
    debug_assert!(a.format == b.format() && (m == 0 || a.has(m, b.k())) && panels.end <= b.count());
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
    assert!(b.block() >= b.steps(), "weights that were not packed for a gate");
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
pub(super) unsafe fn gate_part(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    debug_assert!(a.format == b.format() && (m == 0 || a.has(m, b.k())) && panels.end <= b.count());
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
    // In 64 bits: on 32-bit CPUs, memory has room for rows whose number's square does not fit.
    let first = move |i: usize| (i as u64 * m as u64 / count as u64) as usize;
    (0..count).map(move |i| (first(i), first(i + 1) - first(i)))
}

/// [`accumulate`] with register tiles of at most `ROWS` rows.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `K`, whose vectors must have
/// [`lanes`] lanes and whose format must be that of `a` and `b`. `a` must have `m` rows of `b.k()` values; `c` must
/// have `m` rows of the values of `panels`, `c_stride` apart, that may be written.
#[inline(always)]
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
    let at = |i: usize| offsets[i];
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
                    next: weights.wrapping_add(b.stride() + row.wrapping_mul(steps * width) / m).cast(),
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
                    next: weights.wrapping_add(b.stride() + row.wrapping_mul(b.stride()) / m).cast(),
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
    use super::*;

    /// Also so many that their square does not fit into 32 bits.
    #[test]
    fn tiles_are_all_rows() {
        for m in [1, 11, 12, 13, 25, 300_000, 1_000_000] {
            let mut next = 0;
            for (row, rows) in tiles::<12>(m) {
                assert!(row == next && (1..=12).contains(&rows), "{m}: {rows} from {row} on");
                next += rows;
            }
            assert_eq!(next, m);
        }
    }
}
