//! From a checkpoint to a network that is ready, through files that make the second time fast.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::kept::cache_dir;
use crate::network::device;
use crate::network::model::QLNet;
use crate::network::packed_file::PackedFile;
use crate::network::precision::Precision;
use crate::weights::{Event, Found, Source, Weights, load_unless};

/// A change of weights before they are packed, that leaves the network what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preparation {
    /// What tells its result from those of other versions, in the names of files.
    pub name: &'static str,
    /// The prepared weights.
    pub prepare: fn(&Weights) -> Result<Weights>,
}

/// The network of a checkpoint, and the SHA-256 of the checkpoint. On the CPU its packed weights are kept.
///
/// # Errors
/// If the weights cannot be loaded; otherwise as [`build`].
pub(super) fn load(
    source: Source,
    precision: Precision,
    device: &Device,
    preparation: Option<Preparation>,
    report: &mut dyn FnMut(Event),
) -> Result<(QLNet, String)> {
    load_through(cache_dir().as_deref(), source, precision, device, preparation, report)
}

/// [`load`] through a cache directory, if there is one.
fn load_through(
    cache: Option<&Path>,
    source: Source,
    precision: Precision,
    device: &Device,
    preparation: Option<Preparation>,
    report: &mut dyn FnMut(Event),
) -> Result<(QLNet, String)> {
    let prepared = preparation.map_or("", |preparation| preparation.name);
    let place = |sha256: &str| Some(PackedFile::new(cache?, sha256, precision, precision.fused(device)?, prepared));
    let (found, sha256) = load_unless(cache, source, &|sha256| place(sha256)?.read(), report)?;
    let net = match found {
        Found::Kept(net) => {
            if let Some(place) = place(&sha256) {
                report(Event::Reading { what: "the checkpoint's weights, packed and kept", path: place.path() });
            }
            net
        }
        Found::Weights { weights, keep } => {
            let weights = match preparation {
                Some(Preparation { prepare, .. }) => prepare(&weights)?,
                None => weights,
            };
            let net = build(&weights, precision, device)?;
            // A cache that cannot be written is no reason to fail.
            if let Some(place) = place(&sha256).filter(|_| keep)
                && let Err(error) = place.write(&net)
                && preparation.is_some()
            {
                report(Event::NotKept { path: place.path(), error: &error });
            }
            net
        }
    };
    Ok((net, sha256))
}

/// The network with the given weights.
///
/// # Errors
/// [`Error::UnsupportedDtype`] if the device does not compute in the element type; [`Error::OutOfMemory`] if it lacks
/// the memory.
pub(super) fn build(weights: &Weights, precision: Precision, device: &Device) -> Result<QLNet> {
    let net = QLNet::from_weights(weights, precision, device);
    // What the weights were copied from and through goes when they are there.
    let net = net.and_then(|net| device.synchronize().map(|()| net));
    if precision == Precision::F32 || precision.fused(device).is_some() {
        return net.map_err(|error| device::failed(error, device, "the weights", None));
    }
    let unsupported = |error: candle_core::Error| {
        device::unsupported(device::failed(error, device, "the weights", None), device, precision)
    };
    let net = net.map_err(unsupported)?;
    // Not every device has every operation in every element type.
    let probe = Tensor::zeros((1, 3, 32, 32), precision.dtype(device), device);
    probe.and_then(|images| net.forward(&images)).map_err(unsupported)?;
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::PACKED;
    use crate::random::{normal, tests::test_stream};
    use crate::weights::registry;
    use std::fs;
    use std::path::PathBuf;

    const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

    /// A cache directory, and a checkpoint file.
    struct Setting {
        dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl Setting {
        fn new() -> Self {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/two-filters.pth.tar");
            Self { dir: tempfile::tempdir().unwrap(), path }
        }

        /// The logits of a network that is loaded through the cache, and whether weights were folded for it.
        fn load(&self, precision: Precision) -> (Vec<u32>, bool) {
            let (source, mut folded) = (Source::File(&self.path), false);
            let report = &mut |event: Event| folded |= matches!(event, Event::Folding);
            let (net, _) = load_through(Some(self.dir.path()), source, precision, &Device::Cpu, None, report).unwrap();
            (logits(&net), folded)
        }

        /// The files of the cache with that extension.
        fn files(&self, extension: &str) -> Vec<PathBuf> {
            let files = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
        }
    }

    /// The bits of the logits of some noise.
    fn logits(net: &QLNet) -> Vec<u32> {
        let images = normal((2, 3, 41, 33), &mut test_stream(1)).unwrap();
        let logits = net.forward(&images).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        logits.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn a_network_is_packed_once_for_each_precision() {
        let setting = Setting::new();
        for (i, precision) in ALL.into_iter().enumerate() {
            let weights = Weights::from_bytes(&fs::read(&setting.path).unwrap()).unwrap();
            let expected = logits(&build(&weights, precision, &Device::Cpu).unwrap());
            assert_eq!(setting.load(precision), (expected.clone(), i == 0));
            // The folded weights are not asked for.
            fs::remove_file(&setting.files("safetensors")[0]).unwrap();
            assert_eq!(setting.load(precision), (expected, false));
            assert!(setting.files("safetensors").is_empty());
            load_unless(Some(setting.dir.path()), Source::File(&setting.path), &|_| None::<()>, &mut |_| {}).unwrap();
            assert_eq!(setting.files("safetensors").len(), 1, "others need them");
            assert_eq!(setting.files(PACKED).len(), i + 1);
        }
        assert!(setting.files("tmp").is_empty());
    }

    #[test]
    fn a_damaged_file_is_made_again() {
        let setting = Setting::new();
        for precision in ALL {
            let expected = setting.load(precision).0;
            let path = setting.files(PACKED).remove(0);
            let good = fs::read(&path).unwrap();
            let flipped = |at: usize| {
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                bytes
            };
            let longer = [&good[..], &[0; 64]].concat();
            let half = good[..good.len() / 2].to_vec();
            for bad in [flipped(10), flipped(100), flipped(4096), flipped(good.len() - 1), longer, half, vec![]] {
                fs::write(&path, bad).unwrap();
                assert_eq!(setting.load(precision), (expected.clone(), false));
                assert!(fs::read(&path).unwrap() == good);
            }
            fs::remove_file(&path).unwrap();
            assert!(setting.files("tmp").is_empty());
        }
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_done_without() {
        let setting = Setting::new();
        let expected = setting.load(Precision::F32).0;
        // A file is in the way.
        let cache = setting.files(PACKED).remove(0);
        for cache in [Some(&*cache), None] {
            let source = Source::File(&setting.path);
            let (net, _) = load_through(cache, source, Precision::F32, &Device::Cpu, None, &mut |_| {}).unwrap();
            assert_eq!(logits(&net), expected);
        }
    }

    #[test]
    fn nothing_is_kept_of_a_built_in_model() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Model(registry::find("qlnet-digits").unwrap());
        load_through(Some(dir.path()), source, Precision::F32, &Device::Cpu, None, &mut |_| {}).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
