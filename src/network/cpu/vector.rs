//! Vectors of float32, as wide as the CPU has them.
//!
//! Kernels are written once, over [`Vector`], and compiled for every instruction set by
//! [`for_each_vector`]; [`crate::simd::level`] says at run time which of them the CPU can execute.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::simd::{Level, level};

/// A vector register of float32.
///
/// # Safety
/// [`Self::LANES`] is at most 16; `load` reads and `store` writes exactly so many values.
///
/// The methods may only be called where the CPU has the instructions of the implementation. They are fast
/// only where they are inlined into a function that enables these.
pub unsafe trait Vector: Copy {
    /// The number of values in the register.
    const LANES: usize;

    /// Broadcasts one value.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn splat(value: f32) -> Self;

    /// Loads [`Self::LANES`] values, aligned or not.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the values must be readable.
    unsafe fn load(from: *const f32) -> Self;

    /// Stores [`Self::LANES`] values, aligned or not.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the values must be writable.
    unsafe fn store(self, to: *mut f32);

    /// `self * other`, lane by lane.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn mul(self, other: Self) -> Self;

    /// `self * a + b`, lane by lane; fused where the CPU can.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;

    /// The smaller of each lane; where one is no number, any of them.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn min(self, other: Self) -> Self;

    /// The larger of each lane; where one is no number, any of them.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn max(self, other: Self) -> Self;

    /// Loads `count` values, fewer than [`Self::LANES`]; the other lanes are zero.
    ///
    /// # Safety
    /// The CPU must have the instructions, `count` must be less than [`Self::LANES`], and
    /// `count` values must be readable.
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        let mut values = [0.0; 16];
        // SAFETY: the caller vouches for `count` values, and no vector has more than 16.
        unsafe {
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), count);
            Self::load(values.as_ptr())
        }
    }

    /// Stores the first `count` values, fewer than [`Self::LANES`].
    ///
    /// # Safety
    /// The CPU must have the instructions, `count` must be less than [`Self::LANES`], and
    /// `count` values must be writable.
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        let mut values = [0.0; 16];
        // SAFETY: as in `load_part`.
        unsafe {
            self.store(values.as_mut_ptr());
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, count);
        }
    }
}

/// Four lanes in plain Rust, for CPUs that have none of the vectors below.
// SAFETY: four values are read and written.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe impl Vector for [f32; 4] {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four values.
        unsafe { from.cast::<Self>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for room for four values.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| self[i] * a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].min(other[i]))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].max(other[i]))
    }
}

/// Implements [`Vector`] by the intrinsics of an instruction set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! impl_vector {
    ($Vector:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $mul:ident, $min:ident, $max:ident, |$x:ident, $a:ident, $b:ident| $fma:expr) => {
        // SAFETY: a register has so many values, and its intrinsics read and write all of them.
        unsafe impl Vector for $Vector {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                // SAFETY: the caller vouches for the instructions.
                unsafe { $splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller vouches for the instructions and the values.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller vouches for the instructions and the room.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                // SAFETY: the caller vouches for the instructions.
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            unsafe fn min(self, other: Self) -> Self {
                // SAFETY: the caller vouches for the instructions.
                unsafe { $min(self, other) }
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                // SAFETY: the caller vouches for the instructions.
                unsafe { $max(self, other) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, $a: Self, $b: Self) -> Self {
                let $x = self;
                // SAFETY: the caller vouches for the instructions.
                unsafe { $fma }
            }
        }
    };
}

// SSE2, which every x86-64 CPU has.
#[cfg(target_arch = "x86_64")]
impl_vector!(__m128, 4, _mm_set1_ps, _mm_loadu_ps, _mm_storeu_ps, _mm_mul_ps, _mm_min_ps, _mm_max_ps, |x, a, b| {
    _mm_add_ps(_mm_mul_ps(x, a), b)
});
#[cfg(target_arch = "x86_64")]
impl_vector!(
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_mul_ps,
    _mm512_min_ps,
    _mm512_max_ps,
    |x, a, b| _mm512_fmadd_ps(x, a, b)
);
#[cfg(target_arch = "x86_64")]
impl_vector!(
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_mul_ps,
    _mm256_min_ps,
    _mm256_max_ps,
    |x, a, b| _mm256_fmadd_ps(x, a, b)
);
#[cfg(target_arch = "aarch64")]
impl_vector!(float32x4_t, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, vmulq_f32, vminq_f32, vmaxq_f32, |x, a, b| vfmaq_f32(
    b, x, a
));

/// Lanes of the vectors that kernels use on this CPU.
pub fn lanes() -> usize {
    match level() {
        level if level >= Level::Avx512 => 16,
        level if level >= Level::Avx2 => 8,
        _ => 4,
    }
}

/// Defines a function that calls a kernel `$kernel::<V, ROWS>` with the vector of the CPU at hand,
/// and with as many rows per register tile as its registers hold: of 32 (AVX-512, NEON), 24 keep a
/// tile of 12 x 2 vectors; of 16, 12 keep one of 6 x 2. The vector has [`lanes`] lanes.
macro_rules! for_each_vector {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $Type:ty),* $(,)?) = $kernel:ident) => {
        $(#[$meta])*
        $vis unsafe fn $name($($arg: $Type),*) {
            /// # Safety
            /// As the kernel; and the CPU must have these instructions.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            unsafe fn avx512($($arg: $Type),*) {
                // SAFETY: the caller's promise about the arguments is passed on.
                unsafe { $kernel::<std::arch::x86_64::__m512, 12>($($arg),*) }
            }

            /// # Safety
            /// As the kernel; and the CPU must have these instructions.
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $Type),*) {
                // SAFETY: the caller's promise about the arguments is passed on.
                unsafe { $kernel::<std::arch::x86_64::__m256, 6>($($arg),*) }
            }

            // SAFETY: the caller's promise about the arguments is passed on, and `level` has found
            // the instructions.
            unsafe {
                match $crate::simd::level() {
                    #[cfg(target_arch = "x86_64")]
                    level if level >= $crate::simd::Level::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    level if level >= $crate::simd::Level::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    _ => $kernel::<std::arch::x86_64::__m128, 6>($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    _ => $kernel::<std::arch::aarch64::float32x4_t, 12>($($arg),*),
                    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
                    _ => $kernel::<[f32; 4], 6>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use for_each_vector;
