//! Numbers of many images as a file that grows row by row.
//!
//! In come the paths of images and a row of float32 for each, as the network makes them; out goes a file that NumPy,
//! safetensors or any reader of tables opens. Rows are written as they come, so that no more than paths stay in
//! memory. May use `input`, which says how an image is named; knows nothing of the network.
//!
//! | ending | rows | paths |
//! |---|---|---|
//! | `.npy` | an array `[n, ...]` | in a file beside it, [`Writer::files`], a JSON object a line |
//! | `.safetensors` | a tensor `features`, `[n, ...]` | in the metadata, as a JSON array, with what made the rows |
//! | `.csv` | a line each, below a header | the first column |
//!
//! A path that is not UTF-8 has `image_base64`, its bytes, beside `image` in JSON; a table has what can be shown.

mod csv;
mod npy;
mod safetensors;
mod writer;

pub use writer::{About, Format, Writer};
