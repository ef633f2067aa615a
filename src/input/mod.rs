//! From the bytes of an image file to the network's input.
//!
//! In come bytes, which may be anybody's; out go crops of 8-bit RGB, and normalised tensors `[n, 3, h, w]`.
//! May use nothing else of the program but `simd`.
//!
//! ```text
//! files         which files are images, and their bytes
//! decode        bytes -> rows of pixels
//! resample      rows of pixels -> the resized image, or a part of it
//! preprocess    both together, in one function that no decoder's panic gets out of; pixels -> tensor
//! ```

pub mod decode;
pub mod files;
pub mod preprocess;
pub mod resample;
