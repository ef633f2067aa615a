//! The images that a network is calibrated with, and what it makes of them.
//!
//! They are drawn, so that no data are needed. Pictures have smooth parts and edges of all sizes; so have greys and
//! dead leaves (Lee, Mumford, Huang, "Occlusion models for natural images", 2001), and white noise has not.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};
use image::{Rgb, RgbImage};
use rand::Rng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, StandardUniform};

use crate::error::Result;
use crate::input::preprocess::to_tensor;
use crate::network::Precision;
use crate::network::model::QLNet;
use crate::random;
use crate::symmetry::structure::{BlockAt, Stream, blocks};
use crate::weights::Weights;

/// Pixels on a side. What is measured on larger images is the same.
const SIDE: u32 = 64;
/// Rectangles of an image of dead leaves.
const LEAVES: usize = 10;

/// So many images of one grey each, from black to white, and so many of dead leaves: `[n, 3, 64, 64]`, normalised
/// like pictures.
pub fn images(greys: usize, leaves: usize, seed: u64) -> Result<Tensor> {
    let grey = |i: usize| (255.0 * i as f64 / (greys.max(2) - 1) as f64).round() as u8;
    let greys = (0..greys).map(|i| RgbImage::from_pixel(SIDE, SIDE, Rgb([grey(i); 3])));
    let rng = &mut random::stream(seed, random::CALIBRATION);
    to_tensor(&greys.chain((0..leaves).map(|_| dead_leaves(rng))).collect::<Vec<_>>())
}

/// Rectangles of random colours and places over each other, with sides from 1/25 of the image's to all of it, each
/// size as likely on a logarithmic scale.
fn dead_leaves(rng: &mut ChaCha8Rng) -> RgbImage {
    fn colour(rng: &mut ChaCha8Rng) -> Rgb<u8> {
        Rgb(std::array::from_fn(|_| rng.next_u32() as u8))
    }
    fn extent(rng: &mut ChaCha8Rng) -> Range<u32> {
        let [size, place]: [f64; 2] = std::array::from_fn(|_| StandardUniform.sample(rng));
        let length = (0.04 * f64::from(SIDE) * 25f64.powf(size)).floor() + 1.0;
        let start = (place * (f64::from(SIDE) + length - 1.0)).floor() - length + 1.0;
        start.max(0.0) as u32..(start + length).min(f64::from(SIDE)) as u32
    }
    let mut image = RgbImage::from_pixel(SIDE, SIDE, colour(rng));
    for _ in 0..LEAVES {
        let (columns, rows, colour) = (extent(rng), extent(rng), colour(rng));
        rows.for_each(|y| columns.clone().for_each(|x| image.put_pixel(x, y, colour)));
    }
    image
}

/// Moments of activations, over all pixels of the calibration's images.
#[derive(Clone)]
pub struct Statistics {
    /// Mean of each channel of what leaves the stem and every block, by their names.
    means: BTreeMap<String, Vec<f64>>,
    /// Of what conv3 reads, by the names of the convolutions conv2.
    hidden: BTreeMap<String, Hidden>,
}

/// Moments of what conv2 makes.
#[derive(Clone)]
pub struct Hidden {
    /// Mean of each filter, those of a channel side by side: `[w f]`.
    pub mean: Vec<f64>,
    /// Central third moments of the filters of a channel with each other: `[w, f, f, f]`.
    pub third: Vec<f64>,
}

impl Statistics {
    /// Runs the network, whose weights are float64, on greys and dead leaves.
    ///
    /// # Errors
    /// [`Error::Compute`](crate::error::Error::Compute) if there is no memory.
    pub fn new(weights: &Weights) -> Result<Self> {
        let images = images(5, 3, 1)?.to_dtype(DType::F64)?;
        let mut seen = BTreeMap::new();
        QLNet::from_weights(weights, Precision::F64, &Device::Cpu)?
            .features_observed(&images, &mut |name, x| drop(seen.insert(name.to_string(), x.clone())))?;
        let mut statistics = Self { means: BTreeMap::new(), hidden: BTreeMap::new() };
        for block in blocks(weights.config(), None) {
            if let Some(x) = seen.remove(&block.conv("conv2")) {
                statistics.hidden.insert(block.conv("conv2"), Hidden::of(&x, block.config.filters)?);
            }
        }
        for (name, x) in seen {
            let mean = x.flatten_to(D::Minus2)?.mean(0)?.to_vec1()?;
            statistics.means.insert(name, finite(mean));
        }
        Ok(statistics)
    }

    /// Of what leaves a block: `[o]`.
    pub fn mean(&self, block: &BlockAt) -> Vec<f64> {
        let mean = self.means.get(&block.name()).cloned();
        mean.unwrap_or_else(|| vec![0.0; block.config.out_channels])
    }

    /// Of what leaves the stem: `[c]`.
    pub fn stem(&self) -> &[f64] {
        self.means.get("stem").map_or(&[], Vec::as_slice)
    }

    /// Of what conv2 of a block makes.
    pub fn hidden(&self, block: &BlockAt) -> Hidden {
        let (w, f) = (block.config.hidden_channels, block.config.filters);
        let none = || Hidden { mean: vec![0.0; w * f], third: vec![0.0; w * f.pow(3)] };
        self.hidden.get(&block.conv("conv2")).cloned().unwrap_or_else(none)
    }

    /// What is found when a stream is scaled by `d`, `[c]`.
    pub fn scale(&mut self, stream: &Stream, d: &[f64]) {
        let blocks = stream.blocks.iter().map(BlockAt::name);
        for name in blocks.chain(["stem".to_string()]) {
            let mean = self.means.get_mut(&name).into_iter().flatten();
            mean.zip(d).for_each(|(mean, d)| *mean *= d);
        }
    }
}

impl Hidden {
    /// `x` is `[n, h, w, f channels]`, filter by filter.
    fn of(x: &Tensor, filters: usize) -> Result<Self> {
        let x = x.flatten_to(D::Minus2)?;
        let (pixels, outputs) = x.dims2()?;
        let channels = outputs / filters;
        let x = x.reshape((pixels, filters, channels))?;
        let mean = x.mean_keepdim(0)?;
        let x = x.broadcast_sub(&mean)?;
        let filters: Vec<Tensor> =
            (0..filters).map(|filter| x.narrow(1, filter, 1)?.contiguous()).collect::<candle_core::Result<_>>()?;
        let mut third = Vec::new();
        for a in &filters {
            for b in &filters {
                let product = (a * b)?;
                for c in &filters {
                    third.push((&product * c)?.mean(0)?.squeeze(0)?);
                }
            }
        }
        let third = Tensor::stack(&third, 1)?.flatten_all()?.to_vec1()?;
        Ok(Self { mean: finite(mean.squeeze(0)?.t()?.flatten_all()?.to_vec1()?), third: finite(third) })
    }
}

/// Zero in place of what is not finite: a step that is told nothing moves nothing.
fn finite(mut values: Vec<f64>) -> Vec<f64> {
    values.iter_mut().filter(|value| !value.is_finite()).for_each(|value| *value = 0.0);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::config::Config;

    #[test]
    fn images_are_greys_and_leaves_of_many_colours() {
        let images = images(3, 2, 1).unwrap();
        assert_eq!(images.dims(), [5, 3, 64, 64]);
        let pixels = images.flatten_from(2).unwrap().to_vec3::<f32>().unwrap();
        let colours =
            |image: usize| pixels[image][0].iter().map(|v| v.to_bits()).collect::<std::collections::HashSet<_>>();
        assert!((0..3).all(|grey| colours(grey).len() == 1) && (3..5).all(|leaves| colours(leaves).len() > 3));
        assert!((pixels[0][0][0] + 0.485 / 0.229).abs() < 1e-5 && (pixels[2][2][0] - 0.594 / 0.225).abs() < 1e-5);
        assert_ne!(pixels[3], pixels[4]);
    }

    /// By hand, in PyTorch's order of filters.
    #[test]
    fn moments_are_those_of_what_conv2_makes() {
        let x = Tensor::new(&[[[[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 0.0, 4.0], [2.0, 2.0, 0.0, 1.0]]]], &Device::Cpu);
        // Channels a and b with filters 0 and 1: a0 b0 a1 b1.
        let Hidden { mean, third } = Hidden::of(&x.unwrap(), 2).unwrap();
        assert_eq!(mean, [2.0, 1.0, 2.0, 3.0]);
        let of = |a: [f64; 3], b: [f64; 3], c: [f64; 3]| (0..3).map(|i| a[i] * b[i] * c[i]).sum::<f64>() / 3.0;
        let (a0, a1) = ([-1.0, 1.0, 0.0], [2.0, -1.0, -1.0]);
        let expected = [of(a0, a0, a0), of(a0, a0, a1), of(a0, a1, a0), of(a0, a1, a1)];
        assert!(third[..4].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{third:?}");
        assert_eq!(third.len(), 16);
        assert!((third[15] - of([1.0, 1.0, -2.0], [1.0, 1.0, -2.0], [1.0, 1.0, -2.0])).abs() < 1e-12);
    }

    #[test]
    fn a_network_that_overflows_is_told_nothing() {
        let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap().to_dtype(DType::F64).unwrap();
        let large = weights.map(|_, tensor| tensor.affine(1e100, 0.0)).unwrap();
        let statistics = Statistics::new(&large).unwrap();
        assert!(statistics.means.values().flatten().all(|mean| mean.is_finite()));
        let moments = |hidden: &Hidden| hidden.mean.iter().chain(&hidden.third).all(|value| value.is_finite());
        assert!(statistics.hidden.values().all(moments));
        assert!(crate::symmetry::prepare_for_int8(&large).is_ok());
    }
}
