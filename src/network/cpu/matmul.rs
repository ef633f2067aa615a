//! Products of pixels with weights, `[m, k] x [k, n]`, the weights packed once at load.
//!
//! Weights lie in panels of two vectors' width: for panel after panel, `k` rows of `2 * LANES`
//! contiguous values. A register tile is up to `ROWS` pixels by one panel; for each of the `k`
//! steps it loads two vectors of weights, broadcasts one value of every pixel, and does two fused
//! multiply-adds with it. Pixels are read where they are, without packing: a broadcast does not mind
//! strides.
//!
//! A panel is used for all `m` pixels before the next one, so it stays in the first-level cache: `k`
//! is taken in parts of at most [`PART`] for that ([`accumulate`]). The products that [`gate`]
//! multiplies need their sums whole; `k` is then a block's input width, at most 512.

use rayon::prelude::*;

use super::buffer::Buffer;
use super::vector::{Vector, for_each_vector, lanes};

/// Rows of a panel that are multiplied in one go: 256 rows of 32 values are 32 KiB.
const PART: usize = 256;

/// A packed weight.
#[derive(Clone, Debug)]
pub struct Panels {
    data: Buffer,
    /// Rows of the matrix.
    k: usize,
    /// Columns.
    n: usize,
}

impl Panels {
    /// Packs the matrix `[k, n]` whose element at row `i` and column `j` is `element(i, j)`.
    ///
    /// # Panics
    /// If one of the sides is zero.
    pub fn new(k: usize, n: usize, element: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        assert!(k > 0 && n > 0, "a matrix without elements");
        let width = 2 * lanes();
        let mut data = Buffer::zeros(n.div_ceil(width) * k * width);
        let panels = data.as_mut_slice()[..n.div_ceil(width) * k * width].par_chunks_exact_mut(k * width);
        panels.enumerate().for_each(|(panel, values)| {
            let columns = panel * width..n.min((panel + 1) * width);
            // Column by column: that is how PyTorch's weights lie in memory.
            for (j, column) in columns.enumerate() {
                for (i, row) in values.chunks_exact_mut(width).enumerate() {
                    row[j] = element(i, column);
                }
            }
        });
        Self { data, k, n }
    }
}

/// How many values `rows` rows of `len` values reach over, `stride` apart.
fn extent(rows: usize, stride: usize, len: usize) -> usize {
    (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(len)).expect("a matrix larger than the memory")
}

/// Rows of a matrix in memory: element `j` of row `i` is at `data[i * stride + j]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub data: &'a [f32],
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
    assert!(a.data.len() >= extent(m, a.stride, b.k), "too few pixels to multiply");
    assert!(c.len() >= extent(m, c_stride, b.n), "too little room for a product");
    // SAFETY: the assertions are what the kernel needs; the panels are whole by construction.
    unsafe { accumulate_any(m, a, b, c.as_mut_ptr(), c_stride) }
}

/// Values from one window to the next in [`accumulate_windows`]. A constant, so that the twelve
/// addresses of a register tile need one register.
const WINDOW_STRIDE: usize = 2;

/// `c += a b`, where element `j` of row `i` of `a` is `a[2 * i + offsets[j]]`: the windows of a
/// convolution of stride 2 over one row of pixels.
///
/// # Panics
/// If a slice is too short.
pub fn accumulate_windows(m: usize, a: &[f32], offsets: &[usize], b: &Panels, c: &mut [f32], c_stride: usize) {
    let Some(reach) = offsets.iter().max() else { return };
    if m == 0 {
        return;
    }
    assert!(offsets.len() == b.k && a.len() > extent(m, WINDOW_STRIDE, *reach), "too few pixels to multiply");
    assert!(c.len() >= extent(m, c_stride, b.n), "too little room for a product");
    // SAFETY: as in `accumulate`.
    unsafe { accumulate_windows_any(m, a, offsets, b, c.as_mut_ptr(), c_stride) }
}

/// `c = (a b1 + bias1) * (a b2 + bias2)`, where panel `p` of `b` holds the vector `p` of `b1` and
/// that of `b2`, as do the vectors of `bias`: [`Panels::new`] with [`gate_column`].
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
    let columns = b.n.div_ceil(2 * lanes()) * lanes();
    assert!(a.data.len() >= extent(m, a.stride, b.k), "too few pixels to multiply");
    assert!(bias.len() >= 2 * columns, "too few biases");
    assert!(c.len() >= extent(m, c_stride, columns), "too little room for a product");
    // SAFETY: as in `accumulate`.
    unsafe { gate_any(m, a, b, bias.as_ptr(), c.as_mut_ptr(), c_stride) }
}

/// Where column `j` of a panelled pair of matrices comes from: the factor, 0 or 1, and its column.
pub fn gate_column(j: usize) -> (usize, usize) {
    let lanes = lanes();
    let (vector, lane) = (j / lanes, j % lanes);
    (vector % 2, vector / 2 * lanes + lane)
}

for_each_vector! {
    unsafe fn accumulate_any(m: usize, a: Rows<'_>, b: &Panels, c: *mut f32, c_stride: usize) = accumulate_with
}

for_each_vector! {
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
    unsafe fn gate_any(m: usize, a: Rows<'_>, b: &Panels, bias: *const f32, c: *mut f32, c_stride: usize) = gate_with
}

/// Calls `$tile::<V, r>($args)` for a number of rows `r` of at most `ROWS` that is known only at run
/// time.
macro_rules! with_rows {
    ($rows:expr, $tile:ident::<$V:ident>($($arg:expr),*)) => {
        match $rows {
            1 => $tile::<$V, 1>($($arg),*),
            2 => $tile::<$V, 2>($($arg),*),
            3 => $tile::<$V, 3>($($arg),*),
            4 => $tile::<$V, 4>($($arg),*),
            5 => $tile::<$V, 5>($($arg),*),
            6 => $tile::<$V, 6>($($arg),*),
            7 if ROWS > 6 => $tile::<$V, 7>($($arg),*),
            8 if ROWS > 6 => $tile::<$V, 8>($($arg),*),
            9 if ROWS > 6 => $tile::<$V, 9>($($arg),*),
            10 if ROWS > 6 => $tile::<$V, 10>($($arg),*),
            11 if ROWS > 6 => $tile::<$V, 11>($($arg),*),
            12 if ROWS > 6 => $tile::<$V, 12>($($arg),*),
            _ => unreachable!("`tiles` makes none of more rows"),
        }
    };
}

/// Splits `m` rows into tiles of at most `ROWS` that differ by at most one: first row and number of
/// rows of each.
#[inline(always)]
fn tiles<const ROWS: usize>(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = m.div_ceil(ROWS);
    (0..count).map(move |i| (i * m / count, (i + 1) * m / count - i * m / count))
}

#[inline(always)]
unsafe fn accumulate_with<V: Vector, const ROWS: usize>(m: usize, a: Rows, b: &Panels, c: *mut f32, c_stride: usize) {
    for start in (0..b.k).step_by(PART) {
        let part = PART.min(b.k - start);
        // SAFETY: passed on.
        unsafe { accumulate_part::<V, ROWS>(m, a, |i| start + i, start, part, b, c, c_stride) }
    }
}

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
    // SAFETY: passed on; `i` stays below the number of offsets.
    unsafe { accumulate_part::<V, ROWS>(m, a, |i| *offsets.get_unchecked(i), 0, b.k, b, c, c_stride) }
}

/// The steps `start..start + part` of `c += a b`. Step `i` of them reads element `at(i)` of the rows
/// of `a`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
unsafe fn accumulate_part<V: Vector, const ROWS: usize>(
    m: usize,
    a: Rows,
    at: impl Fn(usize) -> usize + Copy,
    start: usize,
    part: usize,
    b: &Panels,
    c: *mut f32,
    c_stride: usize,
) {
    let width = 2 * V::LANES;
    for panel in 0..b.n.div_ceil(width) {
        let columns = (b.n - panel * width).min(width);
        for (row, rows) in tiles::<ROWS>(m) {
            // SAFETY: inside the panels, and inside the rows that the caller vouches for.
            unsafe {
                let weights = b.data.as_slice().as_ptr().add((panel * b.k + start) * width);
                let a_row = a.data.as_ptr().add(row * a.stride);
                let c = c.add(row * c_stride + panel * width);
                with_rows!(rows, accumulate_tile::<V>(part, a_row, a.stride, at, weights, c, c_stride, columns));
            }
        }
    }
}

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
    for panel in 0..b.n.div_ceil(width) {
        for (row, rows) in tiles::<ROWS>(m) {
            // SAFETY: as above.
            unsafe {
                let weights = b.data.as_slice().as_ptr().add(panel * b.k * width);
                let bias = bias.add(panel * width);
                let a_row = a.data.as_ptr().add(row * a.stride);
                let c = c.add(row * c_stride + panel * V::LANES);
                with_rows!(rows, gate_tile::<V>(b.k, a_row, a.stride, weights, bias, c, c_stride));
            }
        }
    }
}

/// The sums of one register tile: `R` pixels by two vectors, over `k` steps, from `sums` on. Step `i`
/// reads element `at(i)` of the rows of `a`.
#[inline(always)]
unsafe fn sum<V: Vector, const R: usize>(
    mut sums: [[V; 2]; R],
    k: usize,
    a: *const f32,
    a_stride: usize,
    at: impl Fn(usize) -> usize,
    weights: *const f32,
) -> [[V; 2]; R] {
    for i in 0..k {
        // SAFETY: the caller vouches for `R` rows of `k` values and for `k` rows of a panel.
        unsafe {
            let weights = weights.add(i * 2 * V::LANES);
            let (w0, w1) = (V::load(weights), V::load(weights.add(V::LANES)));
            let a = a.add(at(i));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = V::splat(*a.add(row * a_stride));
                sums[0] = x.mul_add(w0, sums[0]);
                sums[1] = x.mul_add(w1, sums[1]);
            }
        }
    }
    sums
}

/// Adds one register tile to `c`, of which `columns` columns exist.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
unsafe fn accumulate_tile<V: Vector, const R: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    at: impl Fn(usize) -> usize,
    weights: *const f32,
    c: *mut f32,
    c_stride: usize,
    columns: usize,
) {
    // SAFETY: the caller vouches for `R` rows of `a` and `c`.
    unsafe {
        let sums = sum([[V::splat(0.0); 2]; R], k, a, a_stride, at, weights);
        let one = V::splat(1.0);
        for (row, sums) in sums.into_iter().enumerate() {
            let c = c.add(row * c_stride);
            for (i, sum) in sums.into_iter().enumerate() {
                let here = columns.saturating_sub(i * V::LANES);
                if here == 0 {
                    break;
                }
                let c = c.add(i * V::LANES);
                if here >= V::LANES {
                    sum.mul_add(one, V::load(c)).store(c);
                } else {
                    sum.mul_add(one, V::load_part(c, here)).store_part(c, here);
                }
            }
        }
    }
}

/// Writes the product of the two vectors of one register tile.
#[inline(always)]
unsafe fn gate_tile<V: Vector, const R: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    weights: *const f32,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: as above.
    unsafe {
        let bias = [V::load(bias), V::load(bias.add(V::LANES))];
        for (row, [x, y]) in sum([bias; R], k, a, a_stride, |i| i, weights).into_iter().enumerate() {
            x.mul(y).store(c.add(row * c_stride));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed * 2 + 1;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

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
        for (m, k, n) in [(1, 1, 1), (5, 7, 3), (13, 64, 32), (49, 300, 80), (25, 513, 33), (12, 16, 64)] {
            let stride = k + 3;
            let (a, b) = (random(m * stride, 1), random(k * n, 2));
            let panels = Panels::new(k, n, |i, j| b[i * n + j]);
            let c_stride = n + 2;
            let before = random(m * c_stride, 3);
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
        for (m, k, w) in [(1, 1, 16), (7, 20, 48), (30, 64, 5), (49, 130, 64)] {
            let (a, b, bias) = (random(m * k, 1), random(k * 2 * w, 2), random(2 * w, 3));
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
}
