//! Kernels on Metal: source that the system compiles when the first kernel of an element type is asked for. Type-checked on
//! Linux, and not run yet on Apple's hardware.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{LazyLock, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::{DType, Device, Layout, MetalError, MetalStorage, Result, bail};
use candle_metal_kernels::metal::{ComputeCommandEncoder, ComputePipeline, Device as Gpu, Library};
use objc2::runtime::NSObjectProtocol;
use objc2::sel;
use objc2_metal::{MTLCompileOptions, MTLComputePipelineState, MTLLanguageVersion, MTLSize};

use super::launch::{BLOCK, Launch, WARP};

const SOURCE: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.metal"));

/// The kernels of an element type, and those that were asked for, ready to run.
type Compiled = (Library, HashMap<String, ComputePipeline>);

/// By the number of the GPU, as the system counts them, and by element type.
static COMPILED: LazyLock<Mutex<HashMap<(u64, DType), Compiled>>> = LazyLock::new(Mutex::default);

/// Whether the machine has a GPU that Metal knows.
pub fn has_gpu() -> bool {
    !Gpu::all().is_empty()
}

/// Opens the device.
///
/// # Errors
/// If the machine has none, or its driver fails.
pub fn open() -> Result<Device> {
    // candle takes the first without asking whether there is one.
    let gpus = Gpu::all();
    let Some(gpu) = gpus.first() else { bail!("the machine has no GPU that Metal knows") };
    // candle's products of matrices ask for it, and what a system does not know ends the program.
    if !gpu.as_ref().respondsToSelector(sel!(architecture)) {
        bail!("macOS 14 or newer is needed for Metal");
    }
    Device::new_metal(0)
}

fn library(gpu: &Gpu, dtype: DType) -> Result<Library> {
    let (name, version) = match dtype {
        DType::F32 => ("QLNET_F32", MTLLanguageVersion::Version2_4),
        DType::F16 => ("QLNET_F16", MTLLanguageVersion::Version2_4),
        _ => ("QLNET_BF16", MTLLanguageVersion::Version3_1),
    };
    let options = MTLCompileOptions::new();
    options.setLanguageVersion(version);
    // Divisions round as IEEE says. macOS 15 has another call for it, which older systems lack.
    #[allow(deprecated)]
    options.setFastMathEnabled(false);
    let source = format!("#define {name} 1\n{SOURCE}");
    Ok(gpu.new_library_with_source(&source, Some(&options)).map_err(MetalError::from)?)
}

fn pipeline(gpu: &Gpu, dtype: DType, name: &str) -> Result<ComputePipeline> {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (gpu.registry_id(), dtype);
    let (library, pipelines) = match compiled.entry(key) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert((library(gpu, dtype)?, HashMap::new())),
    };
    if let Some(pipeline) = pipelines.get(name) {
        return Ok(pipeline.clone());
    }
    let function = library.get_function(name, None).map_err(MetalError::from)?;
    let pipeline = gpu.new_compute_pipeline_state_with_function(&function).map_err(MetalError::from)?;
    let (width, most) = (pipeline.as_ref().threadExecutionWidth(), pipeline.max_total_threads_per_threadgroup());
    // Rows are shared by 32 threads, of which a simdgroup of 64, as AMD's GPUs have, is two.
    if !width.is_multiple_of(WARP) || most < BLOCK {
        bail!("{name}: {most} threads in groups of {width}, and {BLOCK} in groups of a multiple of {WARP} are needed");
    }
    pipelines.insert(name.into(), pipeline.clone());
    Ok(pipeline)
}

/// The output of a kernel.
///
/// # Errors
/// If its inputs are not contiguous, or the device fails.
pub fn launch(launch: &Launch, inputs: &[(&MetalStorage, &Layout)]) -> Result<MetalStorage> {
    let Some((first, _)) = inputs.first() else { bail!("{}: no tensor", launch.kernel) };
    let device = first.device();
    if inputs.iter().any(|(_, layout)| !layout.is_contiguous()) {
        bail!("{}: contiguous tensors are needed", launch.kernel);
    }
    let pipeline = pipeline(device.device(), launch.dtype, &launch.kernel)?;
    let elements = launch.shape.elem_count();
    let output = device.new_buffer(elements, launch.dtype, &launch.kernel)?;
    // A lock on all commands of the device: until it goes, no tensor may be touched.
    let commands = device.command_encoder()?;
    let encoder: &ComputeCommandEncoder = commands.as_ref();
    encoder.set_compute_pipeline_state(&pipeline);
    // The encoder puts barriers where a buffer was written before, if it is told which are read and which written.
    for (index, (storage, layout)) in inputs.iter().enumerate() {
        let offset = layout.start_offset() * storage.dtype().size_in_bytes();
        encoder.set_input_buffer(index, Some(storage.buffer()), offset);
    }
    encoder.set_output_buffer(inputs.len(), Some(&output), 0);
    let sizes = inputs.len() + 1;
    for (index, size) in launch.sizes.iter().enumerate() {
        encoder.set_bytes(sizes + index, size);
    }
    let numbers = sizes + launch.sizes.len();
    for (index, number) in launch.numbers.iter().enumerate() {
        encoder.set_bytes(numbers + index, number);
    }
    let line = |width| MTLSize { width, height: 1, depth: 1 };
    encoder.dispatch_thread_groups(line(launch.threads.div_ceil(BLOCK)), line(BLOCK));
    drop(commands);
    Ok(MetalStorage::new(output, device.clone(), elements, launch.dtype))
}
