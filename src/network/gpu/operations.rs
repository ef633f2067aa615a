//! What each operation asks of its kernel. Shapes are checked here: a kernel reads what it is told to.

use candle_core::{DType, Result, Shape, Tensor, bail};

use super::launch::{Launch, WARP, module};

/// Values of a window of the stem: 7x7 pixels of three channels, and zeros up to a multiple of eight, so that matrix
/// products find rows that are aligned.
pub const WINDOW: usize = 152;
/// What the depthwise kernel makes at once of a row.
const SPAN: usize = 4;

/// What follows a sum of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Nothing.
    Plain,
    /// The hardball.
    Hardball,
}

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

/// Sizes as kernels take them; [`Launch::run`] refuses tensors that are too large for it.
fn sizes<const N: usize>(sizes: [usize; N]) -> Vec<u32> {
    sizes.map(|size| u32::try_from(size).unwrap_or(u32::MAX)).to_vec()
}

/// A kernel of name `{stem}_{type}{variant}` that is given sizes only.
fn launch(
    stem: &str,
    dtype: DType,
    variant: &str,
    sizes: Vec<u32>,
    threads: usize,
    shape: impl Into<Shape>,
) -> Result<Launch> {
    let kernel = format!("{stem}_{}{variant}", kind(dtype)?);
    Ok(Launch { kernel, dtype, sizes, numbers: Vec::new(), threads, shape: shape.into() })
}

/// Bytes of images `[n, h, w, 3]`, scaled to 0..1 and normalised, in an element type: `[n, h, w, 3]`.
///
/// # Errors
/// As all of these: if the shapes do not fit, or the device fails.
pub fn pixels(bytes: &Tensor, mean: [f32; 3], std: [f32; 3], dtype: DType) -> Result<Tensor> {
    let (n, h, w, 3) = bytes.dims4()? else { bail!("bytes [n, h, w, 3] are needed, found {:?}", bytes.dims()) };
    if bytes.dtype() != DType::U8 {
        bail!("bytes are needed, found {:?}", bytes.dtype());
    }
    let count = n * h * w * 3;
    let mut launch = launch("pixels", dtype, "", sizes([count]), count, (n, h, w, 3))?;
    launch.numbers = [mean, std].concat();
    launch.run(&[bytes])
}

/// Images `[n, h, w, 3]` to the windows of the stem, `[n * ceil(h / 2) * ceil(w / 2), 152]`: the 7x7 pixels with stride 2
/// and padding 3, row by row, pixel by pixel, and [zeros](WINDOW).
pub fn windows(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, 3) = x.dims4()? else { bail!("images [n, h, w, 3] are needed, found {:?}", x.dims()) };
    let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
    // Eight values a thread.
    let threads = n * oh * ow * (WINDOW / 8);
    launch("windows", x.dtype(), "", sizes([n, h, w, oh, ow]), threads, (n * oh * ow, WINDOW))?.run(&[x])
}

/// What follows the first convolution: `[n, h, w, c]` and a bias `[c]`, ReLU, and the 3x3 max pool of stride 2 and padding 1, to
/// `[n, ceil(h / 2), ceil(w / 2), c]`.
pub fn pool(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    expect("the bias of a pool", bias, &[c])?;
    let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
    let v = vector(c, x.dtype());
    let threads = n * oh * ow * c / v;
    launch("pool", x.dtype(), &format!("_v{v}"), sizes([n, h, w, c, oh, ow]), threads, (n, oh, ow, c))?.run(&[x, bias])
}

/// `[..., 2w]` and a bias `[2w]` to the product of the halves, `[..., w]`.
pub fn gate(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (pixels, both, mut shape) = rows(x)?;
    expect("the bias of a gate", bias, &[both])?;
    if !both.is_multiple_of(2) {
        bail!("a gate has two halves, found {both} channels");
    }
    let w = both / 2;
    let v = vector(w, x.dtype());
    shape.push(w);
    launch("gate", x.dtype(), &format!("_v{v}"), sizes([pixels, w]), pixels * w / v, shape)?.run(&[x, bias])
}

/// Whether there is a kernel for a stride of the depthwise convolution.
pub fn has_depthwise(stride: usize) -> bool {
    matches!(stride, 1 | 2)
}

/// `[n, h, w, c]` with a weight `[9, filters, c]` and a bias `[filters * c]`, padding 1, to
/// `[n, ceil(h / stride), ceil(w / stride), filters * c]`; the stride is [one of these](has_depthwise).
pub fn depthwise(x: &Tensor, weight: &Tensor, bias: &Tensor, stride: usize) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let (_, filters, _) = weight.dims3()?;
    expect("depthwise filters", weight, &[9, filters, c])?;
    expect("the bias of depthwise filters", bias, &[filters * c])?;
    if !has_depthwise(stride) {
        bail!("no depthwise kernel of stride {stride}");
    }
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    // A thread has as many sums in registers as it makes outputs: four channels, whatever the type.
    let v = if c.is_multiple_of(4) { 4 } else { 1 };
    let together = if filters.is_multiple_of(2) { 2 } else { 1 };
    let variant = format!("_f{together}_s{stride}_v{v}");
    let threads = n * oh * ow.div_ceil(SPAN) * (filters / together) * c / v;
    let sizes = sizes([n, h, w, c, oh, ow, filters]);
    launch("depthwise", x.dtype(), &variant, sizes, threads, (n, oh, ow, filters * c))?.run(&[x, weight, bias])
}

/// `y + bias + x` of `[..., c]`, and what `sum` says.
pub fn residual(y: &Tensor, bias: &Tensor, x: &Tensor, sum: Sum) -> Result<Tensor> {
    let (pixels, c, _) = rows(y)?;
    expect("the bias of a residual", bias, &[c])?;
    expect("what is added", x, y.dims())?;
    let v = vector(c, y.dtype());
    let (stem, threads) = match sum {
        Sum::Plain => ("residual", pixels * c / v),
        Sum::Hardball => ("residual_hardball", WARP * pixels),
    };
    launch(stem, y.dtype(), &format!("_v{v}"), sizes([pixels, c]), threads, y.shape())?.run(&[y, bias, x])
}

/// The projection of every row of `[..., c]` onto the ball of radius `sqrt(c)`.
pub fn hardball(x: &Tensor) -> Result<Tensor> {
    let (pixels, c, _) = rows(x)?;
    let v = vector(c, x.dtype());
    launch("hardball", x.dtype(), &format!("_v{v}"), sizes([pixels, c]), WARP * pixels, x.shape())?.run(&[x])
}

/// The mean over all pixels of `[n, h, w, c]`: `[n, c]`.
pub fn mean(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let v = vector(c, x.dtype());
    launch("mean", x.dtype(), &format!("_v{v}"), sizes([n, h * w, c]), n * c / v, (n, c))?.run(&[x])
}

/// Every `stride`-th row and column of `[n, h, w, c]`.
pub fn subsample(x: &Tensor, stride: usize) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let (oh, ow) = (h.div_ceil(stride), w.div_ceil(stride));
    let v = vector(c, x.dtype());
    let sizes = sizes([n, h, w, c, oh, ow, stride]);
    let threads = n * oh * ow * c / v;
    launch("subsample", x.dtype(), &format!("_v{v}"), sizes, threads, (n, oh, ow, c))?.run(&[x])
}

/// How many rows of channels a tensor `[..., c]` has, `c`, and the shape of those rows.
fn rows(x: &Tensor) -> Result<(usize, usize, Vec<usize>)> {
    let Some((&c, outer)) = x.dims().split_last() else { bail!("a tensor of channels is needed") };
    Ok((outer.iter().product(), c, outer.to_vec()))
}
