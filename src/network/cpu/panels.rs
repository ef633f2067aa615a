//! Weights packed for products.
//!
//! They lie in panels of two vectors' width: for panel after panel, `k` rows of `2 * LANES` contiguous
//! values. The columns that the last panel lacks are zero.

use rayon::prelude::*;

use super::buffer::Buffer;
use super::vector::lanes;

/// A packed matrix `[k, n]`.
#[derive(Clone, Debug)]
pub struct Panels {
    /// `count() * k * width()` values at least.
    data: Buffer,
    k: usize,
    n: usize,
}

impl Panels {
    /// Packs the matrix `[k, n]` whose element at row `i` and column `j` is `element(i, j)`.
    ///
    /// # Panics
    /// If one of the sides is zero, or if no memory has so many values.
    pub fn new(k: usize, n: usize, element: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        assert!(k > 0 && n > 0, "a matrix without elements");
        let width = Self::width();
        let panel = k.checked_mul(width);
        let len = panel.and_then(|panel| panel.checked_mul(n.div_ceil(width)));
        let len = len.expect("a matrix larger than the memory");
        let mut data = Buffer::zeros(len);
        data.as_mut_slice()[..len].par_chunks_exact_mut(k * width).enumerate().for_each(|(panel, values)| {
            let columns = panel * width..n.min((panel + 1) * width);
            // Column by column: that is how PyTorch's weights lie in memory.
            for (j, column) in columns.enumerate() {
                for (i, row) in values.chunks_exact_mut(width).enumerate() {
                    row[j] = element(i, column);
                }
            }
        });
        Self { data, k, n }
    }

    /// Columns of a panel.
    fn width() -> usize {
        2 * lanes()
    }

    /// Rows of the matrix, and of each panel.
    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Columns of the matrix.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// The number of panels.
    pub(super) fn count(&self) -> usize {
        self.n.div_ceil(Self::width())
    }

    /// The packed values: [`Self::count`] panels, each of [`Self::k`] rows of two vectors.
    pub(super) fn values(&self) -> &[f32] {
        self.data.as_slice()
    }
}

/// Which column of two matrices, packed together for [`gate`](super::matmul::gate), belongs into column `j`:
/// the matrix, 0 or 1, and its column. Each panel has a vector of both.
pub fn gate_column(j: usize) -> (usize, usize) {
    let lanes = lanes();
    let (vector, lane) = (j / lanes, j % lanes);
    (vector % 2, vector / 2 * lanes + lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_lie_side_by_side_in_panels() {
        let width = Panels::width();
        let panels = Panels::new(3, width + 1, |i, j| (100 * i + j) as f32 + 1.0);
        assert_eq!(panels.count(), 2);
        let values = panels.values();
        assert_eq!((values[0], values[width - 1], values[width]), (1.0, width as f32, 101.0));
        assert_eq!((values[3 * width], values[3 * width + 1]), (width as f32 + 1.0, 0.0));
    }

    /// As many rows as make the number of values wrap around to a panel of one row.
    #[test]
    #[should_panic(expected = "a matrix larger than the memory")]
    fn more_rows_than_memory_are_refused() {
        Panels::new(usize::MAX / Panels::width() + 2, 1, |_, _| 0.0);
    }

    /// As many columns as make the number of values wrap around to zero.
    #[test]
    #[should_panic(expected = "a matrix larger than the memory")]
    fn more_columns_than_memory_are_refused() {
        Panels::new(1, usize::MAX, |_, _| 0.0);
    }

    #[test]
    #[should_panic(expected = "a matrix without elements")]
    fn a_matrix_without_rows_is_refused() {
        Panels::new(0, 1, |_, _| 0.0);
    }
}
