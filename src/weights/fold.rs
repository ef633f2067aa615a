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

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use crate::error::{Context, Error, Reason, Result, bail, ensure};
use crate::weights::checkpoint::Checkpoint;
use crate::weights::config::{Config, Conv, Naming};
use crate::weights::folded::Weights;

/// What PyTorch's `BatchNorm2d` adds to the variance unless told otherwise.
pub(super) const BATCH_NORM_EPS: f64 = 1e-5;

impl Weights {
    /// Folds a checkpoint; one that is folded already is only checked.
    ///
    /// # Errors
    /// [`Error::OtherNetwork`] if a tensor is missing, misshapen, not known or not finite. The message names
    /// it, and the shape that was expected.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        fold(checkpoint.tensors()).map_err(Error::OtherNetwork)
    }
}

/// [`Weights::from_checkpoint`] of the checkpoint's tensors.
fn fold(tensors: &BTreeMap<String, Tensor>) -> Result<Weights, Reason> {
    let naming = if tensors.contains_key("stem.weight") { Naming::Folded } else { Naming::StateDict };
    let config = infer_config(naming, tensors)?;
    let mut unfolded = Unfolded { tensors: tensors.iter().map(|(name, t)| (name.as_str(), t)).collect() };
    let mut folded = BTreeMap::new();
    for conv in config.convs() {
        let (weight, bias) = unfolded.fold(&conv, naming)?;
        folded.insert(format!("{}.bias", conv.name), Tensor::from_vec(bias, conv.shape[0], &Device::Cpu)?);
        folded.insert(format!("{}.weight", conv.name), Tensor::from_vec(weight, conv.shape, &Device::Cpu)?);
    }
    let left = unfolded.tensors;
    if let Some((name, tensor)) = left.first_key_value() {
        let more = if left.len() > 1 { format!(" and {} more", left.len() - 1) } else { String::new() };
        bail!("unexpected tensor `{name}` of shape {:?}{more}: a QLNet with {config} has none", tensor.dims());
    }
    Weights::new(config, folded)
}

/// [`Config::infer`] from the tensors themselves.
pub(super) fn infer_config(naming: Naming, tensors: &BTreeMap<String, Tensor>) -> Result<Config, Reason> {
    Config::infer(naming, tensors.keys().map(String::as_str), |name| tensors.get(name).map(|t| t.dims()))
}

/// The tensors of a checkpoint that are not folded yet.
struct Unfolded<'a> {
    tensors: BTreeMap<&'a str, &'a Tensor>,
}

impl Unfolded<'_> {
    /// Weight and bias of one convolution, folded in float64 and rounded to float32.
    fn fold(&mut self, conv: &Conv, naming: Naming) -> Result<(Vec<f32>, Vec<f32>), Reason> {
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
    fn weight(&mut self, conv: &Conv, naming: Naming) -> Result<Vec<f64>, Reason> {
        let name = naming.weight(&conv.name);
        let rows = conv.shape[0];
        if let Some(&[kernels, 1, 3, 3]) = self.tensors.get(name.as_str()).map(|t| t.dims())
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
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>, Reason> {
        let tensor = self
            .tensors
            .remove(name)
            .with_context(|| format!("tensor `{name}` is missing (expected shape {shape:?})"))?;
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
        Checkpoint::from_bytes(include_bytes!("../../models/qlnet-digits.safetensors")).unwrap().tensors().clone()
    }

    fn error(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> String {
        let mut tensors = digits();
        change(&mut tensors);
        let checkpoint = Checkpoint::from_tensors(tensors).unwrap();
        Weights::from_checkpoint(&checkpoint).unwrap_err().to_string()
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
    fn folded_weights_fold_to_themselves() {
        let once = fold(&digits()).unwrap();
        let twice = fold(once.tensors()).unwrap();
        assert_eq!(once.config(), twice.config());
        for (name, tensor) in once.tensors() {
            let elements = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(elements(tensor), elements(&twice.tensors()[name]), "{name}");
        }
    }
}
