//! The device that a network runs on.

use std::str::FromStr;

use candle_core::{Device, utils};

use crate::error::{Error, Result};

/// A device that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA or Metal where this build has it and the machine too, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
    /// The Metal device.
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
    /// [`Error::UnsupportedDevice`] if this build does not support it, and [`Error::Device`] if the machine does
    /// not have it.
    pub fn open(self) -> Result<Device> {
        let failed = |device: String| move |error: candle_core::Error| Error::Device { device, reason: error.into() };
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => {
                if !utils::cuda_is_available() {
                    return Err(Error::UnsupportedDevice { device: "CUDA", feature: "cuda" });
                }
                #[cfg(feature = "cuda")]
                crate::network::gpu::libraries::open()
                    .map_err(|reason| Error::Device { device: format!("cuda:{number}"), reason })?;
                Device::new_cuda(number).map_err(failed(format!("cuda:{number}")))
            }
            Self::Metal => {
                if !utils::metal_is_available() {
                    return Err(Error::UnsupportedDevice { device: "Metal", feature: "metal" });
                }
                Device::new_metal(0).map_err(failed("metal".into()))
            }
            Self::Auto => {
                let cuda = utils::cuda_is_available().then(|| Device::new_cuda(0).ok()).flatten();
                let metal = || utils::metal_is_available().then(|| Device::new_metal(0).ok()).flatten();
                Ok(cuda.or_else(metal).unwrap_or(Device::Cpu))
            }
        }
    }
}

/// The name of a device, as [`DeviceChoice`] reads it.
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
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["gpu", "cuda:x", "metal:1", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_build_without_support_says_which_feature_adds_it() {
        if !utils::cuda_is_available() {
            let error = DeviceChoice::Cuda(1).open().unwrap_err();
            assert!(matches!(error, Error::UnsupportedDevice { feature: "cuda", .. }), "{error}");
            assert_eq!(error.to_string(), "this build has no CUDA support");
        }
        assert!(DeviceChoice::Cpu.open().unwrap().is_cpu());
    }
}
