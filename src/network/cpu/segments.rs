//! Work on images, split into segments of output rows for rayon's threads.

use std::cell::RefCell;

use rayon::prelude::*;

use super::buffer::Buffer;

/// Calls `make(x, first, y, scratch)` for every segment: `x` is an image of `image` values, and `y` its
/// output rows from `first` on, at most `rows` of them. An image has `height` output rows of `row` values.
/// The scratch buffers belong to the thread; they grow to what the largest segment takes, and are kept.
pub fn for_each(
    x: &[f32],
    image: usize,
    y: &mut [f32],
    (height, row): (usize, usize),
    rows: usize,
    make: impl Fn(&[f32], usize, &mut [f32], &mut [Buffer; 2]) + Sync,
) {
    let segments: Vec<_> = y
        .chunks_mut(height * row)
        .zip(x.chunks_exact(image))
        .flat_map(|(y, x)| y.chunks_mut(rows * row).enumerate().map(move |(i, y)| (x, i * rows, y)))
        .collect();
    segments.into_par_iter().for_each(|(x, first, y)| {
        thread_local! {
            static SCRATCH: RefCell<[Buffer; 2]> = RefCell::default();
        }
        SCRATCH.with_borrow_mut(|scratch| make(x, first, y, scratch));
    });
}
