//! How much memory a GPU has left, and what it says when there is none.

use candle_core::{Device, Error};

/// Bytes that activations may have on a device: most of what is free now. Nothing for a CPU, which has its own
/// measure, and for a device that does not tell.
pub fn memory_for_activations(device: &Device) -> Option<usize> {
    // The rest is for what kernels, matrix products and pools of memory take besides.
    free(device).map(|free| free / 10 * 9)
}

#[cfg(feature = "cuda")]
fn free_on_cuda(device: &candle_core::CudaDevice) -> Option<usize> {
    device.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free)
}

#[cfg(not(feature = "cuda"))]
fn free_on_cuda(_: &candle_core::CudaDevice) -> Option<usize> {
    None
}

#[cfg(feature = "metal")]
fn free_on_metal(device: &candle_core::MetalDevice) -> Option<usize> {
    let device = device.metal_device();
    // candle rounds the size of a buffer up to the next power of two.
    Some(device.recommended_max_working_set_size().saturating_sub(device.current_allocated_size()) / 2)
}

#[cfg(not(feature = "metal"))]
fn free_on_metal(_: &candle_core::MetalDevice) -> Option<usize> {
    None
}

fn free(device: &Device) -> Option<usize> {
    match device {
        Device::Cpu => None,
        Device::Cuda(device) => free_on_cuda(device),
        Device::Metal(device) => free_on_metal(device),
    }
}

/// Whether a device failed for want of memory. candle passes the words of CUDA, cuBLAS and Metal on.
pub fn is_out_of_memory(error: &Error) -> bool {
    const WORDS: [&str; 4] =
        ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "FailedToCreateResource", "Insufficient Memory"];
    let text = format!("{error} {error:?}");
    WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_told_from_other_errors() {
        let error = Error::Cuda("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into());
        assert!(is_out_of_memory(&error));
        assert!(is_out_of_memory(&error.context("while running")));
        assert!(!is_out_of_memory(&Error::Cuda("DriverError(CUDA_ERROR_INVALID_VALUE, \"\")".into())));
        assert_eq!(memory_for_activations(&Device::Cpu), None);
    }
}
