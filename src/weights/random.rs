//! Weights that have seen no training.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand_distr::{Distribution, StandardNormal};

use crate::error::{Error, Result};
use crate::random;
use crate::weights::config::{Config, Conv};
use crate::weights::folded::Weights;

impl Weights {
    /// Weights that have seen no training but keep activations near one: normally distributed, with a
    /// variance of one over the inputs of an output. They depend on the seed alone.
    ///
    /// # Errors
    /// [`Error::OtherNetwork`] if the dimensions do not fit each other or are too large; otherwise if there is no memory.
    pub fn random(config: &Config, seed: u64) -> Result<Self> {
        config.check().map_err(Error::OtherNetwork)?;
        let mut rng = random::stream(seed, random::WEIGHTS);
        let mut normal = |shape: &[usize], deviation: f64| {
            let sample = StandardNormal.sample_iter(&mut rng).take(shape.iter().product());
            let values: Vec<f32> = sample.map(|value: f64| (deviation * value) as f32).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)
        };
        let mut tensors = BTreeMap::new();
        for Conv { name, shape } in config.convs() {
            let inputs: usize = shape[1..].iter().product();
            tensors.insert(format!("{name}.bias"), normal(&shape[..1], 0.1)?);
            tensors.insert(format!("{name}.weight"), normal(&shape, (1.0 / inputs as f64).sqrt())?);
        }
        Self::new(config.clone(), tensors).map_err(Error::OtherNetwork)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_not_drawn() {
        let config = Config::new(1, &[(1, 1)], 0, usize::MAX, 2);
        assert!(matches!(Weights::random(&config, 1), Err(Error::OtherNetwork(_))));
    }
}
