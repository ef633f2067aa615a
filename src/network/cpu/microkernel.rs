//! One register tile of a product: a few pixels by one panel of weights, two vectors wide.
//!
//! For each of the `k` steps it loads two vectors of weights, broadcasts one value of every pixel, and does
//! two fused multiply-adds with it. Pixels are read where they are, without packing: a broadcast does not
//! mind strides.

use super::vector::Vector;

/// Calls `$microkernel::<V, r>($args)` for a number of rows `r` of at most `ROWS` that is known only at run
/// time.
macro_rules! with_rows {
    ($rows:expr, $microkernel:ident::<$V:ident>($($arg:expr),*)) => {
        match $rows {
            1 => $microkernel::<$V, 1>($($arg),*),
            2 => $microkernel::<$V, 2>($($arg),*),
            3 => $microkernel::<$V, 3>($($arg),*),
            4 => $microkernel::<$V, 4>($($arg),*),
            5 => $microkernel::<$V, 5>($($arg),*),
            6 => $microkernel::<$V, 6>($($arg),*),
            7 if ROWS > 6 => $microkernel::<$V, 7>($($arg),*),
            8 if ROWS > 6 => $microkernel::<$V, 8>($($arg),*),
            9 if ROWS > 6 => $microkernel::<$V, 9>($($arg),*),
            10 if ROWS > 6 => $microkernel::<$V, 10>($($arg),*),
            11 if ROWS > 6 => $microkernel::<$V, 11>($($arg),*),
            12 if ROWS > 6 => $microkernel::<$V, 12>($($arg),*),
            _ => unreachable!("`tiles` makes none of more rows"),
        }
    };
}
pub(super) use with_rows;

/// The sums of one register tile: `R` pixels by two vectors, over `k` steps, from `sums` on. Step `i`
/// reads element `at(i)` of the rows of `a`.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `V`. `a + row * a_stride + at(i)`
/// must be readable for every `row` below `R` and `i` below `k`, and `2 * k * V::LANES` values at `weights`.
#[inline(always)]
unsafe fn multiply<V: Vector, const R: usize>(
    mut sums: [[V; 2]; R],
    k: usize,
    a: *const f32,
    a_stride: usize,
    at: impl Fn(usize) -> usize,
    weights: *const f32,
) -> [[V; 2]; R] {
    for i in 0..k {
        // SAFETY: `i` is below `k` and `row` below `R`, for which the caller vouches.
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

/// Adds one register tile to `c`, which has only `columns` columns here.
///
/// # Safety
/// As [`multiply`]; and `c` must have `R` rows of `columns` values, `c_stride` apart, that may be written.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the operands of a product")]
pub(super) unsafe fn accumulate_microkernel<V: Vector, const R: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    at: impl Fn(usize) -> usize,
    weights: *const f32,
    c: *mut f32,
    c_stride: usize,
    columns: usize,
) {
    // SAFETY: the caller vouches for the operands of the product; and of `c`, no column from `columns` on is
    // touched.
    unsafe {
        let sums = multiply([[V::splat(0.0); 2]; R], k, a, a_stride, at, weights);
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

/// Writes the product of the two vectors of one register tile, each with its bias.
///
/// # Safety
/// As [`multiply`], where step `i` reads element `i`; `2 * V::LANES` values at `bias` must be readable, and
/// `c` must have `R` rows of `V::LANES` values, `c_stride` apart, that may be written.
#[inline(always)]
pub(super) unsafe fn gate_microkernel<V: Vector, const R: usize>(
    k: usize,
    a: *const f32,
    a_stride: usize,
    weights: *const f32,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller vouches for every operand.
    unsafe {
        let bias = [V::load(bias), V::load(bias.add(V::LANES))];
        for (row, [x, y]) in multiply([bias; R], k, a, a_stride, |i| i, weights).into_iter().enumerate() {
            x.mul(y).store(c.add(row * c_stride));
        }
    }
}
