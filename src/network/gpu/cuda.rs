//! Kernels on CUDA: PTX that nvcc made at build time, and that the driver compiles for its card when it is loaded.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{self, CudaView, DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Result, WithDType, bail};
use half::{bf16, f16};

use super::launch::{BLOCK, Launch};

const F32: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_f32.ptx"));
const F16: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_f16.ptx"));
const BF16: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_bf16.ptx"));

/// Opens a device, with one stream for all threads.
///
/// # Errors
/// If the machine does not have it, or its driver fails.
pub fn open(number: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(number)?;
    // SAFETY: all work on this device is in one stream, and so in order: no event has to tell when a tensor may be used.
    unsafe { device.disable_event_tracking() };
    keep_memory(&device);
    Ok(Device::Cuda(device))
}

/// Has the driver keep memory that was freed for the next tensor. Otherwise it goes back whenever the program waits for the
/// device, and is mapped anew for every batch. Where the driver does not know such pools, that is how it is.
fn keep_memory(device: &CudaDevice) {
    let stream = device.cuda_stream();
    let mut all = u64::MAX;
    // SAFETY: the device is open, the pool its own, and the attribute 64 bits without sign.
    unsafe {
        if let Ok(pool) = driver::result::device::get_default_mem_pool(stream.context().cu_device()) {
            let threshold = driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            let _ = driver::result::mem_pool::set_attribute(pool, threshold, (&raw mut all).cast());
        }
    }
}

/// The output of a kernel.
///
/// # Errors
/// If its inputs are not contiguous, or the device fails.
pub fn launch(launch: &Launch, inputs: &[(&CudaStorage, &Layout)]) -> Result<CudaStorage> {
    match launch.dtype {
        DType::F32 => run::<f32>(launch, "qlnet_f32", F32, inputs),
        DType::F16 => run::<f16>(launch, "qlnet_f16", F16, inputs),
        DType::BF16 => run::<bf16>(launch, "qlnet_bf16", BF16, inputs),
        other => bail!("no kernels for {other:?}"),
    }
}

fn run<T: CudaDType + DeviceRepr + WithDType>(
    launch: &Launch,
    module: &str,
    ptx: &str,
    inputs: &[(&CudaStorage, &Layout)],
) -> Result<CudaStorage> {
    let Some((first, _)) = inputs.first() else { bail!("{}: no tensor", launch.kernel) };
    let device = first.device();
    let views = inputs.iter().map(|(storage, layout)| view::<T>(storage, layout)).collect::<Result<Vec<_>>>()?;
    let function = device.get_or_load_custom_func(&launch.kernel, module, ptx)?;
    // SAFETY: the kernel writes every element.
    let output = unsafe { device.alloc::<T>(launch.shape.elem_count())? };
    let mut builder = function.builder();
    for view in &views {
        builder.arg(view);
    }
    builder.arg(&output);
    for size in &launch.sizes {
        builder.arg(size);
    }
    for number in &launch.numbers {
        builder.arg(number);
    }
    let blocks = launch.threads.div_ceil(BLOCK) as u32;
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (BLOCK as u32, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: `operations` has checked the shapes of all tensors, and gives what the kernel's signature has.
    unsafe { builder.launch(config) }.w()?;
    Ok(CudaStorage::wrap_cuda_slice(output, device.clone()))
}

/// The elements of a contiguous tensor, of type `T` or bytes, as bytes.
fn view<'a, T: CudaDType + DeviceRepr + 'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, u8>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a contiguous tensor is needed, found strides {:?}", layout.stride());
    };
    if storage.dtype() == DType::U8 {
        return Ok(storage.as_cuda_slice::<u8>()?.slice(start..end));
    }
    let elements = storage.as_cuda_slice::<T>()?.slice(start..end);
    // SAFETY: every value is bytes.
    match unsafe { elements.transmute((end - start) * size_of::<T>()) } {
        Some(bytes) => Ok(bytes),
        None => bail!("a tensor is shorter than its layout"),
    }
}
