//! Folds batch norm into the convolutions.
//!
//! In inference a batch norm is affine per channel, so a convolution `W` without bias and the batch
//! norm after it are one convolution with a bias:
//!
//! ```text
//! s  = gamma / sqrt(running_var + 1e-5)
//! W' = s W                                  row by row
//! b' = beta - s running_mean
//! ```
//!
//! The network knows only these folded parameters.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use rand_distr::{Distribution, StandardNormal};

use crate::random;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::config::{Config, Conv, Naming};

/// What PyTorch's `BatchNorm2d` adds to the variance unless told otherwise.
const BATCH_NORM_EPS: f64 = 1e-5;

/// A network's parameters with batch norm folded in: `{conv}.weight` and `{conv}.bias`, in float32 as they
/// are read, for every [`Conv`] of the configuration, with the shapes that [`Config::convs`] gives.
#[derive(Clone, Debug)]
pub struct Weights {
    pub config: Config,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Folds a checkpoint; one that is folded already is only checked.
    ///
    /// # Errors
    /// If a tensor is missing, misshapen, not known or not finite. The message names it, and the
    /// shape that was expected.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let tensors = &checkpoint.tensors;
        let naming = if tensors.contains_key("stem.weight") { Naming::Folded } else { Naming::StateDict };
        let config = infer_config(naming, tensors)?;
        let mut source = Source { left: tensors.iter().map(|(name, t)| (name.as_str(), t)).collect() };
        let mut folded = BTreeMap::new();
        for conv in config.convs() {
            let (weight, bias) = source.fold(&conv, naming)?;
            folded.insert(format!("{}.bias", conv.name), Tensor::from_vec(bias, conv.shape[0], &Device::Cpu)?);
            folded.insert(format!("{}.weight", conv.name), Tensor::from_vec(weight, conv.shape, &Device::Cpu)?);
        }
        if let Some((name, tensor)) = source.left.first_key_value() {
            let more =
                if source.left.len() > 1 { format!(" and {} more", source.left.len() - 1) } else { String::new() };
            bail!("unexpected tensor `{name}` of shape {:?}{more}: a QLNet with {config} has none", tensor.dims());
        }
        Ok(Self { config, tensors: folded })
    }

    /// Weights that have seen no training but keep activations near one: normally distributed, with a
    /// variance of one over the inputs of an output. They depend on the seed alone.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn random(config: &Config, seed: u64) -> Result<Self> {
        let mut rng = random::stream(seed, random::WEIGHTS);
        let mut normal = |shape: &[usize], deviation: f64| -> Result<Tensor> {
            let sample = StandardNormal.sample_iter(&mut rng).take(shape.iter().product());
            let values: Vec<f32> = sample.map(|value: f64| (deviation * value) as f32).collect();
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
        };
        let mut tensors = BTreeMap::new();
        for Conv { name, shape } in config.convs() {
            let inputs: usize = shape[1..].iter().product();
            tensors.insert(format!("{name}.bias"), normal(&shape[..1], 0.1)?);
            tensors.insert(format!("{name}.weight"), normal(&shape, (1.0 / inputs as f64).sqrt())?);
        }
        Ok(Self { config: config.clone(), tensors })
    }

    /// The same in another element type.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let convert = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_dtype(dtype)?));
        Ok(Self { config: self.config.clone(), tensors: self.tensors.iter().map(convert).collect::<Result<_>>()? })
    }

    /// In float32, all of them finite.
    fn rounded(&self) -> Result<BTreeMap<String, Tensor>> {
        let tensors = self.to_dtype(DType::F32)?.tensors;
        for (name, tensor) in &tensors {
            let finite = tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().all(f32::is_finite);
            ensure!(finite, "`{name}` overflows float32 and cannot be saved");
        }
        Ok(tensors)
    }

    /// The parameters as a safetensors file, in float32 under their own names.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        Ok(safetensors::serialize(&self.rounded()?, None)?)
    }

    /// The parameters as a safetensors file with the names and shapes of the `state_dict` that PyTorch's
    /// network has: convolutions without bias, and batch norms that do nothing but add it.
    ///
    /// A batch norm gives `gamma (x - mean) / sqrt(var + eps) + beta`. With `gamma` 1, `mean` 0 and `var`
    /// 1 - eps that is `x + beta`, exactly in float32: `var + eps` rounds to 1. Depthwise kernels that were
    /// shared are written out.
    ///
    /// # Errors
    /// If a skip that PyTorch's network does not have was made explicit.
    pub fn to_state_dict(&self) -> Result<Vec<u8>> {
        ensure!(
            !self.config.has_explicit_skips(),
            "a network with explicit skips has no state_dict: PyTorch's class has none there"
        );
        let folded = self.rounded()?;
        let mut state = BTreeMap::new();
        for conv in self.config.convs() {
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
        Ok(safetensors::serialize(&state, Some(HashMap::from([("format".into(), "pt".into())])))?)
    }

    /// The parameters as candle's layers take them, converted to a device and an element type as
    /// they are asked for.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let tensors = self.tensors.iter().map(|(name, t)| (name.clone(), t.clone())).collect();
        VarBuilder::from_tensors(tensors, dtype, device)
    }
}

/// [`Config::infer`] from the tensors themselves.
pub(crate) fn infer_config(naming: Naming, tensors: &BTreeMap<String, Tensor>) -> Result<Config> {
    Config::infer(naming, tensors.keys().map(String::as_str), |name| tensors.get(name).map(|t| t.dims()))
}

/// The tensors of a checkpoint that no convolution has taken yet.
struct Source<'a> {
    left: BTreeMap<&'a str, &'a Tensor>,
}

impl Source<'_> {
    /// Weight and bias of one convolution, folded in float64 and rounded to float32.
    fn fold(&mut self, conv: &Conv, naming: Naming) -> Result<(Vec<f32>, Vec<f32>)> {
        let rows = conv.shape[0];
        let mut weight = self.weight(conv, naming)?;
        let norm = naming.batch_norm(&conv.name);
        let bias = match &norm {
            None => self.take(&format!("{}bias", naming.weight(&conv.name).trim_end_matches("weight")), &[rows])?,
            Some(norm) => {
                let mut vector = |part: &str| self.take(&format!("{norm}.{part}"), &[rows]);
                let (gamma, beta) = (vector("weight")?, vector("bias")?);
                let (mean, variance) = (vector("running_mean")?, vector("running_var")?);
                if let Some(row) = variance.iter().position(|v| v + BATCH_NORM_EPS <= 0.0) {
                    bail!("tensor `{norm}.running_var` has a negative variance, {}, at index {row}", variance[row]);
                }
                let scale: Vec<f64> =
                    gamma.iter().zip(&variance).map(|(gamma, v)| gamma / (v + BATCH_NORM_EPS).sqrt()).collect();
                let columns = weight.len() / rows;
                for (row, scale) in weight.chunks_exact_mut(columns).zip(&scale) {
                    row.iter_mut().for_each(|w| *w *= scale);
                }
                (0..rows).map(|r| beta[r] - scale[r] * mean[r]).collect()
            }
        };
        let round = |values: Vec<f64>| -> Vec<f32> { values.into_iter().map(|v| v as f32).collect() };
        let (weight, bias) = (round(weight), round(bias));
        ensure!(
            weight.iter().chain(&bias).all(|v| v.is_finite()),
            "`{}` overflows float32 when its batch norm is folded: variances are too small, or weights too large",
            naming.weight(&conv.name)
        );
        Ok((weight, bias))
    }

    /// The weight of a convolution. A depthwise weight may have fewer kernels than the convolution
    /// has rows: they then repeat along the channels (qlnet-10m-ks, where kernels are shared).
    fn weight(&mut self, conv: &Conv, naming: Naming) -> Result<Vec<f64>> {
        let name = naming.weight(&conv.name);
        let rows = conv.shape[0];
        if let Some(&[kernels, 1, 3, 3]) = self.left.get(name.as_str()).map(|t| t.dims())
            && conv.shape[1..] == [1, 3, 3]
            && kernels > 0
            && kernels < rows
            && rows.is_multiple_of(kernels)
        {
            return Ok(self.take(&name, &[kernels, 1, 3, 3])?.repeat(rows / kernels));
        }
        self.take(&name, &conv.shape)
    }

    /// The elements of a tensor, checked for shape and for values that are not finite.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let tensor =
            self.left.remove(name).with_context(|| format!("tensor `{name}` is missing (expected shape {shape:?})"))?;
        ensure!(tensor.dims() == shape, "tensor `{name}` has shape {:?}, expected {shape:?}", tensor.dims());
        let elements = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        if let Some(at) = elements.iter().position(|v| !v.is_finite()) {
            bail!("tensor `{name}` has a weight that is not finite ({}, at index {at})", elements[at]);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> BTreeMap<String, Tensor> {
        Checkpoint::from_bytes(include_bytes!("../../models/qlnet-digits.safetensors")).unwrap().tensors
    }

    fn error(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
        let mut tensors = digits();
        change(&mut tensors);
        format!("{:#}", Weights::from_checkpoint(&Checkpoint { tensors }).unwrap_err())
    }

    fn filled(value: f32, shape: &[usize]) -> Tensor {
        Tensor::full(value, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_tensor_at_fault_is_named() {
        let name = "layer2.1.conv3.bn.running_mean";
        let missing = error(|t| drop(t.remove(name)));
        assert!(missing.contains(&format!("tensor `{name}` is missing (expected shape [24])")), "{missing}");
        let misshapen = error(|t| drop(t.insert(name.into(), filled(0.0, &[23]))));
        assert!(misshapen.contains(&format!("tensor `{name}` has shape [23], expected [24]")), "{misshapen}");
        let extra = error(|t| drop(t.insert("layer2.1.skip.conv.weight".into(), filled(0.0, &[24, 24, 1, 1]))));
        assert!(extra.contains("unexpected tensor `layer2.1.skip.conv.weight` of shape [24, 24, 1, 1]"), "{extra}");
        for value in [f32::NAN, f32::INFINITY] {
            let not_finite = error(|t| drop(t.insert(name.into(), filled(value, &[24]))));
            assert!(not_finite.contains(&format!("tensor `{name}` has a weight that is not finite")), "{not_finite}");
        }
        let negative = error(|t| drop(t.insert("bn1.running_var".into(), filled(-1.0, &[16]))));
        assert!(negative.contains("`bn1.running_var` has a negative variance"), "{negative}");
        let overflow = error(|t| {
            t.insert("bn1.weight".into(), filled(3e38, &[16]));
            t.insert("bn1.running_var".into(), filled(0.0, &[16]));
        });
        assert!(overflow.contains("`conv1.weight` overflows float32"), "{overflow}");
    }

    #[test]
    fn what_is_saved_is_read_back_to_the_bit() {
        let weights = Weights::random(&Config::qlnet_digits(), 3).unwrap();
        for bytes in [weights.to_safetensors().unwrap(), weights.to_state_dict().unwrap()] {
            let again = Weights::from_checkpoint(&Checkpoint::from_bytes(&bytes).unwrap()).unwrap();
            assert_eq!(again.config, weights.config);
            for (name, tensor) in &weights.tensors {
                let elements = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(elements(tensor) == elements(&again.tensors[name]), "{name}");
            }
        }
        let state = Weights::random(&Config::qlnet_50_v0(), 3).unwrap().to_state_dict().unwrap();
        assert_eq!(safetensors::SafeTensors::deserialize(&state).unwrap().len(), 314);
    }

    #[test]
    fn folded_weights_fold_to_themselves() {
        let once = Weights::from_checkpoint(&Checkpoint { tensors: digits() }).unwrap();
        let twice = Weights::from_checkpoint(&Checkpoint { tensors: once.tensors.clone() }).unwrap();
        assert_eq!(once.config, twice.config);
        for (name, tensor) in &once.tensors {
            let elements = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(elements(tensor), elements(&twice.tensors[name]), "{name}");
        }
    }
}
