//! The door for this repository's tests and benchmarks, which look at single steps. Anything here may change in
//! any version.

pub mod checks;

pub use crate::cli::command;
pub use crate::hub::{DatasetEvent, DatasetFiles, DatasetName, Event, FilesKind, Hub, Proxies};
pub use crate::input::resample::{Rect, resize_crop};
pub use crate::network::cpu::hardball::project;
pub use crate::network::cpu::matmul::{accumulate, gate};
pub use crate::network::cpu::operand::{Format, Operand, Products, Rows};
pub use crate::network::cpu::panels::Panels;
pub use crate::network::model::QLNet;
pub use crate::random::{IMAGES, normal, stream};

/// The operations of the network, each beside its plain version.
pub mod ops {
    pub use crate::network::ops::{Depthwise, FusedBlock, depthwise, depthwise_plain, hardball, stem, stem_plain};
}
