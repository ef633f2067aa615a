//! What each operation asks of its kernel, which then [runs](Launch::run). Shapes and types are checked here: a kernel
//! reads what it is told to.

use candle_core::{DType, Result, Shape, Tensor, bail};

use super::launch::{Launch, WARP, module};

/// Values of a window of the stem: 7x7 pixels of three channels, and zeros up to a multiple of eight, so that matrix
/// products find rows that are aligned.
pub const WINDOW: usize = 152;
/// What the depthwise kernel makes at once of a row.
const SPAN: usize = 4;

/// The element type in the names of kernels.
fn kind(dtype: DType) -> Result<&'static str> {
    match module(dtype) {
        Some(kind) => Ok(kind),
        None => bail!("no kernels for {dtype:?}"),
    }
}

/// Refuses a tensor of another shape.
fn expect(what: &str, x: &Tensor, dims: &[usize]) -> Result<()> {
    if x.dims() != dims {
        bail!("{what}: {dims:?} is needed, found {:?}", x.dims());
    }
    Ok(())
}

/// Channels that a thread takes at once: 16 bytes of them if they are a multiple of that, else one.
fn vector(channels: usize, dtype: DType) -> usize {
    let widest = 16 / dtype.size_in_bytes();
    if channels.is_multiple_of(widest) { widest } else { 1 }
}

/// The kernel `{op}_{type}{variant}` of tensors that all have that type.
fn launch(
    op: &str,
    variant: &str,
    inputs: &[&Tensor],
    sizes: &[usize],
    threads: usize,
    shape: impl Into<Shape>,
) -> Result<Launch> {
    let [first, others @ ..] = inputs else { bail!("{op}: no tensor") };
    let dtype = first.dtype();
    if let Some(other) = others.iter().find(|other| other.dtype() != dtype) {
        bail!("{op}: tensors of one type are needed, found {dtype:?} and {:?}", other.dtype());
    }
    let kernel = format!("{op}_{}{variant}", kind(dtype)?);
    Launch::new(kernel, dtype, inputs, sizes, threads, shape.into())
}

/// Bytes of images `[n, h, w, 3]`, scaled to 0..1 and normalised, in an element type: `[n, h, w, 3]`.
///
/// # Errors
/// As all of these: if shapes or types do not fit, or there are too many elements for a kernel.
pub fn pixels(bytes: &Tensor, mean: [f32; 3], std: [f32; 3], dtype: DType) -> Result<Launch> {
    let (n, h, w, 3) = bytes.dims4()? else { bail!("bytes [n, h, w, 3] are needed, found {:?}", bytes.dims()) };
    if bytes.dtype() != DType::U8 {
        bail!("bytes are needed, found {:?}", bytes.dtype());
    }
    let count = n * h * w * 3;
    let kernel = format!("pixels_{}", kind(dtype)?);
    let launch = Launch::new(kernel, dtype, &[bytes], &[count], count, bytes.shape().clone())?;
    Ok(Launch { numbers: [mean, std].concat(), ..launch })
}

/// Images `[n, h, w, 3]` to the windows of the stem, `[n * ceil(h / 2) * ceil(w / 2), 152]`: the 7x7 pixels with stride 2
/// and padding 3, row by row, pixel by pixel, and [zeros](WINDOW).
pub fn windows(x: &Tensor) -> Result<Launch> {
    let (n, h, w, 3) = x.dims4()? else { bail!("images [n, h, w, 3] are needed, found {:?}", x.dims()) };
    let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
    // Eight values a thread.
    let threads = n * oh * ow * (WINDOW / 8);
    launch("windows", "", &[x], &[n, h, w, oh, ow], threads, (n * oh * ow, WINDOW))
}

/// What follows the first convolution: `[n, h, w, c]` and a bias `[c]`, ReLU, and the 3x3 max pool of stride 2 and padding 1, to
/// `[n, ceil(h / 2), ceil(w / 2), c]`.
pub fn pool(x: &Tensor, bias: &Tensor) -> Result<Launch> {
    let (n, h, w, c) = x.dims4()?;
    expect("the bias of a pool", bias, &[c])?;
    let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
    let v = vector(c, x.dtype());
    let threads = n * oh * ow * c / v;
    launch("pool", &format!("_v{v}"), &[x, bias], &[n, h, w, c, oh, ow], threads, (n, oh, ow, c))
}

/// Whether there is a kernel for a stride of the depthwise convolution.
pub fn has_depthwise(stride: usize) -> bool {
    matches!(stride, 1 | 2)
}

/// The product of the halves of `[n, h, w, 2c]`, each with its bias, and its depthwise convolution with a weight
/// `[9, filters, c]`, padding 1, to `[n, ceil(h / stride), ceil(w / stride), filters * c]`. The biases are `[2c + filters * c]`,
/// those of the halves first; the stride is [one of these](has_depthwise).
pub fn gated_depthwise(x: &Tensor, weight: &Tensor, biases: &Tensor, stride: usize) -> Result<Launch> {
    let (n, h, w, both) = x.dims4()?;
    let (_, filters, c) = weight.dims3()?;
    expect("depthwise filters", weight, &[9, filters, c])?;
    expect("the biases of a gate and depthwise filters", biases, &[2 * c + filters * c])?;
    if both != 2 * c {
        bail!("a gate has two halves of {c} channels, found {both} channels");
    }
    if !has_depthwise(stride) {
        bail!("no depthwise kernel of stride {stride}");
    }
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    // A thread has as many sums in registers as it makes outputs: four channels, whatever the type.
    let v = if c.is_multiple_of(4) { 4 } else { 1 };
    let together = if filters.is_multiple_of(2) { 2 } else { 1 };
    let variant = format!("_f{together}_s{stride}_v{v}");
    let threads = n * oh * ow.div_ceil(SPAN) * (filters / together) * c / v;
    let sizes = [n, h, w, c, oh, ow, filters];
    launch("depthwise", &variant, &[x, weight, biases], &sizes, threads, (n, oh, ow, filters * c))
}

/// `y + bias + x` of `[..., c]`, and then the hardball if one follows.
pub fn residual(y: &Tensor, bias: &Tensor, x: &Tensor, hardball: bool) -> Result<Launch> {
    let (pixels, c, _) = rows(y)?;
    expect("the bias of a residual", bias, &[c])?;
    expect("what is added", x, y.dims())?;
    let v = vector(c, y.dtype());
    let (op, threads) = match hardball {
        false => ("residual", pixels * c / v),
        true => ("residual_hardball", WARP * pixels),
    };
    launch(op, &format!("_v{v}"), &[y, bias, x], &[pixels, c], threads, y.shape())
}

/// The projection of every row of `[..., c]` onto the ball of radius `sqrt(c)`.
pub fn hardball(x: &Tensor) -> Result<Launch> {
    let (pixels, c, _) = rows(x)?;
    let v = vector(c, x.dtype());
    launch("hardball", &format!("_v{v}"), &[x], &[pixels, c], WARP * pixels, x.shape())
}

/// The mean over all pixels of `[n, h, w, c]`: `[n, c]`.
pub fn mean(x: &Tensor) -> Result<Launch> {
    let (n, h, w, c) = x.dims4()?;
    let v = vector(c, x.dtype());
    launch("mean", &format!("_v{v}"), &[x], &[n, h * w, c], n * c / v, (n, c))
}

/// Every `stride`-th row and column of `[n, h, w, c]`.
pub fn subsample(x: &Tensor, stride: usize) -> Result<Launch> {
    let (n, h, w, c) = x.dims4()?;
    if stride == 0 {
        bail!("every 0th row and column");
    }
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    let v = vector(c, x.dtype());
    let threads = n * oh * ow * c / v;
    launch("subsample", &format!("_v{v}"), &[x], &[n, h, w, c, oh, ow, stride], threads, (n, oh, ow, c))
}

/// How many rows of channels a tensor `[..., c]` has, `c`, and the shape of those rows.
fn rows(x: &Tensor) -> Result<(usize, usize, Vec<usize>)> {
    let Some((&c, outer)) = x.dims().split_last() else { bail!("a tensor of channels is needed") };
    Ok((outer.iter().product(), c, outer.to_vec()))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn zeros(dims: &[usize], dtype: DType) -> Tensor {
        Tensor::zeros(dims, dtype, &Device::Cpu).unwrap()
    }

    /// What kernels would read as something else, or outside of.
    #[test]
    fn tensors_that_do_not_fit_each_other_are_refused() {
        const T: DType = DType::F16;
        let of = |dims: &[usize]| zeros(dims, T);
        let (x, halves) = (of(&[2, 3, 5, 8]), of(&[2, 3, 5, 16]));
        let (weight, biases) = (of(&[9, 2, 8]), of(&[32]));
        for (what, dtype, c) in [("width", T, 9), ("type", DType::F32, 8)] {
            let bias_of = |width: usize| zeros(&[width * c / 8], dtype);
            assert!(pool(&x, &bias_of(8)).is_err(), "{what} of the bias of a pool");
            assert!(residual(&x, &bias_of(8), &x, false).is_err(), "{what} of the bias of a residual");
            let skip = zeros(&[2, 3, 5, c], dtype);
            assert!(residual(&x, &of(&[8]), &skip, true).is_err(), "{what} of what is added");
            assert!(gated_depthwise(&halves, &zeros(&[9, 2, c], dtype), &biases, 1).is_err(), "{what} of filters");
            assert!(gated_depthwise(&halves, &weight, &bias_of(32), 2).is_err(), "{what} of the biases of filters");
        }
        assert!(pool(&x, &of(&[8])).is_ok() && gated_depthwise(&halves, &weight, &biases, 1).is_ok());
        assert!(gated_depthwise(&halves, &weight, &biases, 3).is_err());
        for c in [8, 15, 17] {
            assert!(gated_depthwise(&of(&[2, 3, 5, c]), &weight, &biases, 1).is_err(), "{c} channels of both halves");
        }
        assert!(windows(&x).is_err());
        assert!(subsample(&x, 0).is_err());
        assert!(hardball(&of(&[])).is_err());
        assert!(pixels(&of(&[1, 2, 2, 3]), [0.0; 3], [1.0; 3], T).is_err());
    }

    #[test]
    fn what_kernels_cannot_count_or_have_no_type_for_is_refused() {
        let many = |dtype| zeros(&[1, 1, 1, 1], dtype).broadcast_as((1, 1 << 16, 1 << 15, 1)).unwrap();
        for refused in [many(DType::F32), zeros(&[1, 0, 4, 8], DType::F32), zeros(&[1, 4, 4, 8], DType::F64)] {
            assert!(hardball(&refused).is_err(), "{:?}", refused.shape());
            assert!(subsample(&refused, 2).is_err(), "{:?}", refused.shape());
        }
        // Threads are counted too, of which the hardball takes 32 for a pixel.
        let rows = zeros(&[1, 1], DType::F32).broadcast_as((1 << 26, 1)).unwrap();
        assert!(mean(&rows.reshape((1, 1 << 26, 1, 1)).unwrap()).is_ok());
        assert!(hardball(&rows).is_err());
    }
}
