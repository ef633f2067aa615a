//! The mean over all pixels, which makes an image's features of its last activation.

use candle_core::{Result, Tensor};

use crate::network::gpu;

/// `[n, h, w, c]` to `[n, c]`.
///
/// # Errors
/// If the device fails.
pub fn mean(x: &Tensor) -> Result<Tensor> {
    if gpu::runs(&[x]) { gpu::mean(x)?.run() } else { mean_plain(x) }
}

/// [`mean`] in candle's own operations.
///
/// # Errors
/// As [`mean`].
pub fn mean_plain(x: &Tensor) -> Result<Tensor> {
    x.flatten(1, 2)?.mean(1)
}
