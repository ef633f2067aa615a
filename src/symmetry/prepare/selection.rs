//! The fifth step: of some networks that are near each other, the one whose rounding errs least.
//!
//! How much the rounding of one network errs is luck, to a quarter or so; it can be measured without data.

use candle_core::{DType, Device, Tensor};

use super::calibration;
use crate::error::Result;
use crate::network::Precision;
use crate::network::model::QLNet;
use crate::random;
use crate::symmetry::element::{Element, Side};
use crate::symmetry::families::stem_scaling;
use crate::symmetry::matrices;
use crate::weights::Weights;
use crate::weights::config::Config;

/// How many networks are compared.
const VERSIONS: u64 = 8;
/// The deviation of the logarithms of the factors between them.
const STRENGTH: f64 = 0.05;
/// Images on which they are compared: greys, and dead leaves.
const IMAGES: (usize, usize) = (9, 15);

/// The stem scaling, of none and some that are drawn, with the smallest error of the logits when weights are rounded
/// to eight bits.
pub fn selection(weights: &Weights, config: &Config) -> Result<Element> {
    let Some(stream) = stem_scaling::stem(config, None) else { return Ok(Element::default()) };
    let images = calibration::images(IMAGES.0, IMAGES.1, 2)?;
    let logits = |weights: &Weights| QLNet::from_weights(weights, Precision::F32, &Device::Cpu)?.forward(&images);
    let exact = logits(weights)?;
    let mut best = (f32::INFINITY, Element::default());
    for version in 0..VERSIONS {
        let mut element = Element::default();
        if version > 0 {
            let rng = &mut random::stream(version, random::PREPARATION);
            element = stem_scaling::element(&stream, &(matrices::normal(stream.width, rng)? * STRENGTH)?.exp()?)?;
        }
        let mut moved = weights.clone();
        element.apply(&mut moved, Side::Both)?;
        let error = (logits(&rounded(&moved)?)? - &exact)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
        if error < best.0 {
            best = (error, element);
        }
    }
    Ok(best.1)
}

/// The weights in float32, those of 1x1 convolutions rounded as int8 rounds them: each row to 127 steps of either
/// sign.
fn rounded(weights: &Weights) -> Result<Weights> {
    weights.map(|name, tensor| -> Result<Tensor> {
        let tensor = tensor.to_dtype(DType::F32)?;
        if !["conv1.weight", "conv3.weight", "skip.weight"].iter().any(|part| name.ends_with(part)) {
            return Ok(tensor);
        }
        let inputs = tensor.dim(1)?;
        let mut values = tensor.flatten_all()?.to_vec1::<f32>()?;
        values.chunks_exact_mut(inputs).for_each(round);
        Ok(Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?)
    })
}

/// Rounds a row.
fn round(row: &mut [f32]) {
    /// Added to a number below 2^22 and taken away again, it leaves the nearest whole number.
    const MAGIC: f32 = 12_582_912.0;
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let step = if largest < 1e-30 { 1.0 } else { largest / 127.0 };
    row.iter_mut().for_each(|value| *value = ((*value / step + MAGIC) - MAGIC) * step);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symmetry::noise;
    use crate::weights::config::Config;

    /// Weights that int8 rounds to are the ones that it leaves as they are.
    #[test]
    fn weights_are_rounded_as_int8_rounds_them() {
        let weights = Weights::random(&Config::qlnet_digits(), 1).unwrap();
        let images = noise(2, 64, 1).unwrap();
        let logits = |weights: &Weights, precision| {
            QLNet::from_weights(weights, precision, &Device::Cpu).unwrap().forward(&images).unwrap()
        };
        let difference =
            |a: &Tensor, b: &Tensor| (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let rounded = rounded(&weights).unwrap();
        let once = logits(&weights, Precision::Int8);
        let moved = difference(&logits(&weights, Precision::F32), &logits(&rounded, Precision::F32));
        let again = difference(&once, &logits(&rounded, Precision::Int8));
        assert!(again < 1e-2 * moved, "{again} {moved}");
    }

    /// A row of zeros, and one too small to divide by.
    #[test]
    fn rows_of_nothing_stay() {
        for value in [0.0, 1e-38] {
            let mut row = [value; 3];
            round(&mut row);
            assert_eq!(row, [0.0; 3]);
        }
        let mut row = [1.27, -0.635, 0.004];
        round(&mut row);
        assert!(row.iter().zip([1.27, -0.64, 0.0]).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{row:?}");
    }
}
