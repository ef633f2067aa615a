//! Kernels that work on rows of pixels.

use rand::rngs::ChaCha8Rng;

use super::guarded::{EDGES, Guarded};
use super::small;
use crate::network::cpu::depthwise::{self, Around, Filters};
use crate::network::cpu::extent;
use crate::network::cpu::hardball::project;
use crate::network::cpu::operand::{Scale, scales_of};
use crate::network::cpu::vector::lanes;
use crate::random::tests::{test_stream, uniform};

/// A depthwise convolution of three rows of which some may be missing.
struct Convolution {
    weight: Vec<f32>,
    bias: Vec<f32>,
    filters: usize,
    stride: usize,
    rows: [Option<Vec<f32>>; 3],
}

impl Convolution {
    fn new(channels: usize, filters: usize, stride: usize, width: usize, rng: &mut ChaCha8Rng) -> Self {
        let padded = channels.next_multiple_of(lanes());
        let rows = [channels % 5 != 1, channels % 7 != 2, channels % 3 != 1];
        Self {
            weight: small(channels * filters * 9, rng),
            bias: small(channels * filters, rng),
            filters,
            stride,
            rows: rows.map(|row| row.then(|| small(width * padded, rng))),
        }
    }

    /// Output `filter` of a channel at `x`.
    fn at(&self, x: usize, channel: usize, filter: usize, padded: usize) -> f32 {
        let output = channel * self.filters + filter;
        let Some(bias) = self.bias.get(output) else { return 0.0 };
        let mut sum = *bias;
        for (ky, row) in self.rows.iter().enumerate() {
            for kx in 0..3 {
                let column = (x * self.stride + kx).checked_sub(1);
                let value = row.as_ref().zip(column).and_then(|(row, column)| row.get(column * padded + channel));
                sum += self.weight[output * 9 + ky * 3 + kx] * value.unwrap_or(&0.0);
            }
        }
        sum
    }
}

#[test]
fn depthwise_rows_stay_inside() {
    let rng = &mut test_stream(4);
    for channels in 1..=3 * lanes() + 1 {
        let (filters, stride, width) = (1 + channels % 3, 1 + channels / 2 % 3, 1 + channels % 13);
        let convolution = Convolution::new(channels, filters, stride, width, rng);
        let (padded, outputs) = (channels.next_multiple_of(lanes()), width.div_ceil(stride));
        let (more, first) = ([0, 1, 5][channels % 3], outputs / 2);
        let values = filters * padded;
        for (edge, ends) in
            EDGES.into_iter().flat_map(|edge| [0..padded, 0..lanes(), lanes()..padded].map(|c| (edge, c)))
        {
            if ends.is_empty() {
                continue;
            }
            // The rows of these channels alone.
            let (pixel, count) = (ends.len() + more, ends.len());
            let rows = convolution.rows.each_ref().map(|row| {
                row.as_ref().map(|row| {
                    let mut spread = vec![f32::NAN; extent(width, pixel, count)];
                    for (to, from) in spread.chunks_mut(pixel).zip(row.chunks(padded)) {
                        to[..count].copy_from_slice(&from[ends.clone()]);
                    }
                    Guarded::new(&spread, edge)
                })
            });
            let x = Around { rows: rows.each_ref().map(|row| row.as_deref()), width, pixel };
            let filters_at_edge = Filters::new(&convolution.weight, &convolution.bias, filters, stride).guarded(edge);
            for part in [0..outputs, 0..first, first..outputs] {
                if part.is_empty() {
                    continue;
                }
                let out_pixel = values + more;
                let mut out = Guarded::new(&vec![7.0; extent(part.len(), out_pixel, values)], edge);
                if count == padded {
                    depthwise::row(&filters_at_edge, x, part.clone(), &mut out, out_pixel);
                } else {
                    let (part, channels) = (part.clone(), ends.clone());
                    // SAFETY: `out` has all channels of these pixels.
                    unsafe { depthwise::row_of(&filters_at_edge, x, part, channels, out.as_mut_ptr(), out_pixel) };
                }
                for (at, found) in out.iter().enumerate() {
                    let (x, output) = (part.start + at / out_pixel, at % out_pixel);
                    let (channel, filter) = (output % padded, output / padded);
                    let made = output < values && ends.contains(&channel);
                    let wanted = if made { convolution.at(x, channel, filter, padded) } else { 7.0 };
                    assert_eq!(*found, wanted, "{channels}, {ends:?}, {stride}, {x}, {output} {edge:?}");
                }
            }
        }
    }
}

#[test]
fn scales_stay_inside() {
    let rng = &mut test_stream(5);
    for k in 1..=3 * 4 * lanes() + 1 {
        let (count, pixel) = (1 + k % 3, k + k % 4);
        let x = uniform(extent(count, pixel, k), -1.0..3.0, rng);
        for edge in EDGES {
            let mut scales = Guarded::new(&vec![Scale::default(); count], edge);
            scales_of(&Guarded::new(&x, edge), pixel, k, &mut scales);
            for (scale, x) in scales.iter().zip(x.chunks(pixel)) {
                let (least, most) = x[..k].iter().fold((x[0], x[0]), |(least, most), v| (least.min(*v), most.max(*v)));
                assert_eq!(*scale, Scale { step: (most - least) / 255.0, least }, "{k} {edge:?}");
            }
        }
    }
}

#[test]
fn projections_stay_inside() {
    let rng = &mut test_stream(6);
    for channels in 1..=3 * 16 + 1 {
        let x = uniform(3 * channels, -2.0..2.0, rng);
        for edge in EDGES {
            let mut found = Guarded::new(&x, edge);
            project(&mut found, channels);
            for (found, x) in found.chunks(channels).zip(x.chunks(channels)) {
                let norm = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                let factor = ((channels as f64).sqrt() / norm).min(1.0);
                for (found, x) in found.iter().zip(x) {
                    assert!((f64::from(*found) - f64::from(*x) * factor).abs() < 1e-6, "{channels} {edge:?}");
                }
            }
        }
    }
}
