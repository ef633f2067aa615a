//! From a checkpoint to a network that is ready, through files that make the second time fast.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::network::device;
use crate::network::model::QLNet;
use crate::network::packed_file::PackedFile;
use crate::network::precision::Precision;
use crate::weights::cache::cache_dir;
use crate::weights::{Event, Found, Source, Weights, load_unless};

/// The network of a checkpoint, and the SHA-256 of the checkpoint. On the CPU its packed weights are kept.
///
/// # Errors
/// If the weights cannot be loaded; otherwise as [`build`].
pub(super) fn load(
    source: Source,
    precision: Precision,
    device: &Device,
    report: &mut dyn FnMut(Event),
) -> Result<(QLNet, String)> {
    let place = |sha256: &str| {
        let products = precision.fused(device)?;
        Some(PackedFile::new(&cache_dir()?, sha256, precision, products, ""))
    };
    let (found, sha256) = load_unless(source, &|sha256| place(sha256)?.read(), report)?;
    let net = match found {
        Found::Kept(net) => net,
        Found::Weights { weights, keep } => {
            let net = build(&weights, precision, device)?;
            if let Some(place) = place(&sha256).filter(|_| keep) {
                // A cache that cannot be written is no reason to fail.
                let _ = place.write(&net);
            }
            net
        }
    };
    Ok((net, sha256))
}

/// The network with the given weights.
///
/// # Errors
/// [`Error::UnsupportedDtype`] if the device does not compute in the element type; [`Error::Compute`] if it lacks
/// the memory.
pub(super) fn build(weights: &Weights, precision: Precision, device: &Device) -> Result<QLNet> {
    let net = QLNet::from_weights(weights, precision, device);
    if precision == Precision::F32 || precision.fused(device).is_some() {
        return Ok(net?);
    }
    let unsupported = |error: candle_core::Error| Error::UnsupportedDtype {
        device: device::name(device),
        dtype: precision.name(),
        reason: error.into(),
    };
    let net = net.map_err(unsupported)?;
    // Not every device has every operation in every element type.
    let probe = Tensor::zeros((1, 3, 32, 32), precision.dtype(device), device);
    probe.and_then(|images| net.forward(&images)).map_err(unsupported)?;
    Ok(net)
}
