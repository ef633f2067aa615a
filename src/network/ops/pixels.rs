//! Images as a network gets them: normalised, as PyTorch has them (NCHW) or as the operations do (NHWC), or as bytes
//! (NHWC), which are a quarter of float32's way to a GPU, and are normalised there.

use candle_core::{DType, Result, Tensor, bail};

use crate::input::{IMAGENET_MEAN, IMAGENET_STD};
use crate::network::gpu;

/// Bytes `[n, h, w, 3]`, scaled to 0..1 and normalised by [`IMAGENET_MEAN`] and [`IMAGENET_STD`], in an element type:
/// `[n, h, w, 3]`. In float32 on a CPU or CUDA to the bit what [`to_tensor`](crate::input::to_tensor) makes.
///
/// # Errors
/// If these are no bytes of three channels, or the device fails.
pub fn normalised(bytes: &Tensor, dtype: DType) -> Result<Tensor> {
    if bytes.dtype() != DType::U8 || bytes.dims4()?.3 != 3 {
        bail!("bytes [n, h, w, 3] are needed, found {:?} {:?}", bytes.dtype(), bytes.dims());
    }
    if gpu::runs_on(bytes.device(), dtype) {
        gpu::pixels(bytes, IMAGENET_MEAN, IMAGENET_STD, dtype)?.run()
    } else {
        normalised_plain(bytes, dtype)
    }
}

/// [`normalised`] in candle's own operations.
///
/// # Errors
/// As [`normalised`].
pub fn normalised_plain(bytes: &Tensor, dtype: DType) -> Result<Tensor> {
    let of = |values: [f32; 3]| Tensor::new(&values, bytes.device());
    let scaled = bytes.to_dtype(DType::F32)?.broadcast_div(&of([255.0; 3])?)?;
    scaled.broadcast_sub(&of(IMAGENET_MEAN)?)?.broadcast_div(&of(IMAGENET_STD)?)?.to_dtype(dtype)
}

/// Images as planes `[n, 3, h, w]`, normalised, in an element type: of such planes, or of bytes.
///
/// # Errors
/// As [`normalised`].
pub fn planes(images: &Tensor, dtype: DType) -> Result<Tensor> {
    match images.dtype() {
        DType::U8 => normalised(images, dtype)?.permute((0, 3, 1, 2))?.contiguous(),
        _ => Ok(images.clone()),
    }
}

/// [`planes`] with the channels last, `[n, h, w, 3]`.
///
/// # Errors
/// As [`normalised`].
pub fn channels_last(images: &Tensor, dtype: DType) -> Result<Tensor> {
    match images.dtype() {
        DType::U8 => normalised(images, dtype),
        _ => images.permute((0, 2, 3, 1))?.contiguous(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::input::to_tensor;

    #[test]
    fn bytes_are_normalised_as_pixels_are() {
        let values: Vec<u8> = (0..=255).flat_map(|v: u8| [v, v.wrapping_mul(7), !v]).collect();
        let image = image::RgbImage::from_raw(16, 16, values.clone()).unwrap();
        let expected = to_tensor(&[image]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bytes = Tensor::from_vec(values, (1, 16, 16, 3), &Device::Cpu).unwrap();
        let found = planes(&bytes, DType::F32).unwrap();
        assert_eq!(found.dims(), [1, 3, 16, 16]);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(found.flatten_all().unwrap().to_vec1().unwrap()), bits(expected));
        let last = channels_last(&found, DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(last, normalised(&bytes, DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert!(normalised(&last_of(&bytes), DType::F32).is_err());
    }

    /// Without one of the channels.
    fn last_of(bytes: &Tensor) -> Tensor {
        bytes.narrow(3, 0, 2).unwrap()
    }
}
