//! The fast path on CUDA and Metal: a kernel for each operation between the matrix products, and these by cuBLAS, or by
//! candle on Metal.
//!
//! In come tensors of one device, out go tensors there, NHWC, in float32, float16 or bfloat16 with sums in float32.
//! Knows candle and nothing of the network: [`crate::network::ops`] calls it where [`runs`] says so, and else the plain
//! operations that it is tested against. `QLNET_GPU_KERNELS=0` in the environment turns it off.
//!
//! ```text
//! operations     what each operation asks of its kernel: sizes, shapes, how many threads
//! launch         a kernel with what it is given, as one of candle's custom operations
//! product        matrix products on CUDA
//! cuda, metal    how a device runs it
//! kernels/       the kernels, one source for both
//! libraries      NVIDIA's, opened when a device is asked for
//! cards          what a graphics card says about itself
//! memory         how much of it activations may have
//! staging        images to a CUDA device
//! host_tests     the kernels compiled for this host, and compared with the plain operations
//! ```

pub(crate) mod cards;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod host_tests;
#[cfg_attr(not(any(feature = "cuda", feature = "metal")), allow(dead_code, reason = "what devices read of a kernel"))]
mod launch;
#[cfg(feature = "cuda")]
pub(crate) mod libraries;
mod memory;
#[cfg(feature = "metal")]
mod metal;
mod operations;
mod product;
#[cfg(feature = "cuda")]
mod staging;

pub use memory::{is_out_of_memory, memory_for_activations, release};
pub use operations::{
    WINDOW, gated_depthwise, hardball, has_depthwise, mean, pixels, pool, residual, subsample, windows,
};
pub use product::{has_product, product};

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

#[cfg(feature = "cuda")]
use candle_core::Storage;
use candle_core::{DType, Device, Tensor};

use crate::error::Reason;

/// Whether kernels run on what these tensors hold: they are on a GPU, in an element type that kernels have, and no
/// derivative will be asked for, which kernels lack.
pub fn runs(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| runs_on(tensor.device(), tensor.dtype()) && !tensor.track_op())
}

/// Whether there are kernels for this device and element type.
pub fn runs_on(device: &Device, dtype: DType) -> bool {
    static ON: LazyLock<bool> = LazyLock::new(|| {
        let off = ["0", "off", "false", "no"];
        std::env::var_os("QLNET_GPU_KERNELS").is_none_or(|value| !off.iter().any(|off| value.eq_ignore_ascii_case(off)))
    });
    *ON && launch::module(dtype).is_some() && launch::is_built_in(device)
}

/// Whether this build and this machine have a GPU for CUDA, whatever may be wrong with it.
pub fn has_cuda() -> bool {
    #[cfg(feature = "cuda")]
    return libraries::has_gpu();
    #[cfg(not(feature = "cuda"))]
    false
}

/// Whether this build and this machine have a GPU for Metal.
pub fn has_metal() -> bool {
    #[cfg(feature = "metal")]
    return metal::has_gpu();
    #[cfg(not(feature = "metal"))]
    false
}

/// Opens a CUDA device.
///
/// # Errors
/// If this build does not support it, the machine does not have it, or its driver fails.
pub fn open_cuda(number: usize) -> Result<Device, Reason> {
    #[cfg(feature = "cuda")]
    libraries::open()?;
    #[cfg(feature = "cuda")]
    return Ok(cuda::open(number)?);
    #[cfg(not(feature = "cuda"))]
    Ok(Device::new_cuda(number)?)
}

/// Opens the Metal device.
///
/// # Errors
/// As [`open_cuda`].
pub fn open_metal() -> Result<Device, Reason> {
    #[cfg(feature = "metal")]
    return Ok(metal::open()?);
    #[cfg(not(feature = "metal"))]
    Ok(Device::new_metal(0)?)
}

/// Images to a device. Bytes are copied there the fastest way.
///
/// # Errors
/// If the device fails, or lacks the memory.
pub fn upload(images: &Tensor, device: &Device) -> candle_core::Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let (Device::Cuda(device), DType::U8) = (device, images.dtype()) {
        let images = images.contiguous()?;
        let (storage, layout) = images.storage_and_layout();
        if let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            return staging::upload(&storage.as_slice::<u8>()?[start..end], images.shape(), device);
        }
    }
    images.to_device(device)
}

/// Holds a GPU for one computation, if this is one: the handle of cuBLAS and the memory for activations are one for all threads,
/// and so is the stream, in which work would only wait for other work.
pub fn alone(device: &Device) -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    (!device.is_cpu()).then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner))
}
