//! The device that a network runs on, and the element type it runs in.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, utils};

/// What `--device` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA or Metal where this build has it and the machine too, else the CPU.
    Auto,
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => match text {
                "auto" => Ok(Self::Auto),
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "metal" => Ok(Self::Metal),
                _ => Err("expected auto, cpu, cuda, cuda:N or metal".into()),
            },
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| format!("`{number}` is not a number")),
            Some(_) => Err("only cuda takes a number, as in cuda:1".into()),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// If this build does not support it (the message says how to build one that does), or the
    /// machine does not have it.
    pub fn open(self) -> Result<Device> {
        let without = |name: &str, feature: &str| {
            format!(
                "this build has no {name} support; build one with `cargo install --locked --path . --features {feature}`"
            )
        };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => {
                ensure!(utils::cuda_is_available(), without("CUDA", "cuda"));
                Device::new_cuda(number).with_context(|| format!("cannot open CUDA device {number}"))
            }
            Self::Metal => {
                ensure!(utils::metal_is_available(), without("Metal", "metal"));
                Device::new_metal(0).context("cannot open the Metal device")
            }
            Self::Auto => {
                let cuda = utils::cuda_is_available().then(|| Device::new_cuda(0).ok()).flatten();
                let metal = || utils::metal_is_available().then(|| Device::new_metal(0).ok()).flatten();
                Ok(cuda.or_else(metal).unwrap_or(Device::Cpu))
            }
        }
    }
}

/// The name of a device as `--device` takes it.
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { .. } => "metal".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
        for wrong in ["gpu", "cuda:x", "metal:1", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
