//! Products of matrices on CUDA, by cuBLAS. candle calls it too, and asks for algorithms that are allowed to compute
//! float32 by way of float16, and for TF32 by one switch for the whole process; here each product says what it is.

use candle_core::{CpuStorage, CudaStorage, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};

/// A product of rows with the rows of another matrix.
struct Product {
    /// Whether what enters products of float32 may be rounded to TF32, which has ten bits of fraction.
    tf32: bool,
}

/// Whether products are ours on this device.
pub fn has_product(device: &Device) -> bool {
    device.is_cuda()
}

/// `[m, k]` with a weight `[n, k]` to `[m, n]`, with sums in float32.
///
/// # Errors
/// If the shapes do not fit, or the device fails.
pub fn product(x: &Tensor, weight: &Tensor, tf32: bool) -> Result<Tensor> {
    x.contiguous()?.apply_op2_no_bwd(&weight.contiguous()?, &Product { tf32 })
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("product: on CUDA only")
    }

    fn cuda_fwd(&self, x: &CudaStorage, xl: &Layout, w: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        let ((m, k), (n, columns)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        if columns != k || m * n * k == 0 || [m, n, k].iter().any(|size| i32::try_from(*size).is_err()) {
            bail!("a product of [m, k] and [n, k] is needed, found {:?} and {:?}", xl.dims(), wl.dims());
        }
        Ok((self.on_cuda((x, xl), (w, wl), [m, n, k])?, (m, n).into()))
    }
}

impl Product {
    #[cfg(feature = "cuda")]
    fn on_cuda(
        &self,
        x: (&CudaStorage, &Layout),
        w: (&CudaStorage, &Layout),
        sizes: [usize; 3],
    ) -> Result<CudaStorage> {
        super::cuda::product(x, w, sizes, self.tf32)
    }

    #[cfg(not(feature = "cuda"))]
    fn on_cuda(&self, _: (&CudaStorage, &Layout), _: (&CudaStorage, &Layout), _: [usize; 3]) -> Result<CudaStorage> {
        bail!("product: this build has no CUDA support, nor TF32 ({})", self.tf32)
    }
}
