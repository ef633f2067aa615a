//! The end of a block: the hidden channels' share, its bias, and what the skip brings.

use candle_core::{Result, Tensor};

use super::hardball::hardball_plain;
use crate::network::gpu;

/// `y + bias + x` of `[..., c]`, a bias `[c]` and `[..., c]`; then the [hardball](super::hardball()) where one follows.
///
/// # Errors
/// If the shapes do not fit, or the device fails.
pub fn residual(y: &Tensor, bias: &Tensor, x: &Tensor, hardball: bool) -> Result<Tensor> {
    if gpu::runs(&[y, bias, x]) {
        gpu::residual(y, bias, x, hardball)?.run()
    } else {
        residual_plain(y, bias, x, hardball)
    }
}

/// `y + bias` of `[..., c]` and a bias `[c]`.
///
/// # Errors
/// As [`residual`].
pub fn biased(y: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if gpu::runs(&[y, bias]) {
        // The kernel that there is.
        gpu::residual(y, bias, &y.zeros_like()?, false)?.run()
    } else {
        y.broadcast_add(bias)
    }
}

/// [`residual`] in candle's own operations.
///
/// # Errors
/// As [`residual`].
fn residual_plain(y: &Tensor, bias: &Tensor, x: &Tensor, hardball: bool) -> Result<Tensor> {
    let sum = (y.broadcast_add(bias)? + x)?;
    if hardball { hardball_plain(&sum) } else { Ok(sum) }
}
