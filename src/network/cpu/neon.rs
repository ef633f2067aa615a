//! Products in bfloat16 and of eight bits on aarch64. The intrinsics of NEON's dot products are not stable.

use std::arch::aarch64::*;
use std::arch::asm;

use super::kernel::Kernel;
use super::operand::Scale;
use super::vector::Vector;

/// Pairs of bfloat16 by `BFDOT`. It rounds the sum of two products, and what it is added to, each to the odd one of the
/// two nearest numbers, and takes numbers below 2^-126 for zero.
pub struct Bfloats128;

// SAFETY: a register has four groups.
unsafe impl Kernel for Bfloats128 {
    type Float = float32x4_t;
    type Groups = uint32x4_t;
    type Sum = float32x4_t;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> uint32x4_t {
        // SAFETY: the caller vouches for the groups.
        unsafe { vld1q_u32(from) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u32) -> uint32x4_t {
        // SAFETY: the caller vouches for the group.
        unsafe { vld1q_dup_u32(from) }
    }
    #[inline(always)]
    unsafe fn dot(mut sum: float32x4_t, x: uint32x4_t, weights: uint32x4_t) -> float32x4_t {
        // SAFETY: the caller vouches for the instruction, which changes one register.
        unsafe {
            asm!(
                ".arch_extension bf16",
                "bfdot {sum:v}.4s, {x:v}.8h, {weights:v}.8h",
                sum = inout(vreg) sum,
                x = in(vreg) x,
                weights = in(vreg) weights,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }
    #[inline(always)]
    unsafe fn begin(bias: float32x4_t) -> float32x4_t {
        bias
    }
    #[inline(always)]
    unsafe fn end(sum: float32x4_t, _: float32x4_t, _: *const u32, _: *const Scale) -> float32x4_t {
        sum
    }
}

/// Four bytes by `SDOT`. Pixels have a sign here, as the instruction wants it.
pub struct Bytes128;

// SAFETY: a register has four groups.
unsafe impl Kernel for Bytes128 {
    type Float = float32x4_t;
    type Groups = int8x16_t;
    type Sum = int32x4_t;
    #[inline(always)]
    unsafe fn load(from: *const u32) -> int8x16_t {
        // SAFETY: the caller vouches for the groups.
        unsafe { vld1q_s8(from.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u32) -> int8x16_t {
        // SAFETY: the caller vouches for the group.
        unsafe { vreinterpretq_s8_u32(vld1q_dup_u32(from)) }
    }
    #[inline(always)]
    unsafe fn dot(mut sum: int32x4_t, x: int8x16_t, weights: int8x16_t) -> int32x4_t {
        // SAFETY: the caller vouches for the instruction, which changes one register.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {x:v}.16b, {weights:v}.16b",
                sum = inout(vreg) sum,
                x = in(vreg) x,
                weights = in(vreg) weights,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sum
    }
    #[inline(always)]
    unsafe fn begin(_: float32x4_t) -> int32x4_t {
        // SAFETY: every CPU of this architecture has the instruction.
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn end(sum: int32x4_t, bias: float32x4_t, column: *const u32, scale: *const Scale) -> float32x4_t {
        // SAFETY: the caller vouches for the scale and the steps of the column.
        unsafe {
            let least = float32x4_t::load(column.cast()).mul(float32x4_t::splat((*scale).least));
            let sum = vcvtq_f32_s32(sum).mul_add(float32x4_t::splat((*scale).step), least);
            sum.mul_add(float32x4_t::load(column.add(4).cast()), bias)
        }
    }
}

/// Pairs of sixteen bits. The first two groups' products are added to one register, and the last two's to another, so
/// that one instruction does four of them.
pub struct Words128;

// SAFETY: a register has four groups.
unsafe impl Kernel for Words128 {
    type Float = float32x4_t;
    type Groups = int16x8_t;
    type Sum = [int32x4_t; 2];
    #[inline(always)]
    unsafe fn load(from: *const u32) -> int16x8_t {
        // SAFETY: the caller vouches for the groups.
        unsafe { vld1q_s16(from.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const u32) -> int16x8_t {
        // SAFETY: the caller vouches for the group.
        unsafe { vreinterpretq_s16_u32(vld1q_dup_u32(from)) }
    }
    #[inline(always)]
    unsafe fn dot([first, last]: [int32x4_t; 2], x: int16x8_t, weights: int16x8_t) -> [int32x4_t; 2] {
        // SAFETY: every CPU of this architecture has the instructions.
        unsafe { [vmlal_s16(first, vget_low_s16(x), vget_low_s16(weights)), vmlal_high_s16(last, x, weights)] }
    }
    #[inline(always)]
    unsafe fn begin(_: float32x4_t) -> [int32x4_t; 2] {
        // SAFETY: every CPU of this architecture has the instruction.
        unsafe { [vdupq_n_s32(0); 2] }
    }
    #[inline(always)]
    unsafe fn end(
        [first, last]: [int32x4_t; 2],
        bias: float32x4_t,
        column: *const u32,
        scale: *const Scale,
    ) -> float32x4_t {
        // SAFETY: the caller vouches for the scale and the steps of the column.
        unsafe { Bytes128::end(vpaddq_s32(first, last), bias, column, scale) }
    }
}
