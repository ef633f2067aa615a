//! The element type that a network computes in.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use crate::network::cpu::operand::Products;

/// An element type that a network computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Float64.
    F64,
    /// Float32.
    F32,
    /// Float32, with what enters products of matrices rounded to ten bits of fraction. On CUDA only, from Ampere on.
    Tf32,
    /// Float16.
    F16,
    /// Bfloat16. On the CPU, what enters the products of 1x1 convolutions, and nothing else.
    Bf16,
    /// Eight bits for what enters the products of 1x1 convolutions, and float32 for everything else. Weights have a
    /// scale for each output channel, inputs one for each pixel. On the CPU only. Rounding hurts less after
    /// `qlnet::symmetry::prepare_for_int8` has moved the weights, which the program does by itself.
    Int8,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 6] = [Self::F32, Self::F64, Self::Tf32, Self::F16, Self::Bf16, Self::Int8];

    /// Its name: `f32`, `f64`, `tf32`, `f16`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The type of tensors that a network of this precision takes and gives on a device.
    pub(crate) fn dtype(self, device: &Device) -> DType {
        match self {
            Self::F64 => DType::F64,
            Self::F16 => DType::F16,
            Self::Bf16 if !device.is_cpu() => DType::BF16,
            Self::F32 | Self::Tf32 | Self::Bf16 | Self::Int8 => DType::F32,
        }
    }

    /// The products of the fused blocks, if it is a precision of these.
    pub(super) fn products(self) -> Option<Products> {
        match self {
            Self::F32 => Some(Products::Float32),
            Self::Bf16 => Some(Products::Bfloat16),
            Self::Int8 => Some(Products::Int8),
            Self::F64 | Self::Tf32 | Self::F16 => None,
        }
    }

    /// The products of the fused blocks that a network of this precision has on a device, if it has such blocks.
    pub(super) fn fused(self, device: &Device) -> Option<Products> {
        self.products().filter(|_| device.is_cpu())
    }

    /// What computes the products of 1x1 convolutions in this precision on a device, as an instruction set
    /// where it is known.
    pub(crate) fn instructions(self, device: &Device) -> Option<String> {
        self.fused(device).map(Products::instructions)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == text)
            .ok_or_else(|| "expected f32, f64, tf32, f16, bf16 or int8".into())
    }
}
