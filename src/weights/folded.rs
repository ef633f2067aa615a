//! The folded weights of a network.

use std::collections::BTreeMap;
use std::fmt;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use crate::error::{Context, Error, Reason, Result, ensure};
use crate::weights::config::{Config, Skip};

/// A network's parameters with batch norm folded in, and its dimensions, which they fit.
///
/// Every [`Conv`](crate::weights::config::Conv) of the configuration has two tensors, `{name}.weight` of the
/// shape that [`Config::convs`] gives and `{name}.bias` with one element per output. There are no others. Read
/// from a file they lie on the CPU in float32.
#[derive(Clone)]
pub struct Weights {
    config: Config,
    tensors: BTreeMap<String, Tensor>,
}

impl fmt::Debug for Weights {
    /// What network they are of, without the numbers.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Weights {{ {} }}", self.config)
    }
}

impl Weights {
    /// Puts together dimensions and tensors, after a check that they fit.
    pub(super) fn new(config: Config, tensors: BTreeMap<String, Tensor>) -> Result<Self, Reason> {
        config.check()?;
        let convs = config.convs();
        ensure!(tensors.len() == 2 * convs.len(), "there are {} tensors, not two per convolution", tensors.len());
        for conv in convs {
            for (part, shape) in [("weight", &conv.shape[..]), ("bias", &conv.shape[..1])] {
                let name = format!("{}.{part}", conv.name);
                let tensor = tensors.get(&name).with_context(|| format!("tensor `{name}` is missing"))?;
                ensure!(tensor.dims() == shape, "tensor `{name}` has shape {:?}, expected {shape:?}", tensor.dims());
            }
        }
        Ok(Self { config, tensors })
    }

    /// The dimensions of the network.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Weights of the same network whose tensors `change` makes of these, by name and in the names' order.
    ///
    /// # Errors
    /// If `change` fails, or gives a tensor another shape ([`Error::OtherNetwork`]).
    pub fn map<E: Into<Error>>(&self, mut change: impl FnMut(&str, &Tensor) -> Result<Tensor, E>) -> Result<Self> {
        let change = |(name, tensor): (&String, &Tensor)| {
            change(name, tensor).map(|tensor| (name.clone(), tensor)).map_err(Into::into)
        };
        let tensors = self.tensors.iter().map(change).collect::<Result<_>>()?;
        Self::new(self.config.clone(), tensors).map_err(Error::OtherNetwork)
    }

    /// The same weights in another element type.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        self.map(|_, tensor| tensor.to_dtype(dtype))
    }

    /// Replaces a tensor by one of the same shape.
    ///
    /// # Errors
    /// If there is no tensor of that name, or it has another shape.
    pub fn replace(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        let replace = || -> Result<(), Reason> {
            let old = self.tensors.get_mut(name).with_context(|| format!("there is no `{name}`"))?;
            let shape = old.dims();
            ensure!(tensor.dims() == shape, "tensor `{name}` has shape {:?}, expected {shape:?}", tensor.dims());
            *old = tensor;
            Ok(())
        };
        replace().map_err(Error::OtherNetwork)
    }

    /// Makes the identity skip of a block a convolution that does the same ([`Skip::Linear`]). A skip that is a
    /// convolution already stays as it is. Layers count from 1 and blocks from 0, as in the names of tensors.
    ///
    /// # Errors
    /// If there is no such block.
    pub fn make_skip_explicit(&mut self, layer: usize, block: usize) -> Result<()> {
        let blocks = layer.checked_sub(1).and_then(|layer| self.config.layers.get_mut(layer));
        let config = blocks.and_then(|blocks| blocks.get_mut(block));
        let config =
            config.with_context(|| format!("there is no layer{layer}.{block}")).map_err(Error::OtherNetwork)?;
        if config.skip == Skip::Identity {
            let (n, name) = (config.out_channels, format!("layer{layer}.{block}"));
            let dtype = self.tensors[&format!("{name}.conv3.weight")].dtype();
            let identity = Tensor::eye(n, dtype, &Device::Cpu)?.reshape((n, n, 1, 1))?;
            let zeros = Tensor::zeros(n, dtype, &Device::Cpu)?;
            config.skip = Skip::Linear;
            self.tensors.insert(format!("{name}.skip.weight"), identity);
            self.tensors.insert(format!("{name}.skip.bias"), zeros);
        }
        Ok(())
    }

    /// The parameters as candle's layers take them, converted to a device and an element type as they are
    /// asked for.
    #[doc(hidden)]
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let tensors = self.tensors.iter().map(|(name, t)| (name.clone(), t.clone())).collect();
        VarBuilder::from_tensors(tensors, dtype, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_fit_the_configuration_whatever_is_changed() {
        let mut weights = Weights::random(&Config::qlnet_digits(), 1).unwrap();
        let fits = |weights: &Weights| Weights::new(weights.config.clone(), weights.tensors.clone()).is_ok();
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();

        weights.replace("stem.bias", zeros(&[16])).unwrap();
        for (name, shape) in [("stem.bias", 15), ("stem.beta", 16)] {
            assert!(matches!(weights.replace(name, zeros(&[shape])), Err(Error::OtherNetwork(_))));
        }
        assert!(matches!(weights.map(|_, _| Ok::<_, Error>(zeros(&[1]))), Err(Error::OtherNetwork(_))));
        assert!(fits(&weights));

        weights.make_skip_explicit(2, 1).unwrap();
        weights.make_skip_explicit(2, 1).unwrap();
        assert!(weights.config().has_explicit_skips() && fits(&weights));
        assert_eq!(weights.tensors()["layer2.1.skip.weight"].dims(), [24, 24, 1, 1]);
        for (layer, block) in [(0, 0), (5, 0), (2, 2)] {
            assert!(matches!(weights.make_skip_explicit(layer, block), Err(Error::OtherNetwork(_))));
        }
    }
}
