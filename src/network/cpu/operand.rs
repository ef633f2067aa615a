//! Pixels made ready for a product: in float32 as they are, in bfloat16 or as bytes after rounding.
//!
//! Kernels read them in groups of 32 bits, so that one instruction broadcasts a group whatever is in it.

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use rayon::prelude::*;

use super::buffer::Buffer;
use super::extent;
use super::vector::{Vector, for_each_vector};
use crate::simd::{Level, level, vectorised};

/// What the values of a product are rounded to, and how the CPU at hand wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Float32, one in a group.
    Float,
    /// Bfloat16, two in a group.
    Bfloat,
    /// Eight bits, four in a group: weights have a sign, and pixels, on x86, have none.
    Bytes,
    /// Eight bits held in sixteen, two in a group, for CPUs that have no products of bytes.
    Words,
}

/// What a product is to be computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// Float32.
    Float32,
    /// Bfloat16, with sums in float32. A CPU that has none takes rounded weights, and computes in float32.
    Bfloat16,
    /// Eight bits, with exact sums.
    Int8,
}

impl Products {
    /// The format for the CPU at hand.
    pub fn format(self) -> Format {
        match (self, level()) {
            (Self::Bfloat16, Level::Bf16) => Format::Bfloat,
            (Self::Bfloat16, level) if level >= Level::Avx512Bf16 => Format::Bfloat,
            (Self::Float32 | Self::Bfloat16, _) => Format::Float,
            (Self::Int8, Level::Dotprod | Level::Bf16 | Level::AvxVnni) => Format::Bytes,
            (Self::Int8, level) if level >= Level::Avx512Vnni => Format::Bytes,
            (Self::Int8, _) => Format::Words,
        }
    }

    /// The instruction set that computes them: the lowest level that has what is used.
    pub fn instructions(self) -> String {
        let floats = match level() {
            level if level >= Level::Avx512 => Level::Avx512,
            level if level >= Level::Avx2 => Level::Avx2,
            _ => Level::Portable,
        };
        let used = match self.format() {
            Format::Float | Format::Words => floats,
            Format::Bfloat => level(),
            Format::Bytes if level() == Level::Avx512Bf16 => Level::Avx512Vnni,
            Format::Bytes if level() == Level::Bf16 => Level::Dotprod,
            Format::Bytes => level(),
        };
        match (self, self.format()) {
            (Self::Bfloat16, Format::Float) => format!("{} in float32", used.name()),
            _ => used.name().into(),
        }
    }

    /// A weight as it is before it is packed.
    pub(super) fn weight(self, value: f32) -> f32 {
        match self {
            Self::Bfloat16 => f32::from_bits(u32::from(to_bfloat(value)) << 16),
            Self::Float32 | Self::Int8 => value,
        }
    }
}

impl Format {
    /// Values in a group.
    pub fn group(self) -> usize {
        match self {
            Self::Float => 1,
            Self::Bfloat | Self::Words => 2,
            Self::Bytes => 4,
        }
    }

    /// Groups of `k` values.
    pub fn groups(self, k: usize) -> usize {
        k.div_ceil(self.group())
    }

    /// Groups of `k` values with those that only pad. Tiles have rows of 16; float32 has no tiles.
    pub fn padded_groups(self, k: usize) -> usize {
        if self == Self::Float { k } else { self.groups(k).next_multiple_of(16) }
    }

    /// Whether the CPU at hand has the instructions for it: it is float32, or a format that was chosen for it.
    pub(super) fn is_available(self) -> bool {
        matches!(self, Self::Float | Self::Words)
            || [Products::Bfloat16, Products::Int8].map(Products::format).contains(&self)
    }

    /// Whether values are rounded to a scale of their pixel.
    pub fn is_scaled(self) -> bool {
        matches!(self, Self::Bytes | Self::Words)
    }
}

/// How the bytes `q` of a pixel are to be read: as `least + step * q`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Scale {
    pub step: f32,
    pub least: f32,
}

/// Rows of a matrix in memory: group `j` of row `i` is at `groups[i * stride + j]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub(super) groups: &'a [u32],
    /// Groups from the beginning of one row to that of the next.
    pub(super) stride: usize,
    /// A scale for each row, where the format has scales.
    pub(super) scales: &'a [Scale],
    pub(super) format: Format,
}

impl<'a> Rows<'a> {
    /// Rows of float32 as they are, `stride` values apart.
    pub fn floats(data: &'a [f32], stride: usize) -> Self {
        Self { groups: cast_slice(data), stride, scales: &[], format: Format::Float }
    }

    /// Whether there are `m` rows of `k` values, with all that a kernel may read beyond them.
    pub(super) fn has(&self, m: usize, k: usize) -> bool {
        let (rows, scales) = match self.format {
            Format::Float => (m, 0),
            Format::Bfloat => (m.next_multiple_of(16), 0),
            Format::Bytes | Format::Words => (m.next_multiple_of(16), m),
        };
        self.groups.len() >= extent(rows, self.stride, self.format.padded_groups(k)) && self.scales.len() >= scales
    }
}

/// A growing buffer of rounded pixels.
#[derive(Debug, Default)]
pub struct Operand {
    groups: Buffer,
    scales: Buffer,
}

impl Operand {
    /// Groups from one pixel of `k` values to the next: an odd number of cache lines, so that neighbours do not
    /// fall into the same set of the cache.
    pub fn stride(format: Format, k: usize) -> usize {
        (format.padded_groups(k).div_ceil(16) | 1) * 16
    }

    /// Rounds `count` pixels of `k` values, `pixel` apart in `x`, into the places from `first` on.
    ///
    /// # Panics
    /// If `x` is too short, or the format is float32, which is not rounded.
    pub fn round(&mut self, format: Format, first: usize, count: usize, x: &[f32], pixel: usize, k: usize) {
        let (groups, scales) = self.places(format, first, count, k);
        assert!(count == 0 || x.len() >= extent(count, pixel, k), "too few pixels to round");
        round(format, x, pixel, k, groups, scales);
    }

    /// The groups and scales of `count` pixels from the place `first` on. There is room for whole tiles of pixels.
    fn places(&mut self, format: Format, first: usize, count: usize, k: usize) -> (&mut [u32], &mut [Scale]) {
        let (stride, end) = (Self::stride(format, k), (first + count).next_multiple_of(16));
        let groups = &mut self.groups.grow_to::<u32>(end * stride)[first * stride..][..count * stride];
        (groups, &mut self.scales.grow_to::<Scale>(end)[first..][..count])
    }

    /// [`Self::round`] of the pixels from the first place on, by `threads` of rayon's threads.
    ///
    /// # Panics
    /// As [`Self::round`].
    pub fn round_by(&mut self, threads: usize, format: Format, count: usize, x: &[f32], pixel: usize, k: usize) {
        let (groups, scales) = self.places(format, 0, count, k);
        assert!(count == 0 || x.len() >= extent(count, pixel, k), "too few pixels to round");
        let part = count.div_ceil(threads).max(1);
        let parts = groups.par_chunks_mut(part * Self::stride(format, k)).zip(scales.par_chunks_mut(part)).enumerate();
        parts.for_each(|(i, (groups, scales))| round(format, &x[i * part * pixel..], pixel, k, groups, scales));
    }

    /// [`Self::round`], or a copy if the format is float32.
    ///
    /// # Panics
    /// If `x` is too short.
    pub fn take(&mut self, format: Format, first: usize, count: usize, x: &[f32], pixel: usize, k: usize) {
        if format != Format::Float {
            return self.round(format, first, count, x, pixel, k);
        }
        let stride = Self::stride(format, k);
        assert!(count == 0 || x.len() >= extent(count, pixel, k), "too few pixels to take");
        let floats = &mut self.groups.grow_to::<f32>((first + count) * stride)[first * stride..];
        for (to, from) in floats.chunks_exact_mut(stride).zip(x.chunks(pixel)).take(count) {
            to[..k].copy_from_slice(&from[..k]);
        }
    }

    /// The pixels, which [`Self::take`] has written with the same format and `k`.
    pub fn rows(&self, format: Format, k: usize) -> Rows<'_> {
        let (groups, scales) = (self.groups.as_slice(), self.scales.as_slice());
        Rows { groups, stride: Self::stride(format, k), scales, format }
    }
}

/// Rounds as many pixels as there are scales. The groups are theirs.
fn round(format: Format, x: &[f32], pixel: usize, k: usize, groups: &mut [u32], scales: &mut [Scale]) {
    let stride = Operand::stride(format, k);
    match format {
        Format::Float => unreachable!("float32 is not rounded"),
        Format::Bfloat => round_to_bfloat(x, pixel, k, groups, stride),
        Format::Bytes => round_to_bytes(x, pixel, k, groups, stride, scales),
        Format::Words => round_to_words(x, pixel, k, groups, stride, scales),
    }
}

/// The nearest bfloat16, of two equally near the even one.
#[inline(always)]
pub(super) fn to_bfloat(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    // Rounded like a number, what is none could become infinity.
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

vectorised! {
    fn round_to_bfloat(x: &[f32], pixel: usize, k: usize, groups: &mut [u32], stride: usize) {
        for (x, groups) in x.chunks(pixel).zip(groups.chunks_exact_mut(stride)) {
            let (values, padding) = cast_slice_mut::<u32, u16>(groups).split_at_mut(k);
            for (to, from) in values.iter_mut().zip(&x[..k]) {
                *to = to_bfloat(*from);
            }
            padding.fill(0);
        }
    }
}

/// Added to a number from -2^22 to 2^22, it leaves the nearest whole number, of two the even one, in the last bits.
const MAGIC: f32 = 12_582_912.0;

/// What is added to bytes without a sign where the CPU's products want one.
const OFFSET: u8 = if cfg!(target_arch = "aarch64") { 128 } else { 0 };

/// The scale of each of some pixels: the range of its values in 255 steps.
pub(super) fn scales_of(x: &[f32], pixel: usize, k: usize, scales: &mut [Scale]) {
    assert!(k > 0, "pixels without values");
    assert!(scales.is_empty() || x.len() >= extent(scales.len(), pixel, k), "too few pixels to round");
    // SAFETY: the assertion is what the kernel asks for.
    unsafe { scales_any(x.as_ptr(), pixel, k, scales) }
}

for_each_vector! {
    /// [`scales_with`] for the CPU at hand.
    ///
    /// # Safety
    /// As [`scales_with`].
    unsafe fn scales_any(x: *const f32, pixel: usize, k: usize, scales: &mut [Scale]) = scales_with
}

/// [`scales_of`], whatever the rows per register tile.
///
/// # Safety
/// The function must be inlined into one that enables the instructions of `V`. For each of the scales there must
/// be `k` values at `x`, `pixel` values apart, and `k` is not zero.
#[inline(always)]
unsafe fn scales_with<V: Vector, const ROWS: usize>(x: *const f32, pixel: usize, k: usize, scales: &mut [Scale]) {
    /// Vectors of each result, so that they do not wait for each other.
    const PARTS: usize = 4;
    for (i, scale) in scales.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the values, of which there is one at least; no vector has more than 16.
        let (mut least, mut most, mut faulty) =
            unsafe { ([*x.add(i * pixel); 16], [*x.add(i * pixel); 16], [0f32; 16]) };
        // SAFETY: as above.
        unsafe {
            let x = x.add(i * pixel);
            let zero = V::splat(0.0);
            let [mut low, mut high, mut sum] = [[V::splat(*x); PARTS], [V::splat(*x); PARTS], [zero; PARTS]];
            let whole = k / (PARTS * V::LANES) * PARTS * V::LANES;
            for start in (0..whole).step_by(PARTS * V::LANES) {
                for part in 0..PARTS {
                    let v = V::load(x.add(start + part * V::LANES));
                    low[part] = v.min(low[part]);
                    high[part] = v.max(high[part]);
                    // Zero, unless a value is infinite or none.
                    sum[part] = v.mul_add(zero, sum[part]);
                }
            }
            for i in whole..k {
                let v = *x.add(i);
                least[0] = if v < least[0] { v } else { least[0] };
                most[0] = if v > most[0] { v } else { most[0] };
                faulty[0] += v * 0.0;
            }
            for part in 1..PARTS {
                low[0] = low[0].min(low[part]);
                high[0] = high[0].max(high[part]);
                sum[0] = sum[0].mul_add(V::splat(1.0), sum[part]);
            }
            low[0].min(V::load(least.as_ptr())).store(least.as_mut_ptr());
            high[0].max(V::load(most.as_ptr())).store(most.as_mut_ptr());
            sum[0].mul_add(V::splat(1.0), V::load(faulty.as_ptr())).store(faulty.as_mut_ptr());
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                least[i] = if least[i + half] < least[i] { least[i + half] } else { least[i] };
                most[i] = if most[i + half] > most[i] { most[i + half] } else { most[i] };
                faulty[i] += faulty[i + half];
            }
        }
        *scale = Scale { step: (most[0] - least[0]) / 255.0 + faulty[0], least: least[0] };
    }
}

/// The nearest whole number, of two the even one, of a number from -2^22 to 2^22.
#[inline(always)]
pub(super) fn nearest(value: f32) -> i32 {
    (value + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i32
}

impl Scale {
    /// What a difference to the least value is multiplied with to be counted in steps. Of smaller steps the inverse
    /// would be infinite; to any other pixel they are nothing.
    #[inline(always)]
    fn inverse(self) -> f32 {
        if self.step < 1e-32 { 0.0 } else { 1.0 / self.step }
    }
}

/// A value in steps from the least one on, as the last bits of a float32.
#[inline(always)]
fn steps(value: f32, least: f32, inverse: f32) -> u32 {
    ((value - least) * inverse + MAGIC).to_bits()
}

vectorised! {
    fn round_to_bytes(x: &[f32], pixel: usize, k: usize, groups: &mut [u32], stride: usize, scales: &mut [Scale]) {
        scales_of(x, pixel, k, scales);
        for ((x, groups), scale) in x.chunks(pixel).zip(groups.chunks_exact_mut(stride)).zip(scales) {
            let x = &x[..k];
            let (inverse, least) = (scale.inverse(), scale.least);
            let (values, padding) = cast_slice_mut::<u32, u8>(groups).split_at_mut(k);
            for (to, from) in values.iter_mut().zip(x) {
                *to = (steps(*from, least, inverse) as u8).wrapping_sub(OFFSET);
            }
            padding.fill(0);
            scale.least += f32::from(OFFSET) * scale.step;
        }
    }
}

vectorised! {
    fn round_to_words(x: &[f32], pixel: usize, k: usize, groups: &mut [u32], stride: usize, scales: &mut [Scale]) {
        scales_of(x, pixel, k, scales);
        for ((x, groups), scale) in x.chunks(pixel).zip(groups.chunks_exact_mut(stride)).zip(scales) {
            let x = &x[..k];
            let (inverse, least) = (scale.inverse(), scale.least);
            let (values, padding) = cast_slice_mut::<u32, i16>(groups).split_at_mut(k);
            for (to, from) in values.iter_mut().zip(x) {
                *to = i16::from(steps(*from, least, inverse) as u8);
            }
            padding.fill(0);
        }
    }
}
