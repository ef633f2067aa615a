//! The checkpoints of registered models, as they were published.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::hub::{Hub, HubFile};
use crate::weights::checkpoint::Checkpoint;
use crate::weights::load::Event;
use crate::weights::registry::{Model, WeightsSource};

/// Where a file of the hub is on this machine, after its download if need be.
pub(super) fn fetched(file: &HubFile, report: &mut dyn FnMut(Event)) -> Result<PathBuf> {
    let hub = Hub::from_env();
    // Whatever the reason is, the file can be downloaded by hand.
    hub.fetch(file, &mut |event| report(Event::Hub(event))).map_err(|error| match error {
        Error::Download { .. } => error,
        error => Error::Download { file: file.file.into(), url: hub.url(file), reason: error.into() },
    })
}

/// The checkpoint of a registered model as it was published, downloaded if need be.
///
/// # Errors
/// As [`load_model`](crate::weights::load_model).
pub fn checkpoint_of_model(model: &Model, report: &mut dyn FnMut(Event)) -> Result<Checkpoint> {
    match &model.source {
        WeightsSource::Embedded(bytes) => Checkpoint::from_bytes(bytes),
        WeightsSource::Hub(file) => Checkpoint::open(&fetched(file, report)?),
    }
}
