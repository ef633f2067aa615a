//! Mistakes that the checks must find, in launches and in kernels.

use candle_core::DType;

use super::super::launch::{Launch, WARP};
use super::harness::Dialect;

/// A mistake in launches: of which operation, or of all, what it is, and how it is made.
pub(super) type WrongLaunch = (Option<&'static str>, &'static str, fn(&mut Launch));

/// Those that the checks must find.
pub(super) const WRONG_LAUNCHES: &[WrongLaunch] = &[
    (None, "threads too few", |launch| launch.threads -= one(launch)),
    (None, "threads too many", |launch| launch.threads += one(launch)),
    (None, "a size too few", |launch| launch.sizes.truncate(launch.sizes.len() - 1)),
    (None, "a tensor too many", |launch| launch.inputs.push(launch.inputs[0].clone())),
    (None, "a row too many in the output", |launch| {
        let mut dims = launch.shape.dims().to_vec();
        dims[0] += 1;
        launch.shape = dims.into();
    }),
    (Some("pixels"), "mean and deviation swapped", |launch| launch.numbers.rotate_left(3)),
    (Some("windows"), "height and width swapped", |launch| launch.sizes.swap(1, 2)),
    (Some("windows"), "output height and width swapped", |launch| launch.sizes.swap(3, 4)),
    (Some("pool"), "output height and width swapped", |launch| launch.sizes.swap(4, 5)),
    (Some("pool"), "tensors swapped", |launch| launch.inputs.swap(0, 1)),
    (Some("pool"), "height and width of the output swapped", |launch| {
        let mut dims = launch.shape.dims().to_vec();
        dims.swap(1, 2);
        launch.shape = dims.into();
    }),
    (Some("subsample"), "vectors where channels are odd", |launch| launch.kernel = launch.kernel.replace("_v1", "_v8")),
    (Some("depthwise"), "pairs of an odd number of filters", |launch| {
        launch.kernel = launch.kernel.replace("_f1_", "_f2_");
        launch.threads = launch.threads.div_ceil(2);
    }),
    (Some("depthwise"), "another stride", |launch| launch.kernel = launch.kernel.replace("_s2", "_s1")),
    (Some("depthwise"), "weight and bias swapped", |launch| launch.inputs.swap(1, 2)),
    (Some("depthwise"), "channels and filters swapped", |launch| launch.sizes.swap(3, 6)),
    (Some("residual"), "the bias for the sum", |launch| launch.inputs.rotate_left(1)),
    (Some("residual"), "no hardball", |launch| launch.kernel = launch.kernel.replace("residual_hardball", "residual")),
    (Some("hardball"), "pixels and channels swapped", |launch| launch.sizes.swap(0, 1)),
    (Some("mean"), "images and pixels swapped", |launch| launch.sizes.swap(0, 1)),
    (Some("subsample"), "a stride of two", |launch| launch.sizes[6] = 2),
];

/// The least that threads can differ by.
fn one(launch: &Launch) -> usize {
    if launch.kernel.contains("hardball") { WARP } else { 1 }
}

/// A mistake in the kernels: what it is, where, and the check and build that must find it.
pub(super) struct Mistake {
    pub(super) operation: &'static str,
    pub(super) what: &'static str,
    pub(super) dialect: Dialect,
    pub(super) dtype: DType,
    pub(super) file: &'static str,
    pub(super) text: &'static str,
    pub(super) replacement: &'static str,
}

/// In the order of [`Mistake`]'s fields, with one text of the source for each.
const fn mistake(
    [operation, what]: [&'static str; 2],
    (dialect, dtype): (Dialect, DType),
    [file, text, replacement]: [&'static str; 3],
) -> Mistake {
    Mistake { operation, what, dialect, dtype, file, text, replacement }
}

/// For every operation: both kinds of edges, steps, parameters, what is rounded when.
pub(super) const MISTAKES: &[Mistake] = &[
    mistake(
        ["pixels", "the channels of pixels three apart"],
        (Dialect::Cuda, DType::F32),
        ["stem.h", "const uint channel = i % 3;", "const uint channel = i / 3 % 3;"],
    ),
    mistake(
        ["pixels", "one byte too many"],
        (Dialect::Metal, DType::F16),
        ["stem.h", "if (i >= count) return;", "if (i > count) return;"],
    ),
    mistake(
        ["windows", "no zeros after the window"],
        (Dialect::Cuda, DType::F16),
        ["stem.h", "ky < SIDE && iy < h", "iy < h"],
    ),
    mistake(
        ["windows", "columns outside the image"],
        (Dialect::Metal, DType::BF16),
        ["stem.h", "iy < h && column < 3 * w", "iy < h"],
    ),
    mistake(
        ["windows", "rows outside the image"],
        (Dialect::Cuda, DType::F32),
        ["stem.h", "ky < SIDE && iy < h &&", "ky < SIDE &&"],
    ),
    mistake(
        ["windows", "a padding of two columns"],
        (Dialect::Cuda, DType::F16),
        ["stem.h", "6 * ox + along - 9", "6 * ox + along - 6"],
    ),
    mistake(
        ["pool", "no ReLU"],
        (Dialect::Cuda, DType::F16),
        ["stem.h", "fmax(largest + out.v[i], 0.0f)", "largest + out.v[i]"],
    ),
    mistake(
        ["pool", "no bias"],
        (Dialect::Metal, DType::F32),
        ["stem.h", "fmax(largest + out.v[i], 0.0f)", "fmax(largest, 0.0f)"],
    ),
    mistake(
        ["pool", "a row below the image"],
        (Dialect::Cuda, DType::F32),
        ["stem.h", "2 * oy + 1 < h ? 2 * oy + 1 : h - 1", "2 * oy + 1"],
    ),
    mistake(["pool", "no left column"], (Dialect::Cuda, DType::F16), ["stem.h", "ox > 0 ? 2 * ox - 1 : 0", "2 * ox"]),
    mistake(
        ["pool", "eight taps of nine"],
        (Dialect::Cuda, DType::BF16),
        ["stem.h", "tap = 1; tap < 9;", "tap = 1; tap < 8;"],
    ),
    mistake(
        ["depthwise", "the first half's bias for both"],
        (Dialect::Cuda, DType::F16),
        ["depthwise.h", "load<V>(biases + c + channel)", "load<V>(biases + channel)"],
    ),
    mistake(
        ["depthwise", "the first half squared"],
        (Dialect::Metal, DType::F32),
        ["depthwise.h", "(b.v[i] + bias_b.v[i])", "(a.v[i] + bias_a.v[i])"],
    ),
    mistake(
        ["depthwise", "the gate's biases for those of the filters"],
        (Dialect::Cuda, DType::F16),
        ["depthwise.h", "bias = biases + 2 * c;", "bias = biases;"],
    ),
    mistake(
        ["depthwise", "a pixel of one half only"],
        (Dialect::Metal, DType::F16),
        ["depthwise.h", "pixel = 2 * half,", "pixel = half,"],
    ),
    mistake(
        ["depthwise", "a row below the image"],
        (Dialect::Cuda, DType::F32),
        ["depthwise.h", "if (iy >= h) continue;", "if (iy > h) continue;"],
    ),
    mistake(
        ["depthwise", "a column right of the image"],
        (Dialect::Cuda, DType::F16),
        ["depthwise.h", "column - 1 < w;", "column - 1 <= w;"],
    ),
    mistake(
        ["depthwise", "the left border taken for the middle"],
        (Dialect::Metal, DType::F32),
        ["depthwise.h", "ox > 0 && ox * S", "ox * S"],
    ),
    mistake(
        ["depthwise", "the right border taken for the middle"],
        (Dialect::Cuda, DType::BF16),
        ["depthwise.h", "COLUMNS - 1 <= w", "COLUMNS - 2 <= w"],
    ),
    mistake(
        ["depthwise", "no stride down"],
        (Dialect::Cuda, DType::F32),
        ["depthwise.h", "oy * S + ky - 1", "oy + ky - 1"],
    ),
    mistake(
        ["depthwise", "no stride to the right"],
        (Dialect::Cuda, DType::F32),
        ["depthwise.h", "pixels[s * S + kx]", "pixels[s + kx]"],
    ),
    mistake(
        ["depthwise", "taps column by column"],
        (Dialect::Metal, DType::F16),
        ["depthwise.h", "int(3 * ky + kx)", "int(3 * kx + ky)"],
    ),
    mistake(
        ["depthwise", "the filters of a pair one apart"],
        (Dialect::Cuda, DType::F32),
        ["depthwise.h", "rest % (filters / F) * F;", "rest % (filters / F);"],
    ),
    mistake(
        ["depthwise", "the outputs of all filters in the first's place"],
        (Dialect::Metal, DType::F32),
        ["depthwise.h", "* filters * c + filter * c + channel;", "* filters * c + channel;"],
    ),
    mistake(
        ["depthwise", "the bias of the first filter for all"],
        (Dialect::Cuda, DType::F16),
        ["depthwise.h", "bias + filter * c + channel", "bias + channel"],
    ),
    mistake(
        ["depthwise", "an output right of the last"],
        (Dialect::Cuda, DType::F32),
        ["depthwise.h", "if (ox + s < ow)", "if (ox + s <= ow)"],
    ),
    mistake(
        ["residual", "no bias"],
        (Dialect::Cuda, DType::F32),
        ["block.h", "sum.v[i] + constant_part.v[i] + skip.v[i]", "sum.v[i] + skip.v[i]"],
    ),
    mistake(
        ["residual", "one pixel too many"],
        (Dialect::Metal, DType::BF16),
        ["block.h", "if (index / (c / V) >= p) return;", "if (index / (c / V) > p) return;"],
    ),
    mistake(
        ["residual", "the norm of sums that are not rounded"],
        (Dialect::Cuda, DType::BF16),
        ["hardball.h", "square_norm<V>(rounded_sum<V>(", "square_norm<V>(sum_with_skip<V>("],
    ),
    mistake(
        ["hardball", "the square of the radius"],
        (Dialect::Cuda, DType::F32),
        ["hardball.h", "sqrt(float(c) / square)", "float(c) / square"],
    ),
    mistake(
        ["hardball", "rows inside the ball moved out to it"],
        (Dialect::Cuda, DType::F16),
        ["hardball.h", "square > float(c) ?", "square > 0.0f ?"],
    ),
    mistake(
        ["hardball", "sixteen of 32 lanes"],
        (Dialect::Metal, DType::F32),
        ["hardball.h", "mask = WARP / 2;", "mask = WARP / 4;"],
    ),
    mistake(
        ["hardball", "squares added up in half precision"],
        (Dialect::Cuda, DType::F16),
        ["hardball.h", "sum += part.v[i] * part.v[i];", "sum = widen(narrow(sum + part.v[i] * part.v[i]));"],
    ),
    mistake(
        ["hardball", "no last vector in the norm"],
        (Dialect::Metal, DType::BF16),
        [
            "hardball.h",
            "i < c; i += WARP * V) part += square_norm<V>(load<V>",
            "i + V < c; i += WARP * V) part += square_norm<V>(load<V>",
        ],
    ),
    mistake(
        ["mean", "the divisor"],
        (Dialect::Cuda, DType::F32),
        ["hardball.h", "1.0f / float(p)", "1.0f / float(p + 1)"],
    ),
    mistake(
        ["mean", "no first pixel"],
        (Dialect::Metal, DType::F16),
        ["hardball.h", "pixel = 0; pixel < p;", "pixel = 1; pixel < p;"],
    ),
    mistake(
        ["mean", "sums in half precision"],
        (Dialect::Cuda, DType::BF16),
        ["hardball.h", "sum.v[i] += value.v[i];", "sum.v[i] = widen(narrow(sum.v[i] + value.v[i]));"],
    ),
    mistake(["subsample", "no stride down"], (Dialect::Cuda, DType::F32), ["block.h", "oy * stride", "oy"]),
    mistake(
        ["subsample", "half a vector read twice"],
        (Dialect::Metal, DType::F16),
        ["metal.h", "values.v[4 * i + j] = four[j]", "values.v[j] = four[j]"],
    ),
    mistake(
        ["subsample", "half a vector written"],
        (Dialect::Metal, DType::F16),
        ["metal.h", "device vec<Element, 4> *>(to)[i]", "device vec<Element, 4> *>(to)[0]"],
    ),
    mistake(
        ["subsample", "blocks of another size"],
        (Dialect::Cuda, DType::F32),
        ["cuda.h", "blockIdx.x * blockDim.x + threadIdx.x", "blockIdx.x * 128 + threadIdx.x"],
    ),
];
