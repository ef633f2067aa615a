//! What a graphics card says about itself.

use candle_core::Device;
use serde::Serialize;

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Such as `9.0`, of NVIDIA's cards.
    pub compute_capability: Option<String>,
    /// Bytes of memory, of which a Mac's are what a program should use.
    pub memory_bytes: usize,
    /// Bytes that nobody uses now.
    pub free_bytes: usize,
}

/// The card of an open device; nothing for a CPU, or where the driver does not say.
pub fn card(device: &Device) -> Option<Card> {
    match device {
        Device::Cpu => None,
        Device::Cuda(device) => of_cuda(device),
        Device::Metal(device) => of_metal(device),
    }
}

#[cfg(feature = "cuda")]
fn of_cuda(device: &candle_core::CudaDevice) -> Option<Card> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let (free_bytes, memory_bytes) = context.mem_get_info().ok()?;
    let capability = context.compute_capability().ok().map(|(major, minor)| format!("{major}.{minor}"));
    Some(Card { name: context.name().ok()?, compute_capability: capability, memory_bytes, free_bytes })
}

#[cfg(not(feature = "cuda"))]
fn of_cuda(_: &candle_core::CudaDevice) -> Option<Card> {
    None
}

#[cfg(feature = "metal")]
fn of_metal(device: &candle_core::MetalDevice) -> Option<Card> {
    let device = device.metal_device();
    let memory_bytes = device.recommended_max_working_set_size();
    let free_bytes = memory_bytes.saturating_sub(device.current_allocated_size());
    Some(Card { name: device.architecture_name(), compute_capability: None, memory_bytes, free_bytes })
}

#[cfg(not(feature = "metal"))]
fn of_metal(_: &candle_core::MetalDevice) -> Option<Card> {
    None
}
