//! What is made of kernels: the stem, blocks and the head. Their weights are read from a map, as from a file.

use std::sync::Arc;

use super::guarded::{EDGES, Edge, Guarded, mapped};
use super::small;
use crate::network::cpu::block::{PackedBlock, Parameters};
use crate::network::cpu::linear::PackedLinear;
use crate::network::cpu::operand::Products;
use crate::network::cpu::packed::Sections;
use crate::network::cpu::products::product;
use crate::network::cpu::stem::PackedStem;
use crate::network::cpu::vector::lanes;
use crate::random::tests::{test_stream, uniform};
use crate::weights::config::{BlockConfig, Skip};

/// What was written, as from a file, at an edge.
fn sections(write: impl FnOnce(&mut Vec<u8>), edge: Edge) -> Sections {
    let mut bytes = Vec::new();
    write(&mut bytes);
    let (map, range) = mapped(&bytes, edge);
    Sections::new(Arc::new(map), range.start).unwrap()
}

#[test]
fn the_head_stays_inside() {
    let rng = &mut test_stream(7);
    for outputs in 1..=6 * lanes() + 1 {
        let (inputs, n) = (1 + outputs * 5 % 67, 1 + outputs % 4);
        let (x, weight, bias) = (small(n * inputs, rng), small(outputs * inputs, rng), small(outputs, rng));
        let linear = PackedLinear::new(inputs, &weight, &bias);
        let columns: Vec<f32> = (0..inputs * outputs).map(|at| weight[at % outputs * inputs + at / outputs]).collect();
        let sums = product(n, inputs, outputs, &x, inputs, &columns);
        for edge in EDGES {
            let mut sections = sections(|bytes| linear.write(bytes).unwrap(), edge);
            let linear = PackedLinear::restore(inputs, outputs, &mut sections).unwrap();
            for (at, found) in linear.forward(&Guarded::new(&x, edge), n).iter().enumerate() {
                assert_eq!(f64::from(*found), sums[at] + f64::from(bias[at % outputs]), "{inputs}x{outputs} {edge:?}");
            }
        }
    }
}

#[test]
fn the_stem_stays_inside() {
    let rng = &mut test_stream(8);
    for (i, outputs) in (1..=6 * lanes() + 1).step_by(3).enumerate() {
        let (channels, height, width) = (1 + i % 3, 1 + i * 7 % 31, 1 + i * 5 % 37);
        let (weight, bias) = (small(outputs * channels * 49, rng), small(outputs, rng));
        let x = small(2 * channels * height * width, rng);
        let stem = PackedStem::new(channels, &weight, &bias);
        let convolved = |image: usize, output: usize, y: usize, x_: usize| {
            let mut sum = bias[output];
            for (channel, ky, kx) in (0..channels * 49).map(|i| (i / 49, i / 7 % 7, i % 7)) {
                let (row, column) = ((2 * y + ky).wrapping_sub(3), (2 * x_ + kx).wrapping_sub(3));
                if row < height && column < width {
                    let value = x[((image * channels + channel) * height + row) * width + column];
                    sum += weight[((output * channels + channel) * 7 + ky) * 7 + kx] * value;
                }
            }
            sum
        };
        let (ch, cw) = (height.div_ceil(2), width.div_ceil(2));
        let all: Vec<f32> = (0..2 * ch * cw * outputs)
            .map(|at| convolved(at / outputs / cw / ch, at % outputs, at / outputs / cw % ch, at / outputs % cw))
            .collect();
        let (ph, pw) = (ch.div_ceil(2), cw.div_ceil(2));
        for edge in EDGES {
            let mut sections = sections(|bytes| stem.write(bytes).unwrap(), edge);
            let stem = PackedStem::restore(channels, outputs, &mut sections).unwrap();
            let found = stem.forward(&Guarded::new(&x, edge), 2, height, width);
            assert_eq!(found.len(), 2 * ph * pw * outputs);
            for (at, found) in found.iter().enumerate() {
                let (image, p, q) = (at / outputs / pw / ph, at / outputs / pw % ph, at / outputs % pw);
                let rows = (2 * p).saturating_sub(1)..(2 * p + 2).min(ch);
                let near = rows.flat_map(|y| ((2 * q).saturating_sub(1)..(2 * q + 2).min(cw)).map(move |x| (y, x)));
                let wanted =
                    near.fold(0f32, |most, (y, x)| most.max(all[((image * ch + y) * cw + x) * outputs + at % outputs]));
                assert_eq!(*found, wanted, "{outputs} of {channels}x{height}x{width} {edge:?}");
            }
        }
    }
}

/// Blocks give at an edge what they give elsewhere, where other tests compare them with plain ones.
#[test]
fn blocks_stay_inside() {
    let rng = &mut test_stream(9);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for i in 0..24 {
        let (input, hidden, filters) = (1 + i * 11 % 40, 1 + i * 7 % 50, 1 + i % 2);
        let (skip, stride) = [(Skip::Identity, 1), (Skip::Projection, 2), (Skip::Linear, 1)][i % 3];
        let output = if skip == Skip::Identity { input } else { 1 + i * 13 % 70 };
        let config =
            BlockConfig { in_channels: input, hidden_channels: hidden, filters, out_channels: output, stride, skip };
        let (height, width, n) = (1 + i % 9, 1 + i * 5 % 11, 1 + i % 3);
        let mut draw = |len| uniform(len, -0.5..0.5, rng);
        let conv1 = (draw(2 * hidden * input), draw(2 * hidden));
        let conv2 = (draw(filters * hidden * 9), draw(filters * hidden));
        let conv3 = (draw(output * filters * hidden), draw(output));
        let skip = (draw(output * input), draw(output));
        let x = draw(n * height * width * input);
        let parameters = Parameters {
            conv1: (&conv1.0, &conv1.1),
            conv2: (&conv2.0, &conv2.1),
            conv3: (&conv3.0, &conv3.1),
            skip: config.skip.is_convolution().then_some((&skip.0[..], &skip.1[..])),
        };
        for products in [Products::Float32, Products::Bfloat16, Products::Int8] {
            let block = PackedBlock::new(&config, products, &parameters);
            let expected = block.forward(&x, n, height, width);
            for edge in EDGES {
                let mut sections = sections(|bytes| block.write(bytes).unwrap(), edge);
                let block = PackedBlock::restore(&config, products.format(), &mut sections).unwrap();
                let x = Guarded::new(&x, edge);
                assert!(block.forward(&x, n, height, width) == expected, "{config:?}");
                assert!(pool.install(|| block.forward(&x, n, height, width)) == expected, "{config:?}");
            }
        }
    }
}
