//! Products by AMX: a tile is 16 rows of 16 groups, and one instruction multiplies two of them.
//!
//! Pixels and weights are read where the other kernels read them: 32 pixels by a panel of weights make four tiles
//! of sums, for which each step loads two tiles of pixels and two of weights. The sums leave by way of a small
//! buffer, from which vectors finish them.
//!
//! Each block of a product configures the tiles of its thread and releases them at its end: released, they cost
//! nothing when the system switches threads.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::kernel::{Kernel, compiled};
use super::microkernel::{add_to, finish};
use super::operand::{Format, Rows};
use super::panels::Panels;
use super::vector::Vector;
use super::x86::{Bfloats512, Bytes512};

/// Rows of a tile, and groups in a row.
const SIDE: usize = 16;

/// Groups of the two vectors of a panel.
const WIDTH: usize = 2 * SIDE;

/// The sums of 32 pixels by a panel.
#[repr(C, align(64))]
struct Sums([[u32; WIDTH]; 2 * SIDE]);

/// The layout of the tiles of a thread: palette 1, every tile of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Layout {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tiles that are configured until it is dropped.
struct Tiles;

impl Tiles {
    /// # Safety
    /// The process must have the permission to use tiles.
    unsafe fn configure() -> Self {
        const TILES: usize = 8;
        let mut layout = Layout { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        layout.row_bytes[..TILES].fill(64);
        layout.rows[..TILES].fill(SIDE as u8);
        // SAFETY: the instruction reads the 64 bytes of the layout; nothing but this file uses tiles.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &layout, options(readonly, nostack, preserves_flags)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: nothing but this file uses tiles.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// A kernel whose sums tiles can compute.
///
/// # Safety
/// `product` reads and writes what it says.
unsafe trait TileKernel: Kernel {
    /// The sums of `tiles` tiles of pixels, 1 or 2, by a panel, over `steps` tiles of groups.
    ///
    /// # Safety
    /// Tiles must be configured. `tiles * 16` rows of `steps * 16` groups must be readable at `a`, `stride` groups
    /// apart, and `steps * 16` rows of 32 groups at `weights`.
    unsafe fn product(a: *const u32, stride: usize, tiles: usize, weights: *const u32, steps: usize, sums: &mut Sums);

    /// `sum` and the vector of sums at `more`.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the sums must be readable.
    unsafe fn add(sum: Self::Sum, more: *const u32) -> Self::Sum;
}

/// The body of [`TileKernel::product`] with one instruction. The rows of weights and of sums are 128 bytes apart.
macro_rules! product {
    ($dot:literal, $a:ident, $stride:ident, $tiles:ident, $weights:ident, $steps:ident, $sums:ident) => {
        if $tiles == 2 {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm6, [{weights} + {width}*1]",
                "tileloadd tmm4, [{a} + {stride}*1]",
                concat!($dot, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{weights} + {width}*1 + 64]",
                concat!($dot, " tmm1, tmm4, tmm7"),
                "tileloadd tmm5, [{second} + {stride}*1]",
                concat!($dot, " tmm2, tmm5, tmm6"),
                concat!($dot, " tmm3, tmm5, tmm7"),
                "add {a}, 64",
                "add {second}, 64",
                "add {weights}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {width}*1], tmm0",
                "tilestored [{sums} + {width}*1 + 64], tmm1",
                "tilestored [{sums} + {width}*1 + 2048], tmm2",
                "tilestored [{sums} + {width}*1 + 2112], tmm3",
                a = inout(reg) $a => _,
                second = inout(reg) $a.add(SIDE * $stride) => _,
                stride = in(reg) 4 * $stride,
                weights = inout(reg) $weights => _,
                width = in(reg) 4 * WIDTH,
                steps = inout(reg) $steps => _,
                sums = in(reg) $sums,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "2:",
                "tileloadd tmm4, [{a} + {stride}*1]",
                "tileloadd tmm6, [{weights} + {width}*1]",
                concat!($dot, " tmm0, tmm4, tmm6"),
                "tileloadd tmm7, [{weights} + {width}*1 + 64]",
                concat!($dot, " tmm1, tmm4, tmm7"),
                "add {a}, 64",
                "add {weights}, 2048",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {width}*1], tmm0",
                "tilestored [{sums} + {width}*1 + 64], tmm1",
                a = inout(reg) $a => _,
                stride = in(reg) 4 * $stride,
                weights = inout(reg) $weights => _,
                width = in(reg) 4 * WIDTH,
                steps = inout(reg) $steps => _,
                sums = in(reg) $sums,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            );
        }
    };
}

// SAFETY: tiles of 16 rows of 64 bytes are read, of pixels and of weights, and written to the sums.
unsafe impl TileKernel for Bfloats512 {
    #[inline(always)]
    unsafe fn product(a: *const u32, stride: usize, tiles: usize, weights: *const u32, steps: usize, sums: &mut Sums) {
        // SAFETY: passed on.
        unsafe { product!("tdpbf16ps", a, stride, tiles, weights, steps, sums) }
    }
    #[inline(always)]
    unsafe fn add(sum: __m512, more: *const u32) -> __m512 {
        // SAFETY: passed on.
        unsafe { _mm512_add_ps(sum, _mm512_loadu_ps(more.cast())) }
    }
}

// SAFETY: as above.
unsafe impl TileKernel for Bytes512 {
    #[inline(always)]
    unsafe fn product(a: *const u32, stride: usize, tiles: usize, weights: *const u32, steps: usize, sums: &mut Sums) {
        // SAFETY: passed on.
        unsafe { product!("tdpbusd", a, stride, tiles, weights, steps, sums) }
    }
    #[inline(always)]
    unsafe fn add(sum: __m512i, more: *const u32) -> __m512i {
        // SAFETY: passed on.
        unsafe { _mm512_add_epi32(sum, _mm512_loadu_si512(more.cast())) }
    }
}

/// [`accumulate`](super::matmul::accumulate) in bfloat16 or bytes.
///
/// # Safety
/// The level must be AMX. `a` must have `m` rows of `b.k()` values ([`Rows::has`]) in the format of `b`; `c` must
/// have `m` rows of the values of `panels`, `c_stride` apart, that may be written.
pub unsafe fn accumulate(m: usize, a: Rows, b: &Panels, panels: Range<usize>, c: *mut f32, c_stride: usize) {
    compiled!(bfloat, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
        accumulate_with::<Bfloats512>(m: usize, a: Rows<'_>, b: &Panels, panels: Range<usize>, c: *mut f32, c_stride: usize));
    compiled!(bytes, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
        accumulate_with::<Bytes512>(m: usize, a: Rows<'_>, b: &Panels, panels: Range<usize>, c: *mut f32, c_stride: usize));
    // SAFETY: passed on.
    unsafe {
        if b.format() == Format::Bfloat {
            bfloat(m, a, b, panels, c, c_stride)
        } else {
            bytes(m, a, b, panels, c, c_stride)
        }
    }
}

/// [`gate`](super::matmul::gate) in bfloat16 or bytes.
///
/// # Safety
/// The level must be AMX. `a` must have `m` rows of `b.k()` values ([`Rows::has`]) in the format of `b`; two vectors
/// for each panel of `b` must be readable at `bias`; `c` must have `m` rows, `c_stride` apart, of a vector for each
/// of `panels`, that may be written.
pub unsafe fn gate(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    compiled!(bfloat, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
        gate_with::<Bfloats512>(m: usize, a: Rows<'_>, b: &Panels, panels: Range<usize>, bias: *const f32, c: *mut f32, c_stride: usize));
    compiled!(bytes, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
        gate_with::<Bytes512>(m: usize, a: Rows<'_>, b: &Panels, panels: Range<usize>, bias: *const f32, c: *mut f32, c_stride: usize));
    // SAFETY: passed on.
    unsafe {
        if b.format() == Format::Bfloat {
            bfloat(m, a, b, panels, bias, c, c_stride)
        } else {
            bytes(m, a, b, panels, bias, c, c_stride)
        }
    }
}

/// # Safety
/// As [`accumulate`]; the function must be inlined into one that enables AVX-512.
#[inline(always)]
unsafe fn accumulate_with<K: TileKernel>(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    c: *mut f32,
    c_stride: usize,
) {
    let first = panels.start;
    // SAFETY: the caller vouches for the operands.
    unsafe {
        let bias = [K::Float::splat(0.0); 2];
        let blocks = b.steps().div_ceil(b.block());
        for block in 0..blocks {
            each_tile::<K>(m, a, b, panels.clone(), block, |panel, row, sums, columns| {
                let here = (b.n() - panel * WIDTH).min(WIDTH);
                let sums = finished::<K>(sums, bias, columns, a, row);
                add_to(c.add(row * c_stride + (panel - first) * WIDTH), sums, here);
            });
        }
    }
}

/// # Safety
/// As [`gate`]; the function must be inlined into one that enables AVX-512.
#[inline(always)]
unsafe fn gate_with<K: TileKernel>(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    bias: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    let first = panels.start;
    // SAFETY: the caller vouches for the operands.
    unsafe {
        each_tile::<K>(m, a, b, panels, 0, |panel, row, sums, columns| {
            let bias = bias.add(panel * WIDTH);
            let bias = [K::Float::load(bias), K::Float::load(bias.add(SIDE))];
            let [x, y] = finished::<K>(sums, bias, columns, a, row);
            x.mul(y).store(c.add(row * c_stride + (panel - first) * SIDE));
        });
    }
}

/// Calls `take(panel, row, sums, columns)` for each of the panels and every row, with the sums of a block of `b` and what
/// describes the panel's columns there.
///
/// # Safety
/// As [`accumulate`] for `a` and `b`; `b` must have the block.
#[inline(always)]
unsafe fn each_tile<K: TileKernel>(
    m: usize,
    a: Rows,
    b: &Panels,
    panels: Range<usize>,
    block: usize,
    mut take: impl FnMut(usize, usize, *const u32, *const u32),
) {
    let (blocks, start) = (b.steps().div_ceil(b.block()), block * b.block());
    // Groups that only pad are zero; pixels that only pad are anything, and their sums are left where they are.
    let steps = b.block().min(b.steps() - start).div_ceil(SIDE);
    let mut sums = Sums([[0; WIDTH]; 2 * SIDE]);
    // SAFETY: the level is AMX, and the rows and the panels reach as far as `Rows::has` and `Panels` say.
    unsafe {
        let _tiles = Tiles::configure();
        for panel in panels {
            let weights = b.values().as_ptr().add(panel * b.stride() + start * WIDTH);
            let columns = b.columns().as_ptr().wrapping_add((panel * blocks + block) * 2 * WIDTH);
            for row in (0..m).step_by(2 * SIDE) {
                let rows = (m - row).min(2 * SIDE);
                let pixels = a.groups.as_ptr().add(row * a.stride + start);
                K::product(pixels, a.stride, rows.div_ceil(SIDE), weights, steps, &mut sums);
                for (i, sums) in sums.0.iter().enumerate().take(rows) {
                    take(panel, row + i, sums.as_ptr(), columns);
                }
            }
        }
    }
}

/// What the two vectors of sums of a pixel amount to.
///
/// # Safety
/// The function must be inlined into one that enables AVX-512; what the format needs of `columns` and of the scale
/// of the pixel `row` must be readable.
#[inline(always)]
unsafe fn finished<K: TileKernel>(
    sums: *const u32,
    bias: [K::Float; 2],
    columns: *const u32,
    a: Rows,
    row: usize,
) -> [K::Float; 2] {
    let scale = a.scales.as_ptr().wrapping_add(row);
    // SAFETY: passed on.
    unsafe {
        let first = K::add(K::begin(bias[0]), sums);
        let second = K::add(K::begin(bias[1]), sums.add(SIDE));
        finish::<K>([first, second], bias, columns, scale)
    }
}
