//! One register tile of a product: a few pixels by one panel of weights, two vectors wide.
//!
//! For each step it loads two vectors of weights, broadcasts one group of every pixel, and adds their products
//! to two vectors of sums. Pixels are read where they are, without packing: a broadcast does not mind strides.

use super::kernel::Kernel;
use super::operand::Scale;
use super::vector::Vector;

/// Calls `$microkernel::<K, r>($args)` for a number of rows `r` of at most `ROWS` that is known only at run
/// time.
macro_rules! with_rows {
    ($rows:expr, $microkernel:ident::<$K:ident>($($arg:expr),*)) => {
        match $rows {
            1 => $microkernel::<$K, 1>($($arg),*),
            2 => $microkernel::<$K, 2>($($arg),*),
            3 => $microkernel::<$K, 3>($($arg),*),
            4 => $microkernel::<$K, 4>($($arg),*),
            5 => $microkernel::<$K, 5>($($arg),*),
            6 => $microkernel::<$K, 6>($($arg),*),
            7 if ROWS > 6 => $microkernel::<$K, 7>($($arg),*),
            8 if ROWS > 6 => $microkernel::<$K, 8>($($arg),*),
            9 if ROWS > 6 => $microkernel::<$K, 9>($($arg),*),
            10 if ROWS > 6 => $microkernel::<$K, 10>($($arg),*),
            11 if ROWS > 6 => $microkernel::<$K, 11>($($arg),*),
            12 if ROWS > 6 => $microkernel::<$K, 12>($($arg),*),
            _ => unreachable!("`tiles` makes none of more rows"),
        }
    };
}
pub(super) use with_rows;

/// What a register tile of the kernel `K` is made of: `R` pixels, and a panel of weights.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The number of groups of a pixel that are multiplied.
    pub steps: usize,
    /// The first pixel, and groups from one to the next.
    pub a: *const u32,
    pub a_stride: usize,
    /// The scale of the first pixel, and of those after it, if the format has scales.
    pub scales: *const Scale,
    /// `2 * LANES` groups for each step.
    pub weights: *const u32,
    /// [`Panels::columns`](super::panels::Panels::columns) for these weights, if the format has scales.
    pub columns: *const u32,
    /// What the CPU is asked to fetch meanwhile, a step so many bytes further at each step.
    pub next: *const u8,
    pub next_step: usize,
}

/// Asks the CPU to fetch a cache line, from whatever address.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, which changes nothing and ignores addresses that are none.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The sums of one register tile. Step `i` reads group `at(i)` of the pixels.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `K`. What `tile` names must be
/// readable, the pixels at `at(i)` for every `i` below its steps.
#[inline(always)]
unsafe fn multiply<K: Kernel, const R: usize>(
    tile: Tile,
    bias: [K::Float; 2],
    at: impl Fn(usize) -> usize,
) -> [[K::Sum; 2]; R] {
    let lanes = K::Float::LANES;
    // Loops and no closures: what the standard library calls is not compiled for these instructions.
    // SAFETY: the step is below `tile.steps` and the row below `R`, for which the caller vouches.
    unsafe {
        let mut sums = [[K::begin(bias[0]), K::begin(bias[1])]; R];
        for i in 0..tile.steps {
            let weights = tile.weights.add(i * 2 * lanes);
            let (w0, w1) = (K::load(weights), K::load(weights.add(lanes)));
            let a = tile.a.add(at(i));
            prefetch(tile.next.wrapping_add(i * tile.next_step));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = K::broadcast(a.add(row * tile.a_stride));
                sums[0] = K::dot(sums[0], x, w0);
                sums[1] = K::dot(sums[1], x, w1);
            }
        }
        sums
    }
}

/// What the two vectors of sums of a pixel amount to.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `K`; what the format needs of `columns`
/// and `scale` must be readable.
#[inline(always)]
pub(super) unsafe fn finish<K: Kernel>(
    sums: [K::Sum; 2],
    bias: [K::Float; 2],
    columns: *const u32,
    scale: *const Scale,
) -> [K::Float; 2] {
    // SAFETY: passed on.
    unsafe {
        [
            K::end(sums[0], bias[0], columns, scale),
            K::end(sums[1], bias[1], columns.wrapping_add(2 * K::Float::LANES), scale),
        ]
    }
}

/// Adds one register tile to `c`, which has only `columns` columns here.
///
/// # Safety
/// As [`multiply`]; and `c` must have `R` rows of `columns` values, `c_stride` apart, that may be written.
#[inline(always)]
pub(super) unsafe fn accumulate_microkernel<K: Kernel, const R: usize>(
    tile: Tile,
    at: impl Fn(usize) -> usize,
    c: *mut f32,
    c_stride: usize,
    columns: usize,
) {
    // SAFETY: the caller vouches for the operands of the product; and of `c`, no column from `columns` on is
    // touched.
    unsafe {
        let zero = K::Float::splat(0.0);
        for (row, sums) in multiply::<K, R>(tile, [zero; 2], at).into_iter().enumerate() {
            let sums = finish::<K>(sums, [zero; 2], tile.columns, tile.scales.wrapping_add(row));
            add_to(c.add(row * c_stride), sums, columns);
        }
    }
}

/// Adds two vectors to the `columns` values at `c`.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `V`, and so many values must be
/// writable.
#[inline(always)]
pub(super) unsafe fn add_to<V: Vector>(c: *mut f32, sums: [V; 2], columns: usize) {
    // SAFETY: no value from `columns` on is touched.
    unsafe {
        let one = V::splat(1.0);
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

/// Writes the product of the two vectors of one register tile, each with its bias.
///
/// # Safety
/// As [`multiply`], where step `i` reads group `i`; two vectors at `bias` must be readable, and `c` must have
/// `R` rows of a vector, `c_stride` apart, that may be written.
#[inline(always)]
pub(super) unsafe fn gate_microkernel<K: Kernel, const R: usize>(
    tile: Tile,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller vouches for every operand.
    unsafe {
        let bias = [K::Float::load(bias), K::Float::load(bias.add(K::Float::LANES))];
        for (row, sums) in multiply::<K, R>(tile, bias, |i| i).into_iter().enumerate() {
            let [x, y] = finish::<K>(sums, bias, tile.columns, tile.scales.wrapping_add(row));
            x.mul(y).store(c.add(row * c_stride));
        }
    }
}
