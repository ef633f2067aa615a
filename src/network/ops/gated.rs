//! What a block does between its products: the gate, and the depthwise convolution of what it makes.

use candle_core::{D, Device, Result, Tensor};

use super::depthwise::{Depthwise, depthwise};
use super::gate::gate;
use crate::network::gpu;

/// The bias of a gate, and the depthwise convolution after it.
#[derive(Clone, Debug)]
pub struct GatedDepthwise {
    conv: Depthwise,
    /// That of the gate, `[2c]`, and then the convolution's, as the kernel takes them.
    biases: Tensor,
}

impl GatedDepthwise {
    /// From the bias `[2c]` of the convolution before the gate, and the convolution after it. They are taken to the device.
    ///
    /// # Errors
    /// If they are not of one type and device, or the device fails or lacks the memory.
    pub fn new(bias: &Tensor, conv: &Depthwise, device: &Device) -> Result<Self> {
        let biases = Tensor::cat(&[bias, &conv.bias], 0)?.to_device(device)?;
        let (weight, conv_bias) = (conv.weight.to_device(device)?, conv.bias.to_device(device)?);
        let conv = Depthwise { weight, bias: conv_bias, stride: conv.stride };
        Ok(Self { conv, biases })
    }
}

/// `[n, h, w, 2c]` to `[n, ceil(h / stride), ceil(w / stride), f * c]`.
///
/// # Errors
/// If the shapes do not fit, or the device fails.
pub fn gated_depthwise(halves: Tensor, parameters: &GatedDepthwise) -> Result<Tensor> {
    let GatedDepthwise { conv, biases } = parameters;
    if gpu::has_depthwise(conv.stride) && gpu::runs(&[&halves, &conv.weight, biases]) {
        return gpu::gated_depthwise(&halves, &conv.weight, biases, conv.stride)?.run();
    }
    let gated = gate(&halves, &biases.narrow(0, 0, halves.dim(D::Minus1)?)?)?;
    // What is not needed any more goes at once: on a GPU its memory is what limits a batch.
    drop(halves);
    depthwise(&gated, conv)
}
