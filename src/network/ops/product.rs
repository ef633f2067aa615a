//! The product of channels with a matrix: what a 1x1 convolution is where activations are NHWC.

use candle_core::{Result, Tensor};

use crate::network::gpu;

/// `[..., c]` with a weight `[o, c]` to `[..., o]`. Where `tf32` says so, CUDA may round what enters float32's products.
///
/// # Errors
/// If the shapes do not fit, or the device fails.
pub fn product(x: &Tensor, weight: &Tensor, tf32: bool) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let last = shape.len() - 1;
    let rows = x.reshape(((), shape[last]))?;
    shape[last] = weight.dim(0)?;
    let y = match gpu::has_product(x.device()) && gpu::runs(&[x, weight]) {
        true => gpu::product(&rows, weight, tf32),
        false => rows.matmul(&weight.t()?),
    };
    y?.reshape(shape)
}
