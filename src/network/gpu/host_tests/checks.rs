//! What each operation's launch must compute.

use anyhow::{Result, bail, ensure};
use candle_core::{D, DType, Device, Tensor};
use image::RgbImage;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::super::operations;
use super::harness::Harness;
use crate::input::{IMAGENET_MEAN, IMAGENET_STD, to_tensor};
use crate::network::ops::{self, Depthwise, GatedDepthwise};
use crate::random::normal;
use crate::random::tests::{test_stream, uniform};

/// The kernels by the operation that they compute; `residual` is with and without hardball.
pub(super) const OPERATIONS: [&str; 8] =
    ["pixels", "windows", "pool", "depthwise", "residual", "hardball", "mean", "subsample"];

/// Images, height, width: one pixel, one row, one column, odd and even sizes, widths at which what is meant for the
/// middle of an image ends just before its border, and more than a block of threads.
const SIZES: [(usize, usize, usize); 10] =
    [(1, 1, 1), (2, 1, 2), (2, 3, 1), (2, 5, 7), (1, 4, 6), (3, 6, 5), (1, 3, 8), (1, 3, 19), (2, 2, 15), (1, 12, 9)];
/// Pixels, for operations that know of no images.
const PIXELS: [&[usize]; 4] = [&[1], &[2], &[13], &[3, 5, 6]];

/// Compares all kernels of an operation with the plain operation, over many shapes.
pub(super) fn check(harness: &mut Harness, operation: &str) -> Result<()> {
    let rng = &mut test_stream(1);
    match operation {
        "pixels" => return pixels(harness, rng),
        "hardball" | "residual" => {
            for pixels in PIXELS {
                for c in channels(harness.widest(), rng) {
                    match operation {
                        "hardball" => hardball(harness, rng, pixels, c)?,
                        _ => residual(harness, rng, pixels, c)?,
                    }
                }
            }
            return Ok(());
        }
        _ => {}
    }
    let drawn = (0..4).map(|_| (rng.random_range(1..4), rng.random_range(1..16), rng.random_range(1..16)));
    for size in SIZES.into_iter().chain(drawn.collect::<Vec<_>>()) {
        if operation == "windows" {
            windows(harness, rng, size)?;
            continue;
        }
        // The depthwise kernel takes four channels at once in every type.
        let together = if operation == "depthwise" { 4 } else { harness.widest() };
        for c in channels(together, rng) {
            match operation {
                "pool" => pool(harness, rng, size, c)?,
                "depthwise" => depthwise(harness, rng, size, c)?,
                "mean" => mean(harness, rng, size, c)?,
                "subsample" => subsample(harness, rng, size, c)?,
                other => bail!("no operation {other}"),
            }
        }
    }
    Ok(())
}

/// Numbers of channels: two that vectors do not divide, and two that they do.
fn channels(vector: usize, rng: &mut ChaCha8Rng) -> [usize; 4] {
    let odd = vector * rng.random_range(1..5) + rng.random_range(1..vector);
    [1, odd, vector, vector * rng.random_range(2..40)]
}

/// Normally distributed numbers in the element type of the kernels.
fn draw(shape: &[usize], dtype: DType, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    Ok(normal(shape, rng)?.to_dtype(dtype)?)
}

fn wide(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(DType::F64)?)
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    Ok(wide(x)?.flatten_all()?.to_vec1()?)
}

/// Compares with what float64 gives: a millionth of the largest value is for sums in float32, and half a unit in the
/// last place for the one rounding at the end.
fn close(found: &Tensor, expected: &Tensor) -> Result<()> {
    ensure!(found.dims() == expected.dims(), "shapes {:?} and {:?}", found.dims(), expected.dims());
    let (digits, smallest) = match found.dtype() {
        DType::F16 => (11, -14),
        DType::BF16 => (8, -126),
        _ => (24, -126),
    };
    let (found, expected) = (values(found)?, values(expected)?);
    let largest = expected.iter().fold(0f64, |largest, value| largest.max(value.abs()));
    for (i, (found, expected)) in found.into_iter().zip(expected).enumerate() {
        let exponent = expected.abs().log2().floor().max(f64::from(smallest));
        let tolerance = 1e-6 * largest + (exponent - f64::from(digits)).exp2();
        // Written so that what is no number is not close.
        let is_close = (found - expected).abs() <= tolerance;
        ensure!(is_close, "value {i} is {found}, not {expected}");
    }
    Ok(())
}

/// Compares bit for bit.
fn same(found: &Tensor, expected: &Tensor) -> Result<()> {
    ensure!(found.dims() == expected.dims(), "shapes {:?} and {:?}", found.dims(), expected.dims());
    let bytes = |x: &Tensor| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        x.write_bytes(&mut bytes)?;
        Ok(bytes)
    };
    let size = found.dtype().size_in_bytes();
    let (a, b) = (bytes(found)?, bytes(expected)?);
    if let Some(i) = a.chunks(size).zip(b.chunks(size)).position(|(a, b)| a != b) {
        bail!("value {i} is {}, not {}", values(found)?[i], values(expected)?[i]);
    }
    Ok(())
}

fn pixels(harness: &mut Harness, rng: &mut ChaCha8Rng) -> Result<()> {
    for (n, h, w) in SIZES {
        let mut image =
            || RgbImage::from_fn(w as u32, h as u32, |_, _| image::Rgb(std::array::from_fn(|_| rng.random())));
        let images: Vec<_> = (0..n).map(|_| image()).collect();
        let bytes: Vec<u8> = images.iter().flat_map(|image| image.as_raw().clone()).collect();
        let bytes = Tensor::from_vec(bytes, (n, h, w, 3), &Device::Cpu)?;
        let found = harness.run(operations::pixels(&bytes, IMAGENET_MEAN, IMAGENET_STD, harness.dtype)?)?;
        same(&found, &to_tensor(&images)?.permute((0, 2, 3, 1))?.to_dtype(harness.dtype)?)?;
    }
    Ok(())
}

fn windows(harness: &mut Harness, rng: &mut ChaCha8Rng, (n, h, w): (usize, usize, usize)) -> Result<()> {
    let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
    let x = draw(&[n, h, w, 3], harness.dtype, rng)?;
    let pixels = values(&x)?;
    let mut expected = vec![0.0; n * oh * ow * 152];
    for (window, out) in expected.chunks_exact_mut(152).enumerate() {
        let (image, oy, ox) = (window / ow / oh, window / ow % oh, window % ow);
        for (i, out) in out[..147].iter_mut().enumerate() {
            // Three more than the row and the column.
            let (y, x) = (2 * oy + i / 21, 2 * ox + i / 3 % 7);
            if (3..h + 3).contains(&y) && (3..w + 3).contains(&x) {
                *out = pixels[((image * h + y - 3) * w + x - 3) * 3 + i % 3];
            }
        }
    }
    let expected = Tensor::from_vec(expected, (n * oh * ow, 152), &Device::Cpu)?.to_dtype(harness.dtype)?;
    same(&harness.run(operations::windows(&x)?)?, &expected)
}

/// The reference is the whole stem, with a convolution that takes every second pixel, and images that have `x` there.
fn pool(harness: &mut Harness, rng: &mut ChaCha8Rng, (n, h, w): (usize, usize, usize), c: usize) -> Result<()> {
    let (x, bias) = (draw(&[n, h, w, c], harness.dtype, rng)?, draw(&[c], harness.dtype, rng)?);
    let centre = Tensor::eye(c, DType::F64, &Device::Cpu)?.reshape((c, c, 1, 1))?;
    let centre = centre.pad_with_zeros(2, 3, 3)?.pad_with_zeros(3, 3, 3)?;
    // What is no number is nothing to a ReLU, here as there.
    for x in [&x, &(&x * f64::NAN)?] {
        let images = wide(x)?.permute((0, 3, 1, 2))?.reshape(&[n, c, h, 1, w, 1][..])?;
        let images = images.pad_with_zeros(3, 0, 1)?.pad_with_zeros(5, 0, 1)?.reshape((n, c, 2 * h, 2 * w))?;
        let expected = ops::stem_plain(&images, &centre, &wide(&bias)?)?;
        close(&harness.run(operations::pool(x, &bias)?)?, &expected)?;
    }
    Ok(())
}

fn depthwise(harness: &mut Harness, rng: &mut ChaCha8Rng, (n, h, w): (usize, usize, usize), c: usize) -> Result<()> {
    for filters in 1..=4 {
        let x = draw(&[n, h, w, 2 * c], harness.dtype, rng)?;
        let gate = draw(&[2 * c], harness.dtype, rng)?;
        let weight = draw(&[c * filters, 1, 3, 3], harness.dtype, rng)?;
        let bias = draw(&[c * filters], harness.dtype, rng)?;
        // In the order of the kernel.
        let taps = weight.reshape((c, filters, 9))?.permute((2, 1, 0))?.contiguous()?;
        let biases = Tensor::cat(&[&gate, &bias.reshape((c, filters))?.t()?.flatten_all()?], 0)?;
        for stride in [1, 2] {
            let conv = Depthwise::new(&wide(&weight)?, &wide(&bias)?, filters, stride)?;
            let plain = GatedDepthwise::new(&wide(&gate)?, &conv, &Device::Cpu)?;
            let expected = ops::gated_depthwise(wide(&x)?, &plain)?;
            close(&harness.run(operations::gated_depthwise(&x, &taps, &biases, stride)?)?, &expected)?;
        }
    }
    Ok(())
}

/// Rows of norms on both sides of the radius, and one exactly at it.
fn rows(pixels: &[usize], c: usize, dtype: DType, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let p = pixels.iter().product();
    let scale = Tensor::from_vec(uniform(p, 0.2..3.0, rng), (p, 1), &Device::Cpu)?;
    let rows = normal((p, c), rng)?.broadcast_mul(&scale)?;
    let signs = rows.narrow(0, 0, 1)?.ge(0f64)?.to_dtype(DType::F32)?.affine(2.0, -1.0)?;
    let rows = Tensor::cat(&[signs, rows.narrow(0, 1, p - 1)?], 0)?;
    Ok(rows.reshape([pixels, &[c]].concat())?.to_dtype(dtype)?)
}

fn hardball(harness: &mut Harness, rng: &mut ChaCha8Rng, pixels: &[usize], c: usize) -> Result<()> {
    let x = rows(pixels, c, harness.dtype, rng)?;
    let found = harness.run(operations::hardball(&x)?)?;
    close(&found, &ops::hardball(&wide(&x)?)?)?;
    let (x, found) = (x.reshape(((), c))?, found.reshape(((), c))?);
    let squares: Vec<f64> = wide(&x)?.sqr()?.sum(D::Minus1)?.to_vec1()?;
    for (row, square) in squares.into_iter().enumerate() {
        // The first is exactly at the radius; others so near that float32 may take them for outside are left out.
        if row == 0 || square < 0.99999 * c as f64 {
            same(&found.narrow(0, row, 1)?, &x.narrow(0, row, 1)?)?;
        }
    }
    Ok(())
}

/// The sum, and the hardball of the sum, which must be the same in one kernel as in two.
fn residual(harness: &mut Harness, rng: &mut ChaCha8Rng, pixels: &[usize], c: usize) -> Result<()> {
    let dtype = harness.dtype;
    let (y0, bias) = (rows(pixels, c, dtype, rng)?, draw(&[c], dtype, rng)?);
    let x = draw(y0.dims(), dtype, rng)?;
    let sum = harness.run(operations::residual(&y0, &bias, &x, false)?)?;
    close(&sum, &(wide(&y0)?.broadcast_add(&wide(&bias)?)? + wide(&x)?)?)?;
    let projected = harness.run(operations::hardball(&sum)?)?;
    same(&harness.run(operations::residual(&y0, &bias, &x, true)?)?, &projected)
}

fn mean(harness: &mut Harness, rng: &mut ChaCha8Rng, (n, h, w): (usize, usize, usize), c: usize) -> Result<()> {
    let x = draw(&[n, h, w, c], harness.dtype, rng)?;
    close(&harness.run(operations::mean(&x)?)?, &ops::mean(&wide(&x)?)?)
}

fn subsample(harness: &mut Harness, rng: &mut ChaCha8Rng, (n, h, w): (usize, usize, usize), c: usize) -> Result<()> {
    let x = draw(&[n, h, w, c], harness.dtype, rng)?;
    for stride in 1..=3 {
        let every = |size: usize| Tensor::arange_step(0u32, size as u32, stride as u32, &Device::Cpu);
        let expected = x.index_select(&every(h)?, 1)?.index_select(&every(w)?, 2)?;
        same(&harness.run(operations::subsample(&x, stride)?)?, &expected)?;
    }
    Ok(())
}
