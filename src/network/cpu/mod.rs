//! The fast path on the CPU: slices of float32 in, vectors of float32 out. Only what enters the products of 1x1
//! convolutions may be rounded to fewer bits.
//!
//! It knows nothing of candle. [`crate::network::ops`] calls it, and tests it against the same operations in
//! candle's own.
//!
//! ```text
//! block          one block of the network, and how its work is split: by_rows, by_channels
//! stem           the first convolution, ReLU and pool
//! linear         the head
//! hardball       the projection of pixels onto a ball
//! depthwise      the 3x3 convolution of one row
//! matmul         products of pixels with packed weights
//! panels         how the weights of a product are packed
//! operand        how the pixels of a product are rounded
//! microkernel    one register tile of a product
//! kernel         one step of it, for each format and instruction set: x86, neon
//! amx            products by tiles
//! segments       how images are split between threads
//! buffer         memory that is aligned to cache lines
//! packed         weights in such memory, or in a file that is mapped
//! vector         vector registers of every instruction set
//! ```

#[cfg(target_arch = "x86_64")]
mod amx;
pub(crate) mod block;
pub(crate) mod buffer;
mod by_channels;
mod by_rows;
pub(crate) mod depthwise;
#[cfg(all(test, target_os = "linux"))]
mod edges;
pub mod hardball;
mod kernel;
pub(crate) mod linear;
pub mod matmul;
mod microkernel;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod operand;
pub(crate) mod packed;
pub mod panels;
#[cfg(test)]
mod products;
pub(crate) mod segments;
pub(crate) mod stem;
pub(crate) mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

/// How many values `rows` rows of `len` values take up where they begin `stride` values apart.
///
/// # Panics
/// If `rows` is zero, or if no memory has so many values.
fn extent(rows: usize, stride: usize, len: usize) -> usize {
    let last = rows.checked_sub(1).expect("at least one row");
    last.checked_mul(stride).and_then(|start| start.checked_add(len)).expect("a matrix larger than the memory")
}

/// The product of these sizes.
///
/// # Panics
/// If no memory has so many values.
fn volume<const N: usize>(sizes: [usize; N]) -> usize {
    let product = sizes.into_iter().try_fold(1usize, usize::checked_mul);
    product.expect("more values than the memory has")
}

/// The words of the panic that a call ends in.
#[cfg(test)]
fn panic_of(call: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).expect_err("a panic");
    match payload.downcast::<String>() {
        Ok(words) => *words,
        Err(payload) => payload.downcast::<&str>().expect("a panic with words").to_string(),
    }
}
