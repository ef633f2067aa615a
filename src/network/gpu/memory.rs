//! How much memory a GPU has left, and what it says when there is none.

use candle_core::{Device, Error};

use super::cards::free_bytes;

/// Bytes that activations may have on a device: most of what is free now. Nothing for a CPU, which has its own
/// measure, and for a device that does not tell.
pub fn memory_for_activations(device: &Device) -> Option<usize> {
    // The rest is for what kernels, matrix products and pools of memory take besides.
    let most = |free: usize| free / 10 * 9;
    match device {
        Device::Cpu => None,
        Device::Cuda(_) => Some(most(free_bytes(device)? + kept(device))),
        // candle rounds the size of Metal's buffers up to a power of two.
        Device::Metal(_) => Some(most(free_bytes(device)?) / 2),
    }
}

/// Gives memory that is kept for the next tensor back, after there was too little for something else.
pub fn release(device: &Device) {
    // Metal's is given back whenever the program waits for it.
    let _ = device.synchronize();
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = device {
        super::cuda::release_memory(device);
    }
}

/// Bytes that were freed, and are kept for the next tensor.
fn kept(device: &Device) -> usize {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => super::cuda::kept_memory(device).unwrap_or(0),
        _ => 0,
    }
}

/// Whether a device failed for want of memory. candle passes the words of CUDA, cuBLAS and Metal on.
pub fn is_out_of_memory(error: &Error) -> bool {
    const WORDS: [&str; 4] = [
        "CUDA_ERROR_OUT_OF_MEMORY",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "FailedToCreateResource(\"Buffer",
        "Insufficient Memory",
    ];
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
