//! A checkpoint as a safetensors file: with the tensors that PyTorch's network has, or folded.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Tensor};

use crate::error::{Error, Reason, Result, ensure};
use crate::weights::checkpoint::Checkpoint;
use crate::weights::folded::Weights;

/// A checkpoint in another form.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The content of a safetensors file.
    pub file: Vec<u8>,
    /// How many tensors it has.
    pub tensors: usize,
    /// The types of their floating-point elements, such as `F32`, and seldom more than one.
    pub dtypes: Vec<DType>,
}

impl Checkpoint {
    /// The network's tensors as a safetensors file. As a `state_dict` they are what the checkpoint has, under the names
    /// of PyTorch's class, which loads them strictly; those of a folded checkpoint become ones that do the same
    /// ([`Weights::to_state_dict`]). `folded`, they are what [`Weights::to_safetensors`] writes. Elements keep their
    /// type, or are rounded to `dtype`; whole numbers stay.
    ///
    /// # Errors
    /// [`Error::OtherNetwork`] if the checkpoint is not a QLNet's; [`Error::ExplicitSkips`] if a folded one has no
    /// `state_dict`; [`Error::Export`] if a value overflows the type, and it names the tensor.
    pub fn convert(&self, folded: bool, dtype: Option<DType>) -> Result<Converted> {
        let weights = Weights::from_checkpoint(self)?;
        let (tensors, metadata) = match (folded, self.is_folded()) {
            (true, _) => (weights.rounded(), None),
            (false, true) => (weights.state_dict(), Some(for_pytorch())),
            (false, false) => (Ok(self.all_tensors()), Some(for_pytorch())),
        };
        // As large as what is written.
        drop(weights);
        let write = |tensors: BTreeMap<String, Tensor>| -> Result<_, Reason> {
            let tensors = match dtype {
                Some(dtype) => rounded_to(dtype, tensors)?,
                None => tensors,
            };
            let mut dtypes: Vec<DType> = tensors.values().map(Tensor::dtype).filter(DType::is_float).collect();
            dtypes.sort_by_key(|dtype| dtype.as_str());
            dtypes.dedup();
            Ok(Converted { file: safetensors::serialize(&tensors, metadata)?, tensors: tensors.len(), dtypes })
        };
        write(tensors?).map_err(Error::Export)
    }
}

/// The metadata by which programs know that a file is PyTorch's.
pub(super) fn for_pytorch() -> HashMap<String, String> {
    HashMap::from([("format".into(), "pt".into())])
}

/// Tensors of floating-point numbers in that type, to nearest.
fn rounded_to(dtype: DType, tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>, Reason> {
    let round = |(name, tensor): (String, Tensor)| {
        if !tensor.dtype().is_float() {
            return Ok((name, tensor));
        }
        let rounded = tensor.to_dtype(dtype)?;
        let values = rounded.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let value = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?[at];
            ensure!(false, "`{name}` overflows {}: it has the value {value:e}", dtype.as_str());
        }
        Ok((name, rounded))
    };
    tensors.into_iter().map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn digits() -> Checkpoint {
        Checkpoint::from_bytes(include_bytes!("../../models/qlnet-digits.safetensors")).unwrap()
    }

    #[test]
    fn a_state_dict_is_kept_as_it_is() {
        for bytes in [
            &include_bytes!("../../tests/fixtures/two-filters.pth.tar")[..],
            include_bytes!("../../tests/fixtures/shared-kernels.pth"),
            include_bytes!("../../tests/fixtures/channels-last-half.pth"),
            include_bytes!("../../tests/fixtures/bfloat16.safetensors"),
        ] {
            let checkpoint = Checkpoint::from_bytes(bytes).unwrap();
            let converted = checkpoint.convert(false, None).unwrap();
            let again = Checkpoint::from_bytes(&converted.file).unwrap();
            assert!(again.tensors().keys().eq(checkpoint.tensors().keys()));
            for (name, tensor) in again.tensors() {
                let before = &checkpoint.tensors()[name];
                assert_eq!((tensor.dims(), tensor.dtype()), (before.dims(), before.dtype()), "{name}");
                assert!(values(tensor) == values(before), "{name}");
            }
            assert_eq!(again.all_tensors().len(), converted.tensors);
            let counts = again.all_tensors().into_iter().filter(|(name, _)| name.ends_with("num_batches_tracked"));
            assert!(counts.map(|(_, tensor)| assert_eq!(tensor.dtype(), DType::I64)).count() > 3);
            // What has been converted once is the same the second time.
            assert!(again.convert(false, None).unwrap().file == converted.file);
        }
    }

    #[test]
    fn folded_weights_become_a_state_dict_and_back() {
        let weights = Weights::from_checkpoint(&digits()).unwrap();
        let folded = digits().convert(true, None).unwrap();
        assert!(folded.file == weights.to_safetensors().unwrap() && folded.dtypes == [DType::F32]);
        let state = Checkpoint::from_bytes(&folded.file).unwrap().convert(false, None).unwrap();
        assert!(state.file == weights.to_state_dict().unwrap());
        // The batch norms of the built-in model do not say how many batches they have seen.
        let again = Checkpoint::from_bytes(&state.file).unwrap();
        assert!(again.tensors().keys().eq(digits().tensors().keys()) && state.tensors > again.tensors().len());
    }

    #[test]
    fn fewer_bits_are_rounded_or_refused() {
        for (dtype, most) in [(DType::F16, 5e-4), (DType::BF16, 4e-3)] {
            let converted = digits().convert(false, Some(dtype)).unwrap();
            assert_eq!(converted.dtypes, [dtype]);
            let again = Checkpoint::from_bytes(&converted.file).unwrap();
            assert_eq!(again.all_tensors().len(), digits().all_tensors().len());
            for (name, tensor) in again.tensors() {
                let before = values(&digits().tensors()[name]);
                for (a, b) in values(tensor).into_iter().zip(before) {
                    assert!((a - b).abs() <= most * b.abs() + 6e-8, "{name}: {a} {b}");
                }
            }
        }
        let mut tensors = digits().tensors().clone();
        tensors.insert("layer2.0.bn2.running_var".into(), Tensor::full(1e5f32, 128, &Device::Cpu).unwrap());
        let large = Checkpoint::from_tensors(tensors).unwrap();
        let error = large.convert(false, Some(DType::F16)).unwrap_err();
        assert!(
            error.to_string().contains("`layer2.0.bn2.running_var` overflows f16: it has the value 1e5"),
            "{error}"
        );
        assert!(large.convert(false, Some(DType::BF16)).is_ok());
    }

    #[test]
    fn explicit_skips_have_a_folded_form_alone() {
        let mut weights = Weights::from_checkpoint(&digits()).unwrap();
        weights.make_skip_explicit(2, 1).unwrap();
        let checkpoint = Checkpoint::from_tensors(weights.tensors().clone()).unwrap();
        assert!(matches!(checkpoint.convert(false, None), Err(Error::ExplicitSkips)));
        assert!(checkpoint.convert(true, None).unwrap().file == weights.to_safetensors().unwrap());
    }
}
