//! The first two steps: the stem's channels are scaled, and what enters products is centred.

use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, DVector};

use super::calibration::Statistics;
use super::dense::matrix;
use crate::error::Result;
use crate::symmetry::element::Element;
use crate::symmetry::families::{conv2_bias_shift, stem_scaling, stream_shift};
use crate::symmetry::structure::{blocks, streams};
use crate::weights::Weights;
use crate::weights::config::Config;

/// How often the factors are improved at most.
const ROUNDS: usize = 1000;
/// A round that changes no factor by more than so much was the last.
const CONVERGED: f64 = 1e-12;
/// No channel is scaled by more than another by more than the square of this.
const LARGEST_FACTOR: f64 = 1e6;

/// Scales the channels of the stem's stream such that the columns that read them have one size: for each reader the
/// mean over its rows of the squares in a column, added up over the readers. The rows of each conv1 count as if they
/// were of norm one, for each is rounded by itself; those of a skip add up, so they count as they are, together as
/// much as those of a conv1. What the stem makes of the calibration's images gets the mean one.
pub fn scaling(weights: &Weights, config: &Config, statistics: &mut Statistics) -> Result<Element> {
    let Some(stream) = stem_scaling::stem(config, None) else { return Ok(Element::default()) };
    let readers = stream.readers().into_iter().map(|conv| {
        let squares = matrix(weights, &conv)?.map(|value| value * value);
        Ok(Reader { squares, together: conv.ends_with("skip") })
    });
    let d = evened(&readers.collect::<Result<Vec<_>>>()?, stream.width);
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / stream.width as f64;
    let geometric = mean(&mut d.iter().map(|d| d.ln())).exp();
    let d: Vec<f64> = d.iter().map(|d| (d / geometric).clamp(1.0 / LARGEST_FACTOR, LARGEST_FACTOR)).collect();
    let whole = mean(&mut d.iter().zip(statistics.stem()).map(|(d, mean)| d * mean));
    let whole = if (1.0 / LARGEST_FACTOR..LARGEST_FACTOR).contains(&whole) { whole } else { 1.0 };
    let d: Vec<f64> = d.iter().map(|d| d / whole).collect();
    if d.iter().any(|d| !d.is_finite()) {
        return Ok(Element::default());
    }
    statistics.scale(&stream, &d);
    stem_scaling::element(&stream, &Tensor::new(d, &Device::Cpu)?)
}

/// What reads the stream.
struct Reader {
    /// Of its weight: `[o, c]`.
    squares: DMatrix<f64>,
    /// Whether its rows count as they are, instead of with a norm of one each.
    together: bool,
}

impl Reader {
    /// The size of each column, `[c]`, once the squares in it are multiplied by a factor `[c]`.
    fn sizes(&self, factors: &DVector<f64>) -> DVector<f64> {
        let mut norms = &self.squares * factors;
        if self.together {
            norms.fill(norms.mean());
        }
        let rows = norms.len() as f64;
        norms.apply(|norm| *norm = if *norm > 0.0 { (rows * *norm).recip() } else { 0.0 });
        self.squares.tr_mul(&norms).component_mul(factors)
    }
}

/// What each of `width` channels is to be multiplied by for columns of one size, but for a common factor.
fn evened(readers: &[Reader], width: usize) -> Vec<f64> {
    let mut d = DVector::from_element(width, 1.0);
    for _ in 0..ROUNDS {
        let factors = d.map(|d: f64| (d * d).recip());
        let sizes = readers.iter().fold(DVector::zeros(width), |sum, reader| sum + reader.sizes(&factors));
        // A channel that nobody reads stays.
        let read = sizes.iter().filter(|size| **size > 0.0).count();
        let mean = sizes.sum() / read as f64;
        let change = sizes.map(|size| (size / mean).sqrt()).map(|by| if by > 0.0 && by.is_finite() { by } else { 1.0 });
        d.component_mul_assign(&change);
        if change.iter().all(|by| (by - 1.0).abs() < CONVERGED) {
            break;
        }
    }
    d.as_slice().to_vec()
}

/// Shifts what conv2 makes, and the streams at every open boundary, such that what conv3 and conv1 read has the mean
/// zero: the rounding of a weight then errs about zero too.
pub fn centring(config: &Config, statistics: &Statistics) -> Result<Element> {
    let shift = |values: &[f64]| Tensor::new(values, &Device::Cpu);
    let mut sum = Element::default();
    for block in blocks(config, None) {
        let d: Vec<f64> = statistics.hidden(&block).mean.iter().map(|mean| -mean).collect();
        sum = sum.and(conv2_bias_shift::element(&block, &shift(&d)?)?);
    }
    for stream in streams(config, None) {
        // The shifts that the stream carries already.
        let mut carried = vec![0.0; stream.width];
        for (block, after) in stream.open_boundaries() {
            let mean = statistics.mean(&block);
            let t: Vec<f64> = mean.iter().zip(&carried).map(|(mean, carried)| -mean - carried).collect();
            carried = mean.iter().map(|mean| -mean).collect();
            sum = sum.and(stream_shift::element(&stream, &block, after, &shift(&t)?)?);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::symmetry::element::Side;

    fn random() -> (Weights, Config) {
        let config = Config::new(5, &[(5, 2), (7, 3), (6, 2)], 0, 2, 3);
        (Weights::random(&config, 1).unwrap().to_dtype(DType::F64).unwrap(), config)
    }

    #[test]
    fn columns_that_read_the_stem_have_one_size() {
        let (mut weights, config) = random();
        let mut statistics = Statistics::new(&weights).unwrap();
        scaling(&weights, &config, &mut statistics).unwrap().apply(&mut weights, Side::Both).unwrap();
        let readers = ["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.0.skip"].map(|conv| Reader {
            squares: matrix(&weights, conv).unwrap().map(|value| value * value),
            together: conv.ends_with("skip"),
        });
        let ones = DVector::from_element(5, 1.0);
        let sizes = readers.iter().fold(DVector::zeros(5), |sum, reader| sum + reader.sizes(&ones));
        assert!((sizes.max() - sizes.min()) < 1e-9 * sizes.mean(), "{sizes}");
        // What was measured before is what is measured now, scaled.
        let found = Statistics::new(&weights).unwrap();
        assert!(found.stem().iter().zip(statistics.stem()).all(|(a, b)| (a - b).abs() < 1e-12));
        assert!((found.stem().iter().sum::<f64>() / 5.0 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_channel_that_nobody_reads_is_not_scaled_to_nothing() {
        let squares = DMatrix::from_row_slice(2, 3, &[1.0, 0.0, 4.0, 1.0, 0.0, 9.0]);
        let d = evened(&[Reader { squares, together: false }], 3);
        assert!(d[1] == 1.0 && d.iter().all(|d| (0.1..10.0).contains(d)), "{d:?}");
        let nothing = Reader { squares: DMatrix::zeros(2, 3), together: true };
        assert_eq!(evened(&[nothing], 3), [1.0; 3]);
    }

    #[test]
    fn what_enters_products_has_the_mean_zero() {
        let (mut weights, config) = random();
        let statistics = Statistics::new(&weights).unwrap();
        centring(&config, &statistics).unwrap().apply(&mut weights, Side::Both).unwrap();
        let found = Statistics::new(&weights).unwrap();
        let largest = |means: &[f64]| means.iter().fold(0f64, |largest, mean| largest.max(mean.abs()));
        for block in blocks(&config, None) {
            assert!(largest(&found.hidden(&block).mean) < 1e-12 && largest(&statistics.hidden(&block).mean) > 1e-3);
        }
        for stream in streams(&config, None) {
            for (block, _) in stream.open_boundaries() {
                assert!(largest(&found.mean(&block)) < 1e-12, "{}", block.name());
            }
        }
    }
}
