//! The product of the two halves of a 1x1 convolution: the network's only nonlinearity inside a
//! block, where others have ReLU.

use candle_core::{D, Result, Tensor};

/// `(a + bias_a) * (b + bias_b)`, where `a` and `b` are the halves of the last dimension:
/// `[..., 2w]` and a bias `[2w]` make `[..., w]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn gate(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let w = x.dim(D::Minus1)? / 2;
    let x = x.broadcast_add(bias)?;
    x.narrow(D::Minus1, 0, w)? * x.narrow(D::Minus1, w, w)?
}
