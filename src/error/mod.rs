//! The errors of the library. There is a variant for each case that a caller may want to handle in its own way.
//! All rooms use them.

mod reason;

use std::fmt;
use std::path::{Path, PathBuf};

pub use reason::Reason;
pub(crate) use reason::{Context, bail, ensure, words};

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Displayed, it is one line that says what, where and why; causes are part of it, and
/// there is no [`source`](std::error::Error::source) to print besides. (Paths are shown as they are: one may
/// hold a line break.)
///
/// Functions that read a file by its path say which one in [`Error::At`], so match [`Error::root`]:
///
/// ```
/// let half = std::env::temp_dir().join("half-a-checkpoint.safetensors");
/// std::fs::write(&half, &std::fs::read("models/qlnet-digits.safetensors")?[..100_000])?;
/// let error = qlnet::Weights::from_file(&half).unwrap_err();
/// assert!(matches!(error.root(), qlnet::Error::Checkpoint(_)));
/// assert!(error.to_string().contains("half-a-checkpoint.safetensors: damaged safetensors file"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No model of that name is registered.
    #[error("unknown model `{name}`{}", nearest.map_or(String::new(), |nearest| format!(" (did you mean `{nearest}`?)")))]
    UnknownModel {
        /// The name that was asked for.
        name: String,
        /// The registered name that is most like it, if one is.
        nearest: Option<&'static str>,
    },

    /// The system does not let a file or directory be read or written, or it is not there
    /// ([`std::io::ErrorKind::NotFound`]).
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `lock`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },

    /// The download of a model's weights failed.
    #[error("{reason}")]
    Download {
        /// The name of the file.
        file: String,
        /// Its address, to download it by hand.
        url: String,
        /// Why the download failed.
        reason: Reason,
    },

    /// A file is no checkpoint, or a damaged one.
    #[error("{0}")]
    Checkpoint(Reason),

    /// The tensors of a checkpoint, or weights, are those of another network than QLNet.
    #[error("{0}")]
    OtherNetwork(Reason),

    /// Weights cannot be written in the form that was asked for.
    #[error("{0}")]
    Export(Reason),

    /// Weights with explicit skips cannot be written as a `state_dict`.
    #[error("explicit skips, which the symmetry GL(n) makes, are not in PyTorch's class and its state_dict")]
    ExplicitSkips,

    /// A file is no picture, a damaged one, or of a kind that is not decoded.
    #[error("{0}")]
    Image(Reason),

    /// A picture has more pixels than are allowed.
    #[error("the image is too large: {width}x{height} pixels, and {limit} is the most (max-pixels)")]
    ImageTooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// The number of pixels that are allowed.
        limit: u64,
    },

    /// Pictures cannot be resized and cropped in that way.
    #[error("{0}")]
    Preprocess(Reason),

    /// A network has no layer of that name.
    #[error("the network has no layer `{name}`; it has {}", layers.join(", "))]
    UnknownLayer {
        /// The name that was asked for.
        name: String,
        /// Those that it has.
        layers: Vec<String>,
    },

    /// Features cannot be written: the file's name says no format, or the format cannot hold them.
    #[error("{0}")]
    Features(Reason),

    /// This build does not support a kind of device.
    #[error("this build has no {device} support")]
    UnsupportedDevice {
        /// `CUDA` or `Metal`.
        device: &'static str,
        /// The feature of this crate that adds it.
        feature: &'static str,
    },

    /// A device cannot be opened.
    #[error("cannot open {device}: {reason}")]
    Device {
        /// Such as `cuda:0`.
        device: String,
        /// Why.
        reason: Reason,
    },

    /// A device does not compute in an element type.
    #[error("{device} does not compute in {dtype} ({reason})")]
    UnsupportedDtype {
        /// Such as `cuda:0`.
        device: String,
        /// Such as `bf16`.
        dtype: &'static str,
        /// What the device reported.
        reason: Reason,
    },

    /// A device has too little memory.
    #[error("{device} has too little memory for {what}")]
    OutOfMemory {
        /// Such as `cuda:0`.
        device: String,
        /// What it was to hold, in words.
        what: String,
        /// How many images together may fit, where fewer would do.
        batch: Option<usize>,
    },

    /// The network makes logits that are not finite numbers.
    #[error("the network overflows in {dtype}")]
    Overflow {
        /// The element type that is computed in.
        dtype: &'static str,
    },

    /// A computation failed, because memory ran out, for example; or tensors do not fit each other.
    #[error("{0}")]
    Compute(Reason),

    /// Images or their labels are missing.
    #[error("{reason}")]
    Dataset {
        /// What is missing.
        problem: DatasetProblem,
        /// Where, in words.
        reason: Reason,
    },

    /// A file of predictions cannot be used.
    #[error("{reason}")]
    Predictions {
        /// What is wrong with it.
        problem: PredictionsProblem,
        /// Where, in words.
        reason: Reason,
    },

    /// No family of symmetries has that name.
    #[error("unknown family `{0}`")]
    UnknownFamily(String),

    /// A symmetry does not apply to this network, or not in this way.
    #[error("{0}")]
    Symmetry(Reason),

    /// A network is too large for an audit of its symmetry, which takes a small one.
    #[error("an audit takes a small network: this one has {parameters} parameters, and at most {limit} are feasible")]
    TooLargeToAudit {
        /// The number of its parameters.
        parameters: usize,
        /// The number that is feasible.
        limit: usize,
    },

    /// A path cannot be drawn: it goes nowhere, or the file's name says no format.
    #[error("{0}")]
    Plot(Reason),

    /// An error, and where it happened.
    #[error("{place}: {error}")]
    At {
        /// A file, an image or the like.
        place: String,
        /// What happened there.
        error: Box<Error>,
    },
}

/// What is wrong with a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatasetProblem {
    /// There is no image.
    NoImages,
    /// It is an archive that cannot be read, or no archive.
    Archive,
    /// It is a Parquet file that cannot be read, or none.
    Table,
    /// A Parquet file has no columns of images and labels, or shards have several images in a sample.
    Columns,
    /// The split that is asked for is not there or not complete, or none is named and several could be meant.
    Split,
    /// The labels that came with the images are missing, or are none of the model's classes.
    OwnLabels,
    /// An image cannot be used as it is, for its name or what it is.
    Image,
    /// There are folders that are no classes of the model, and no class map says which class each one is.
    UnknownFolders,
    /// The class folders are in a folder of this one, which the words name.
    FolderAbove,
    /// There are images both in class folders and beside them.
    MixedForms,
    /// Images are not in class folders, and no file has their labels.
    NoLabels,
    /// The numbers in a file of labels may be indices, or those of ILSVRC's development kit.
    Numbers,
    /// A file of labels or classes cannot be understood, or does not fit the images or the model.
    Labels,
    /// Images show classes that are none of the outputs that are scored.
    OtherOutputs,
    /// A text does not name a data set on the hub.
    Name,
    /// It cannot be downloaded.
    Download,
    /// There is not enough space on the disk to download it.
    Space,
}

/// What is wrong with a file of predictions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PredictionsProblem {
    /// The ending of its name is not known.
    Name,
    /// It is not a file of predictions, or one of another version.
    Format,
    /// A row is damaged; it can be continued without this one and what follows.
    Damaged,
    /// It holds the predictions of a run that was interrupted.
    Interrupted {
        /// The name that the file will have when it is complete.
        file: PathBuf,
    },
    /// It is of another run.
    OtherRun,
    /// Rows at its end are missing: the run that writes it has not finished.
    Incomplete,
    /// Files do not make up one run: one is missing or there twice, they are of different runs, or their
    /// rows are not those that the run wrote.
    Mixture,
    /// It is of one of several shards, where that of a whole run is asked for.
    Part,
    /// Two files cannot be compared image by image: they are of other images, labels or classes.
    Unlike,
    /// Another process writes it.
    InUse,
    /// It cannot be written further, for want of space for example; it can be continued.
    NotWritten,
}

impl Error {
    /// The error itself, without the places where it happened.
    pub fn root(&self) -> &Self {
        match self {
            Self::At { error, .. } => error.root(),
            error => error,
        }
    }

    /// For the error of an operation on a file: `read`, `write`, ...
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_path_buf(), cause }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Compute(error.into())
    }
}

/// Says where an error happened.
pub(crate) trait At<T> {
    /// Puts the place before the error's words.
    fn at(self, place: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> At<T> for Result<T, E> {
    fn at(self, place: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::At { place: place.to_string(), error: Box::new(error.into()) })
    }
}
