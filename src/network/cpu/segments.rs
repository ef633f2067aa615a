//! Work on images, split for rayon's threads: into segments of output rows, or by channels.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::buffer::Buffer;
use super::operand::Operand;

/// Memory of a thread, for what a segment is made in. It grows to what the largest takes, and is kept.
#[derive(Debug, Default)]
pub struct Scratch {
    pub floats: [Buffer; 2],
    pub operands: [Operand; 2],
}

/// Gives the thread's scratch memory to `work`, which must not start parallel work of its own.
pub fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(work)
}

/// Makes the output of the images `x`, each of `image` values and with an output of `height` rows of `row` values,
/// where `sizes` is `(image, height, row)`.
///
/// `make(x, first, y, scratch)` is called for every segment: `x` is an image, and `y` its output rows from `first`
/// on, at most `rows` of them. It writes all of `y`, and gives it back.
pub fn for_each(
    x: &[f32],
    (image, height, row): (usize, usize, usize),
    rows: usize,
    make: impl for<'a> Fn(&[f32], usize, &'a mut [MaybeUninit<f32>], &mut Scratch) -> &'a mut [f32] + Sync,
) -> Vec<f32> {
    let len = x.len() / image * height * row;
    let mut y = Vec::with_capacity(len);
    let segments: Vec<_> = y.spare_capacity_mut()[..len]
        .chunks_mut(height * row)
        .zip(x.chunks_exact(image))
        .flat_map(|(y, x)| y.chunks_mut(rows * row).enumerate().map(move |(i, y)| (x, i * rows, y)))
        .collect();
    segments.into_par_iter().for_each(|(x, first, y)| {
        let whole = (y.as_ptr().cast::<f32>(), y.len());
        let written = with_scratch(|scratch| {
            let written = make(x, first, y, scratch);
            (written.as_ptr(), written.len())
        });
        assert_eq!(written, whole, "a segment that is written in part");
    });
    // SAFETY: the segments are all of it, and each has been written.
    unsafe { y.set_len(len) };
    y
}

/// Memory in which several threads write to different places.
pub struct Place(*mut f32);

// SAFETY: whoever uses the pointer sees to it that no two threads write to one place.
unsafe impl Sync for Place {}

impl Place {
    /// The memory at a pointer.
    pub fn new(start: *mut f32) -> Self {
        Self(start)
    }

    /// So many values from its beginning.
    pub fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }

    /// `len` values from there on, written or not.
    ///
    /// # Safety
    /// They must lie in the memory, and nobody else may use them as long as the slice is used.
    #[allow(clippy::mut_from_ref, reason = "threads share the place, and each has values of its own")]
    pub unsafe fn values(&self, offset: usize, len: usize) -> &mut [MaybeUninit<f32>] {
        // SAFETY: the caller vouches for the values.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset).cast(), len) }
    }
}

/// `0..count` in at most so many parts of about one size.
pub fn evenly(count: usize, parts: usize) -> impl IndexedParallelIterator<Item = Range<usize>> {
    let parts = parts.min(count);
    (0..parts).into_par_iter().map(move |i| i * count / parts..(i + 1) * count / parts)
}
