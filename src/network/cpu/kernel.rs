//! What a product does with one group of a pixel and a vector of weights, for each format and instruction set.
//!
//! Register tiles are written once, over [`Kernel`], and compiled for every implementation by
//! [`for_each_kernel`].

use std::marker::PhantomData;

use super::operand::Scale;
use super::vector::Vector;

/// Products and sums of one format on one instruction set.
///
/// # Safety
/// `load` reads as many groups as [`Self::Float`] has lanes, `broadcast` one.
///
/// The methods may only be called where the CPU has the instructions of the implementation. They are fast
/// only where they are inlined into a function that enables these.
pub unsafe trait Kernel {
    /// What the results are in.
    type Float: Vector;
    /// A vector of groups.
    type Groups: Copy;
    /// A vector of sums.
    type Sum: Copy;

    /// Loads groups of weights.
    ///
    /// # Safety
    /// The CPU must have the instructions, and the groups must be readable.
    unsafe fn load(from: *const u32) -> Self::Groups;

    /// Broadcasts a group of a pixel.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn broadcast(from: *const u32) -> Self::Groups;

    /// `sum` and the products of the values of `x` and `weights`, lane by lane.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn dot(sum: Self::Sum, x: Self::Groups, weights: Self::Groups) -> Self::Sum;

    /// The sums before the first product.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn begin(bias: Self::Float) -> Self::Sum;

    /// What the sums that began so amount to. `column` are those of
    /// [`Panels::columns`](super::panels::Panels::columns) for the vector, and `scale` is the pixel's.
    ///
    /// # Safety
    /// The CPU must have the instructions; where the format has scales, these must be readable.
    unsafe fn end(sum: Self::Sum, bias: Self::Float, column: *const u32, scale: *const Scale) -> Self::Float;
}

/// Float32.
pub struct Floats<V>(PhantomData<V>);

// SAFETY: a group is a float32, and the vector's methods read as many as it has lanes.
unsafe impl<V: Vector> Kernel for Floats<V> {
    type Float = V;
    type Groups = V;
    type Sum = V;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> V {
        // SAFETY: passed on.
        unsafe { V::load(from.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u32) -> V {
        // SAFETY: passed on.
        unsafe { V::splat(from.cast::<f32>().read()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: V, x: V, weights: V) -> V {
        // SAFETY: passed on.
        unsafe { x.mul_add(weights, sum) }
    }
    #[inline(always)]
    unsafe fn begin(bias: V) -> V {
        bias
    }
    #[inline(always)]
    unsafe fn end(sum: V, _: V, _: *const u32, _: *const Scale) -> V {
        sum
    }
}

/// Eight bits in sixteen, in plain Rust, for CPUs that have none of the instructions.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub struct PlainWords<V>(PhantomData<V>);

// SAFETY: four groups are read, and one.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe impl<V: Vector> Kernel for PlainWords<V> {
    type Float = V;
    type Groups = [[i16; 2]; 4];
    type Sum = [i32; 4];
    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self::Groups {
        // SAFETY: the caller vouches for four groups.
        unsafe { from.cast::<Self::Groups>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u32) -> Self::Groups {
        // SAFETY: the caller vouches for a group.
        [unsafe { from.cast::<[i16; 2]>().read_unaligned() }; 4]
    }
    #[inline(always)]
    unsafe fn dot(sum: Self::Sum, x: Self::Groups, weights: Self::Groups) -> Self::Sum {
        let product = |i: usize, j: usize| i32::from(x[i][j]) * i32::from(weights[i][j]);
        std::array::from_fn(|i| sum[i] + product(i, 0) + product(i, 1))
    }
    #[inline(always)]
    unsafe fn begin(_: V) -> Self::Sum {
        const { assert!(V::LANES == 4, "four lanes") };
        [0; 4]
    }
    #[inline(always)]
    unsafe fn end(sum: Self::Sum, bias: V, column: *const u32, scale: *const Scale) -> V {
        let sums = sum.map(|sum| sum as f32);
        // SAFETY: the caller vouches for the scales and the instructions; there are four sums.
        unsafe {
            let least = V::load(column.cast()).mul(V::splat((*scale).least));
            let sum = V::load(sums.as_ptr()).mul_add(V::splat((*scale).step), least);
            sum.mul_add(V::load(column.add(4).cast()), bias)
        }
    }
}

/// Compiles a kernel for an instruction set, under a name.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled {
    ($name:ident, $features:literal, $kernel:ident::<$Kernel:ty $(, $rows:literal)?>($($arg:ident: $Type:ty),*)) => {
        /// # Safety
        /// As the kernel; and the CPU must have these instructions.
        #[target_feature(enable = $features)]
        unsafe fn $name($($arg: $Type),*) {
            // SAFETY: the caller's promise about the arguments is passed on.
            unsafe { $kernel::<$Kernel $(, $rows)?>($($arg),*) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use compiled;

/// Defines a function that calls `$kernel::<K, ROWS>` with the [`Kernel`] of a format on the CPU at hand, and with
/// as many rows per register tile as its registers hold: of 32 (AVX-512, NEON), 24 keep a tile of 12 x 2 vectors;
/// of 16, 12 keep one of 6 x 2. The vector has [`lanes`](super::vector::lanes) lanes.
macro_rules! for_each_kernel {
    (
        $(#[$meta:meta])*
        unsafe fn $name:ident($($arg:ident: $Type:ty),* $(,)?) = $kernel:ident, $format:expr
    ) => {
        $(#[$meta])*
        #[cfg(target_arch = "x86_64")]
        unsafe fn $name($($arg: $Type),*) {
            use std::arch::x86_64::*;

            use $crate::network::cpu::kernel::{Floats, compiled};
            use $crate::network::cpu::operand::Format;
            use $crate::network::cpu::x86::*;
            use $crate::simd::{Level, level};

            compiled!(float512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
                $kernel::<Floats<__m512>, 12>($($arg: $Type),*));
            compiled!(float256, "avx2,fma", $kernel::<Floats<__m256>, 6>($($arg: $Type),*));
            compiled!(float128, "sse2", $kernel::<Floats<__m128>, 6>($($arg: $Type),*));
            compiled!(bfloat512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
                $kernel::<Bfloats512, 12>($($arg: $Type),*));
            compiled!(bytes512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
                $kernel::<Bytes512, 12>($($arg: $Type),*));
            compiled!(bytes256, "avx2,fma,avxvnni", $kernel::<Bytes256, 6>($($arg: $Type),*));
            compiled!(words512, "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
                $kernel::<Words512, 12>($($arg: $Type),*));
            compiled!(words256, "avx2,fma", $kernel::<Words256, 6>($($arg: $Type),*));
            compiled!(words128, "sse2", $kernel::<Words128, 6>($($arg: $Type),*));

            // SAFETY: the caller's promise about the arguments is passed on, `level` has found the instructions,
            // and formats are chosen by it.
            unsafe {
                match $format {
                    Format::Float if level() >= Level::Avx512 => float512($($arg),*),
                    Format::Float if level() >= Level::Avx2 => float256($($arg),*),
                    Format::Float => float128($($arg),*),
                    Format::Bfloat => bfloat512($($arg),*),
                    Format::Bytes if level() >= Level::Avx512 => bytes512($($arg),*),
                    Format::Bytes => bytes256($($arg),*),
                    Format::Words if level() >= Level::Avx512 => words512($($arg),*),
                    Format::Words if level() >= Level::Avx2 => words256($($arg),*),
                    Format::Words => words128($($arg),*),
                }
            }
        }

        $(#[$meta])*
        #[cfg(target_arch = "aarch64")]
        unsafe fn $name($($arg: $Type),*) {
            use std::arch::aarch64::float32x4_t;

            use $crate::network::cpu::kernel::Floats;
            use $crate::network::cpu::neon::{Bfloats128, Bytes128, Words128};
            use $crate::network::cpu::operand::Format;

            // SAFETY: the caller's promise about the arguments is passed on, every CPU has NEON, and formats are
            // chosen by what else the CPU has.
            unsafe {
                match $format {
                    Format::Float => $kernel::<Floats<float32x4_t>, 12>($($arg),*),
                    Format::Bfloat => $kernel::<Bfloats128, 12>($($arg),*),
                    Format::Bytes => $kernel::<Bytes128, 12>($($arg),*),
                    Format::Words => $kernel::<Words128, 6>($($arg),*),
                }
            }
        }

        $(#[$meta])*
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        unsafe fn $name($($arg: $Type),*) {
            use $crate::network::cpu::kernel::{Floats, PlainWords};
            use $crate::network::cpu::operand::Format;

            // SAFETY: the caller's promise about the arguments is passed on.
            unsafe {
                match $format {
                    Format::Float => $kernel::<Floats<[f32; 4]>, 6>($($arg),*),
                    Format::Words => $kernel::<PlainWords<[f32; 4]>, 6>($($arg),*),
                    Format::Bfloat | Format::Bytes => unreachable!("no level of this architecture chooses it"),
                }
            }
        }
    };
}
pub(crate) use for_each_kernel;
