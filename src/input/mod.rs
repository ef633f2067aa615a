//! From image files to the network's input.
//!
//! In come paths of directories, and the bytes of files, which nobody has checked; out go crops of 8-bit RGB, and
//! normalised float32 tensors, NCHW: `[images, 3, height, width]`. This room may use nothing else of the program
//! but `bounded`, `error`, `panics` and `simd`; it knows nothing of networks, datasets or the command line.
//!
//! ```text
//! files         which files are images, and their bytes
//! decode        bytes -> rows of pixels
//! resample      rows of pixels -> a part of the resized image
//! ahead         loads images while something else computes
//! preprocess    bytes -> crop, in one function, which turns a decoder's panic into an error; crops -> tensor
//! ```

pub(crate) mod ahead;
pub(crate) mod decode;
pub(crate) mod files;
pub(crate) mod preprocess;
pub(crate) mod resample;

pub use decode::{MAX_PIXELS, Options, decode};
pub use preprocess::{Crop, IMAGENET_MEAN, IMAGENET_STD, Preprocess, to_tensor};
pub use resample::Interpolation;
