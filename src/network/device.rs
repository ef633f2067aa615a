//! The device that a network runs on.

use std::str::FromStr;

use candle_core::{Device, Tensor, utils};

use crate::error::{Error, Reason, Result};
use crate::network::{Precision, gpu, ops};

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
    /// Opens the device, and has a GPU compute something whose result is known.
    ///
    /// # Errors
    /// [`Error::UnsupportedDevice`] if this build does not support it, and [`Error::Device`] if the machine does
    /// not have it, or it does not compute.
    pub fn open(self) -> Result<Device> {
        self.open_or_tell(&mut |_| {})
    }

    /// [`Self::open`] that tells why a GPU of this machine is passed over for the CPU, if [`Self::Auto`] does so.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_or_tell(self, tell: &mut dyn FnMut(&Error)) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => {
                if !utils::cuda_is_available() {
                    return Err(Error::UnsupportedDevice { device: "CUDA", feature: "cuda" });
                }
                opened(&format!("cuda:{number}"), gpu::open_cuda(number))
            }
            Self::Metal => {
                if !utils::metal_is_available() {
                    return Err(Error::UnsupportedDevice { device: "Metal", feature: "metal" });
                }
                opened("metal", gpu::open_metal())
            }
            Self::Auto => {
                let choices = [(Self::Cuda(0), gpu::has_cuda()), (Self::Metal, gpu::has_metal())];
                for (choice, _) in choices.into_iter().filter(|(_, there)| *there) {
                    match choice.open() {
                        Ok(device) => return Ok(device),
                        Err(error) => tell(&error),
                    }
                }
                Ok(Device::Cpu)
            }
        }
    }
}

/// A device of that name, if it computes.
fn opened(name: &str, device: Result<Device, Reason>) -> Result<Device> {
    let device = device.and_then(|device| probe(&device).map(|()| device).map_err(Reason::from));
    device.map_err(|reason| Error::Device { device: name.into(), reason: explained(reason) })
}

/// A driver's code for kernels that it does not take, in words.
fn explained(reason: Reason) -> Reason {
    let text = reason.to_string();
    let is_one_of = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    if is_one_of(&["CUDA_ERROR_NO_BINARY_FOR_GPU", "CUDA_ERROR_INVALID_PTX"]) {
        return Reason::new(format!(
            "the GPU is older than what this program was built for ({text}); docs/gpu.md says how to build for it"
        ));
    }
    if is_one_of(&["CUDA_ERROR_UNSUPPORTED_PTX_VERSION"]) {
        return Reason::new(format!("the driver is older than what this program was built with ({text}); update it"));
    }
    reason
}

/// A small product and a sum, by what computes the network's, and something by candle's own kernels, which the rest is
/// computed by. A driver may be there and still not take kernels that are newer than itself, or that are for newer cards.
fn probe(device: &Device) -> candle_core::Result<()> {
    let x = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], device)?;
    let bias = Tensor::new(&[1f32, 2.0], device)?;
    let square = ops::product(&x, &Tensor::new(&[[1f32, 3.0], [2.0, 4.0]], device)?, false)?;
    // Of candle's kernels those are compiled fastest.
    let y = ops::residual(&square, &bias, &x, false)?.affine(2.0, 1.0)?;
    let y = in_memory(&y)?.to_vec2::<f32>()?;
    if y != [[19.0, 29.0], [39.0, 57.0]] {
        candle_core::bail!("it computes wrongly: {y:?}");
    }
    Ok(())
}

/// A tensor in memory, as what has been given to its device computes it: none of it is under way any more.
///
/// # Errors
/// If the device fails, or has failed at anything before.
pub(crate) fn in_memory(x: &Tensor) -> candle_core::Result<Tensor> {
    let copy = x.to_device(&Device::Cpu)?;
    // A copy may be under way when the call for it returns; and Metal tells of errors only to who waits.
    x.device().synchronize()?;
    Ok(copy)
}

/// An error of a device, which may have had too little memory for something. `batch` is how many images may fit.
pub(crate) fn failed(
    error: candle_core::Error,
    device: &Device,
    what: impl Into<String>,
    batch: Option<usize>,
) -> Error {
    match gpu::is_out_of_memory(&error) {
        true => Error::OutOfMemory { device: name(device), what: what.into(), batch },
        false => error.into(),
    }
}

/// An error of a computation in an element type that the device may not know, if it is not of another kind.
pub(crate) fn unsupported(error: Error, device: &Device, precision: Precision) -> Error {
    match error {
        Error::Compute(reason) => Error::UnsupportedDtype { device: name(device), dtype: precision.name(), reason },
        error => error,
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

    #[test]
    fn a_device_that_computes_passes() {
        probe(&Device::Cpu).unwrap();
    }
}
