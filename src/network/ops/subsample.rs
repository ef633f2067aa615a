//! What a strided 1x1 convolution reads.

use candle_core::{Result, Tensor};

use crate::network::gpu;

/// Every `stride`-th row and column of `[n, h, w, c]`, the first ones included.
///
/// # Errors
/// If the device fails.
pub fn subsample(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    if gpu::runs(&[x]) { gpu::subsample(x, stride)?.run() } else { subsample_plain(x, stride) }
}

/// [`subsample`] in candle's own operations.
///
/// # Errors
/// As [`subsample`].
pub fn subsample_plain(x: &Tensor, stride: usize) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    let x = x.pad_with_zeros(1, 0, oh * stride - h)?.pad_with_zeros(2, 0, ow * stride - w)?;
    x.reshape(&[n, oh, stride, ow, stride, c][..])?.narrow(2, 0, 1)?.narrow(4, 0, 1)?.reshape((n, oh, ow, c))
}
