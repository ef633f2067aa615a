//! Products in bfloat16 and of eight bits on x86-64.

use std::arch::x86_64::*;

use super::kernel::Kernel;
use super::operand::Scale;
use super::vector::Vector;

/// Pairs of bfloat16 by `AVX512-BF16`.
pub struct Bfloats512;

// SAFETY: a register has 16 groups.
unsafe impl Kernel for Bfloats512 {
    type Float = __m512;
    type Groups = __m512bh;
    type Sum = __m512;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512bh {
        // SAFETY: the caller vouches for the instructions and the groups; any bits are pairs of bfloat16.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u32) -> __m512bh {
        // SAFETY: the caller vouches for the instructions and the group; any bits are pairs of bfloat16.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(from.read() as i32)) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512, x: __m512bh, weights: __m512bh) -> __m512 {
        // SAFETY: the caller vouches for the instructions.
        unsafe { _mm512_dpbf16_ps(sum, x, weights) }
    }
    #[inline(always)]
    unsafe fn begin(bias: __m512) -> __m512 {
        bias
    }
    #[inline(always)]
    unsafe fn end(sum: __m512, _: __m512, _: *const u32, _: *const Scale) -> __m512 {
        sum
    }
}

/// Implements [`Kernel`] for eight bits. The sums are exact; what the least value of the pixel adds, it times the sum
/// of the weights, is added in float32.
macro_rules! impl_integers {
    (
        $(#[$meta:meta])* $Name:ident, $Float:ty, $Integer:ty, $lanes:literal, $load:ident, $broadcast:ident, $none:ident, $to_float:ident,
        dot($sum:ident, $x:ident, $weights:ident) $dot:expr
    ) => {
        $(#[$meta])*
        pub struct $Name;

        // SAFETY: a register has so many groups.
        unsafe impl Kernel for $Name {
            type Float = $Float;
            type Groups = $Integer;
            type Sum = $Integer;
            #[inline(always)]
            unsafe fn load(from: *const u32) -> $Integer {
                // SAFETY: the caller vouches for the instructions and the groups.
                unsafe { $load(from.cast()) }
            }
            #[inline(always)]
            unsafe fn broadcast(from: *const u32) -> $Integer {
                // SAFETY: the caller vouches for the instructions and the group.
                unsafe { $broadcast(from.read() as i32) }
            }
            #[inline(always)]
            unsafe fn dot($sum: $Integer, $x: $Integer, $weights: $Integer) -> $Integer {
                // SAFETY: the caller vouches for the instructions.
                unsafe { $dot }
            }
            #[inline(always)]
            unsafe fn begin(_: $Float) -> $Integer {
                // SAFETY: the caller vouches for the instructions.
                unsafe { $none() }
            }
            #[inline(always)]
            unsafe fn end(sum: $Integer, bias: $Float, column: *const u32, scale: *const Scale) -> $Float {
                // SAFETY: the caller vouches for the instructions, the scale and what describes the column.
                unsafe {
                    let least = <$Float>::load(column.cast()).mul(<$Float>::splat((*scale).least));
                    let sum = $to_float(sum).mul_add(<$Float>::splat((*scale).step), least);
                    sum.mul_add(<$Float>::load(column.add($lanes).cast()), bias)
                }
            }
        }
    };
}

impl_integers!(
    /// Four bytes by `AVX512-VNNI`.
    Bytes512, __m512, __m512i, 16, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_cvtepi32_ps,
    dot(sum, x, weights) _mm512_dpbusd_epi32(sum, x, weights)
);

impl_integers!(
    /// Four bytes by `AVX-VNNI`.
    Bytes256, __m256, __m256i, 8, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_cvtepi32_ps,
    dot(sum, x, weights) _mm256_dpbusd_avx_epi32(sum, x, weights)
);

impl_integers!(
    /// Pairs of sixteen bits by `AVX-512BW`.
    Words512, __m512, __m512i, 16, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_cvtepi32_ps,
    dot(sum, x, weights) _mm512_add_epi32(sum, _mm512_madd_epi16(x, weights))
);

impl_integers!(
    /// Pairs of sixteen bits by AVX2.
    Words256, __m256, __m256i, 8, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_cvtepi32_ps,
    dot(sum, x, weights) _mm256_add_epi32(sum, _mm256_madd_epi16(x, weights))
);

impl_integers!(
    /// Pairs of sixteen bits by SSE2.
    Words128, __m128, __m128i, 4, _mm_loadu_si128, _mm_set1_epi32, _mm_setzero_si128, _mm_cvtepi32_ps,
    dot(sum, x, weights) _mm_add_epi32(sum, _mm_madd_epi16(x, weights))
);
