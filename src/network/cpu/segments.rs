//! Work on images, split into segments of output rows for rayon's threads.

use std::cell::RefCell;

use rayon::prelude::*;

use super::buffer::Buffer;
use super::operand::Operand;

/// Memory of a thread, for what a segment is made in. It grows to what the largest takes, and is kept.
#[derive(Debug, Default)]
pub struct Scratch {
    pub floats: [Buffer; 2],
    pub operands: [Operand; 2],
}

/// Calls `make(x, first, y, scratch)` for every segment: `x` is an image of `image` values, and `y` its
/// output rows from `first` on, at most `rows` of them. An image has `height` output rows of `row` values.
/// The scratch memory belongs to the thread.
pub fn for_each(
    x: &[f32],
    image: usize,
    y: &mut [f32],
    (height, row): (usize, usize),
    rows: usize,
    make: impl Fn(&[f32], usize, &mut [f32], &mut Scratch) + Sync,
) {
    let segments: Vec<_> = y
        .chunks_mut(height * row)
        .zip(x.chunks_exact(image))
        .flat_map(|(y, x)| y.chunks_mut(rows * row).enumerate().map(move |(i, y)| (x, i * rows, y)))
        .collect();
    segments.into_par_iter().for_each(|(x, first, y)| {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        SCRATCH.with_borrow_mut(|scratch| make(x, first, y, scratch));
    });
}
