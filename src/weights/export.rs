//! Folded weights as files that other programs read.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Reason, Result};
use crate::weights::config::Naming;
use crate::weights::convert::for_pytorch;
use crate::weights::fold::BATCH_NORM_EPS;
use crate::weights::folded::Weights;

impl Weights {
    /// The parameters as a safetensors file, in float32 under their own names.
    ///
    /// # Errors
    /// [`Error::Export`] if a value does not fit into float32.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        serialize(&self.rounded()?, None)
    }

    /// The parameters as a safetensors file with the names and shapes of the `state_dict` that PyTorch's
    /// network has: convolutions without bias, and batch norms that do nothing but add it.
    ///
    /// A batch norm gives `gamma (x - mean) / sqrt(var + eps) + beta`. With `gamma` 1, `mean` 0 and `var`
    /// 1 - eps that is `x + beta`, exactly in float32: `var + eps` rounds to 1. Depthwise kernels that were
    /// shared are written out.
    ///
    /// # Errors
    /// [`Error::ExplicitSkips`] if a skip that PyTorch's network does not have was made explicit; [`Error::Export`] if a
    /// value does not fit into float32.
    pub fn to_state_dict(&self) -> Result<Vec<u8>> {
        serialize(&self.state_dict()?, Some(for_pytorch()))
    }

    /// The tensors of [`Self::to_state_dict`].
    pub(super) fn state_dict(&self) -> Result<BTreeMap<String, Tensor>> {
        if self.config().has_explicit_skips() {
            return Err(Error::ExplicitSkips);
        }
        let folded = self.rounded()?;
        let mut state = BTreeMap::new();
        for conv in self.config().convs() {
            let [weight, bias] = ["weight", "bias"].map(|part| folded[&format!("{}.{part}", conv.name)].clone());
            state.insert(Naming::StateDict.weight(&conv.name), weight);
            let Some(norm) = Naming::StateDict.batch_norm(&conv.name) else {
                state.insert(format!("{}.bias", conv.name), bias);
                continue;
            };
            state.insert(format!("{norm}.weight"), bias.ones_like()?);
            state.insert(format!("{norm}.running_mean"), bias.zeros_like()?);
            state.insert(format!("{norm}.running_var"), bias.ones_like()?.affine(1.0 - BATCH_NORM_EPS, 0.0)?);
            state.insert(format!("{norm}.num_batches_tracked"), Tensor::zeros((), DType::I64, &Device::Cpu)?);
            state.insert(format!("{norm}.bias"), bias);
        }
        Ok(state)
    }

    /// The tensors in float32, after a check that all values are finite.
    pub(super) fn rounded(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut rounded = BTreeMap::new();
        for (name, tensor) in self.tensors() {
            let tensor = tensor.to_dtype(DType::F32)?;
            if !tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().all(f32::is_finite) {
                return Err(Error::Export(Reason::new(format!("`{name}` overflows float32 and cannot be saved"))));
            }
            rounded.insert(name.clone(), tensor);
        }
        Ok(rounded)
    }
}

/// The bytes of a safetensors file.
fn serialize(tensors: &BTreeMap<String, Tensor>, metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    safetensors::serialize(tensors, metadata).map_err(|error| Error::Export(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::config::Config;

    #[test]
    fn what_is_saved_is_read_back_to_the_bit() {
        let weights = Weights::random(&Config::qlnet_digits(), 3).unwrap();
        for bytes in [weights.to_safetensors().unwrap(), weights.to_state_dict().unwrap()] {
            let again = Weights::from_bytes(&bytes).unwrap();
            assert_eq!(again.config(), weights.config());
            for (name, tensor) in weights.tensors() {
                let elements = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(elements(tensor) == elements(&again.tensors()[name]), "{name}");
            }
        }
        let state = Weights::random(&Config::qlnet_50_v0(), 3).unwrap().to_state_dict().unwrap();
        assert_eq!(safetensors::SafeTensors::deserialize(&state).unwrap().len(), 314);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let mut weights = Weights::random(&Config::qlnet_digits(), 3).unwrap().to_dtype(DType::F64).unwrap();
        weights.make_skip_explicit(2, 1).unwrap();
        assert!(matches!(weights.to_state_dict(), Err(Error::ExplicitSkips)));
        weights.replace("fc.bias", Tensor::full(1e300, 10, &Device::Cpu).unwrap()).unwrap();
        let error = weights.to_safetensors().unwrap_err();
        assert!(matches!(&error, Error::Export(_)) && error.to_string().contains("`fc.bias` overflows"), "{error}");
    }
}
