//! Kernels on CUDA: PTX that nvcc made at build time, and that the driver compiles for its card when it is loaded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cublas::result::gemm_strided_batched_ex;
use candle_core::cuda_backend::cudarc::cublas::sys::{
    cublasComputeType_t as Compute, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t as DataType,
};
use candle_core::cuda_backend::cudarc::driver::result::mem_pool;
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute as Attribute, CUmemoryPool};
use candle_core::cuda_backend::cudarc::driver::{
    self, CudaView, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Result, WithDType, bail};
use half::{bf16, f16};

use super::launch::{BLOCK, Launch};

const F32: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_f32.ptx"));
const F16: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_f16.ptx"));
const BF16: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_bf16.ptx"));

/// Opens a device, with one stream for all threads, or gives the one that was opened before. It stays open: what is in its
/// stream may belong to anyone.
///
/// # Errors
/// If the machine does not have it, or its driver fails.
pub fn open(number: usize) -> Result<Device> {
    static OPEN: Mutex<BTreeMap<usize, CudaDevice>> = Mutex::new(BTreeMap::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = open.get(&number) {
        return Ok(Device::Cuda(device.clone()));
    }
    driver::result::init().w()?;
    let count = driver::result::device::get_count().w()?;
    if number as i64 >= i64::from(count) {
        bail!("the machine has {count} of them, which count from cuda:0");
    }
    let device = CudaDevice::new_with_stream(number)?;
    // SAFETY: all work on this device is in one stream, and so in order: no event has to tell when a tensor may be used.
    unsafe { device.disable_event_tracking() };
    keep_memory(&device);
    open.insert(number, device.clone());
    Ok(Device::Cuda(device))
}

/// Has the driver keep memory that was freed for the next tensor. Otherwise it goes back whenever the program waits for the
/// device, and is mapped anew for every batch. Where the driver does not know such pools, that is how it is.
fn keep_memory(device: &CudaDevice) {
    let Some(pool) = pool(device) else { return };
    let mut all = u64::MAX;
    // SAFETY: the pool is the device's own, and the attribute 64 bits without sign.
    let _ =
        unsafe { mem_pool::set_attribute(pool, Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut all).cast()) };
}

/// The pool that tensors are allocated in.
fn pool(device: &CudaDevice) -> Option<CUmemoryPool> {
    let stream = device.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().ok()?;
    // SAFETY: the device is open.
    unsafe { driver::result::device::get_default_mem_pool(context.cu_device()) }.ok()
}

/// Bytes that the pool keeps for the next tensor.
pub fn kept_memory(device: &CudaDevice) -> Option<usize> {
    let pool = pool(device)?;
    let read = |attribute| {
        let mut value = 0u64;
        // SAFETY: as in `keep_memory`.
        unsafe { mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()) }.ok().map(|()| value as usize)
    };
    let reserved = read(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    Some(reserved.saturating_sub(read(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?))
}

/// Gives what the pool keeps back to the driver, whose other allocations cannot take it from there. What has been freed is
/// kept once the device has been waited for.
pub fn release_memory(device: &CudaDevice) {
    if let Some(pool) = pool(device) {
        // SAFETY: as in `keep_memory`.
        let _ = unsafe { mem_pool::trim_to(pool, 0) };
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
    // First: it makes the device's context that of this thread, which the kernel's name is looked up in.
    // SAFETY: the kernel writes every element.
    let output = unsafe { device.alloc::<T>(launch.shape.elem_count())? };
    let function = device.get_or_load_custom_func(&launch.kernel, module, ptx)?;
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

/// `[m, k]` with a weight `[n, k]` to `[m, n]`.
///
/// # Errors
/// If these are not contiguous or of different types, or the device fails.
pub fn product(
    x: (&CudaStorage, &Layout),
    weight: (&CudaStorage, &Layout),
    sizes: [usize; 3],
    tf32: bool,
) -> Result<CudaStorage> {
    let float32 = if tf32 { Compute::CUBLAS_COMPUTE_32F_FAST_TF32 } else { Compute::CUBLAS_COMPUTE_32F };
    match x.0.dtype() {
        DType::F32 => product_of::<f32>(x, weight, sizes, DataType::CUDA_R_32F, float32),
        DType::F16 => product_of::<f16>(x, weight, sizes, DataType::CUDA_R_16F, Compute::CUBLAS_COMPUTE_32F),
        DType::BF16 => product_of::<bf16>(x, weight, sizes, DataType::CUDA_R_16BF, Compute::CUBLAS_COMPUTE_32F),
        other => bail!("no product of {other:?}"),
    }
}

fn product_of<T: CudaDType + DeviceRepr + WithDType>(
    x: (&CudaStorage, &Layout),
    weight: (&CudaStorage, &Layout),
    sizes: [usize; 3],
    data: DataType,
    compute: Compute,
) -> Result<CudaStorage> {
    let device = x.0.device();
    let [m, n, k] = sizes.map(|size| size as i32);
    let (x, weight) = (elements::<T>(x.0, x.1)?, elements::<T>(weight.0, weight.1)?);
    // SAFETY: the product writes every element.
    let mut output = unsafe { device.alloc::<T>(sizes[0] * sizes[1])? };
    let stream = device.cuda_stream();
    let blas = device.cublas_handle();
    let (one, zero) = (1f32, 0f32);
    {
        let ((x, _x), (weight, _weight)) = (x.device_ptr(&stream), weight.device_ptr(&stream));
        let (y, _y) = output.device_ptr_mut(&stream);
        let (transposed, plain) = (cublasOperation_t::CUBLAS_OP_T, cublasOperation_t::CUBLAS_OP_N);
        // cuBLAS counts in columns: our rows are its columns, and it makes y^T [n, m] of weight^T and x^T.
        // SAFETY: the matrices have these sizes, which the views have been cut to.
        unsafe {
            gemm_strided_batched_ex(
                *blas.handle(),
                transposed,
                plain,
                n,
                m,
                k,
                (&raw const one).cast(),
                weight as *const _,
                data,
                k,
                0,
                x as *const _,
                data,
                k,
                0,
                (&raw const zero).cast(),
                y as *mut _,
                data,
                n,
                0,
                1,
                compute,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()?;
    }
    Ok(CudaStorage::wrap_cuda_slice(output, device.clone()))
}

/// The elements of a contiguous tensor of type `T`.
fn elements<'a, T: CudaDType + 'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => bail!("a contiguous tensor is needed, found strides {:?}", layout.stride()),
    }
}

/// The elements of a contiguous tensor, of type `T` or bytes, as bytes.
fn view<'a, T: CudaDType + DeviceRepr + 'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, u8>> {
    if storage.dtype() == DType::U8 {
        return elements::<u8>(storage, layout);
    }
    let elements = elements::<T>(storage, layout)?;
    // SAFETY: every value is bytes.
    match unsafe { elements.transmute(layout.shape().elem_count() * size_of::<T>()) } {
        Some(bytes) => Ok(bytes),
        None => bail!("a tensor is shorter than its layout"),
    }
}
