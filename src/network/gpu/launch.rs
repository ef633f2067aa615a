//! A kernel with all that it is given, which runs as one of candle's custom operations: of one, two or three tensors.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, MetalStorage};
use candle_core::{Result, Shape, Tensor, bail};

/// Threads of a block (CUDA), or threadgroup (Metal).
pub const BLOCK: usize = 256;

/// Threads that share a row of channels: a warp (CUDA), or simdgroup (Metal).
pub const WARP: usize = 32;

/// A kernel and all that it is given.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The kernel's name.
    pub kernel: String,
    /// The element type of the kernel's module, which is that of its output.
    pub dtype: DType,
    /// The tensors that it reads, in order.
    pub inputs: Vec<Tensor>,
    /// Its whole numbers, in order.
    pub sizes: Vec<u32>,
    /// Its real numbers, in order.
    pub numbers: Vec<f32>,
    /// How many threads it takes.
    pub threads: usize,
    /// The shape of its output.
    pub shape: Shape,
}

/// The name of the module of kernels for an element type, if there is one.
pub fn module(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::F32 => Some("f32"),
        DType::F16 => Some("f16"),
        DType::BF16 => Some("bf16"),
        _ => None,
    }
}

/// Whether this build has kernels for a kind of device.
pub fn is_built_in(device: &Device) -> bool {
    match device {
        Device::Cpu => false,
        Device::Cuda(_) => cfg!(feature = "cuda"),
        Device::Metal(_) => cfg!(feature = "metal"),
    }
}

impl Launch {
    /// A kernel that takes no real numbers.
    ///
    /// # Errors
    /// If it would write nothing, or has more to count than kernels do: 2^31 elements or threads.
    pub fn new(
        kernel: String,
        dtype: DType,
        inputs: &[&Tensor],
        sizes: &[usize],
        threads: usize,
        shape: Shape,
    ) -> Result<Self> {
        let most = inputs.iter().map(|input| input.elem_count()).chain([threads, shape.elem_count()]).max();
        if most.is_none_or(|most| most > i32::MAX as usize) {
            bail!("{kernel} of {shape:?}: too many elements for a kernel");
        }
        if shape.elem_count() == 0 {
            bail!("{kernel} of {shape:?}: nothing to compute");
        }
        // Those of tensors fit. A stride may be larger, and is then beyond every tensor.
        let sizes = sizes.iter().map(|&size| u32::try_from(size).unwrap_or(u32::MAX)).collect();
        let inputs = inputs.iter().map(|&input| input.clone()).collect();
        Ok(Self { kernel, dtype, inputs, sizes, numbers: Vec::new(), threads, shape })
    }

    /// Runs the kernel where its inputs are, and gives its output.
    ///
    /// # Errors
    /// If that is no GPU that this build has kernels for, or it fails.
    pub fn run(&self) -> Result<Tensor> {
        let inputs = self.inputs.iter().map(aligned).collect::<Result<Vec<_>>>()?;
        match &inputs[..] {
            [x] => x.apply_op1_no_bwd(self),
            [x, y] => x.apply_op2_no_bwd(y, self),
            [x, y, z] => x.apply_op3_no_bwd(y, z, self),
            _ => bail!("{}: a kernel takes one to three tensors", self.kernel),
        }
    }

    #[cfg(feature = "cuda")]
    fn on_cuda(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        Ok((super::cuda::launch(self, inputs)?, self.shape.clone()))
    }

    #[cfg(not(feature = "cuda"))]
    fn on_cuda(&self, _: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        bail!("{}: this build has no CUDA support", self.kernel)
    }

    #[cfg(feature = "metal")]
    fn on_metal(&self, inputs: &[(&MetalStorage, &Layout)]) -> Result<(MetalStorage, Shape)> {
        Ok((super::metal::launch(self, inputs)?, self.shape.clone()))
    }

    #[cfg(not(feature = "metal"))]
    fn on_metal(&self, _: &[(&MetalStorage, &Layout)]) -> Result<(MetalStorage, Shape)> {
        bail!("{}: this build has no Metal support", self.kernel)
    }

    fn on_cpu(&self) -> Result<(CpuStorage, Shape)> {
        bail!("{}: kernels run on GPUs", self.kernel)
    }
}

/// The tensor in one piece that begins where vectors may, as allocations do.
fn aligned(x: &Tensor) -> Result<Tensor> {
    // The most elements that a kernel reads at once.
    const WIDEST: usize = 8;
    let x = x.contiguous()?;
    if x.layout().start_offset().is_multiple_of(WIDEST) { Ok(x) } else { x.force_contiguous() }
}

impl CustomOp1 for Launch {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda(&[(x, xl)])
    }

    fn metal_fwd(&self, x: &MetalStorage, xl: &Layout) -> Result<(MetalStorage, Shape)> {
        self.on_metal(&[(x, xl)])
    }
}

impl CustomOp2 for Launch {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, y: &CudaStorage, yl: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_cuda(&[(x, xl), (y, yl)])
    }

    fn metal_fwd(&self, x: &MetalStorage, xl: &Layout, y: &MetalStorage, yl: &Layout) -> Result<(MetalStorage, Shape)> {
        self.on_metal(&[(x, xl), (y, yl)])
    }
}

impl CustomOp3 for Launch {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu()
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        xl: &Layout,
        y: &CudaStorage,
        yl: &Layout,
        z: &CudaStorage,
        zl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_cuda(&[(x, xl), (y, yl), (z, zl)])
    }

    fn metal_fwd(
        &self,
        x: &MetalStorage,
        xl: &Layout,
        y: &MetalStorage,
        yl: &Layout,
        z: &MetalStorage,
        zl: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.on_metal(&[(x, xl), (y, yl), (z, zl)])
    }
}
