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
    let (free_bytes, memory_bytes) = memory(device)?;
    let (name, compute_capability) = name(device)?;
    Some(Card { name, compute_capability, memory_bytes, free_bytes })
}

/// Bytes of an open device's memory that nobody uses now, as [`card`] says them.
pub fn free_bytes(device: &Device) -> Option<usize> {
    Some(memory(device)?.0)
}

/// Bytes that nobody uses now, and all.
fn memory(device: &Device) -> Option<(usize, usize)> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda_memory(device),
        #[cfg(feature = "metal")]
        Device::Metal(device) => metal_memory(device),
        _ => None,
    }
}

/// The name, and the compute capability of NVIDIA's.
fn name(device: &Device) -> Option<(String, Option<String>)> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda_name(device),
        #[cfg(feature = "metal")]
        Device::Metal(device) => metal_name(device),
        _ => None,
    }
}

#[cfg(feature = "cuda")]
fn cuda_memory(device: &candle_core::CudaDevice) -> Option<(usize, usize)> {
    device.cuda_stream().context().mem_get_info().ok()
}

#[cfg(feature = "cuda")]
fn cuda_name(device: &candle_core::CudaDevice) -> Option<(String, Option<String>)> {
    let stream = device.cuda_stream();
    let context = stream.context();
    let capability = context.compute_capability().ok().map(|(major, minor)| format!("{major}.{minor}"));
    Some((context.name().ok()?, capability))
}

#[cfg(feature = "metal")]
fn metal_memory(device: &candle_core::MetalDevice) -> Option<(usize, usize)> {
    let device = device.metal_device();
    let all = device.recommended_max_working_set_size();
    Some((all.saturating_sub(device.current_allocated_size()), all))
}

/// Such as `Apple M2 Pro`. What candle calls the architecture's name needs macOS 14.
#[cfg(feature = "metal")]
fn metal_name(device: &candle_core::MetalDevice) -> Option<(String, Option<String>)> {
    use objc2_metal::MTLDevice;
    Some((device.metal_device().as_ref().name().to_string(), None))
}
