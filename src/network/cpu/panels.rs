//! Weights packed for products.
//!
//! They lie in panels of two vectors' width: for panel after panel, rows of `2 * LANES` contiguous groups of 32
//! bits, each of as many of the `k` rows of one column as fit. What the last panel and the last group lack is
//! zero, and so are rows that make the number of them a multiple of 16, as tiles want it, where values are rounded.

use std::io::{self, Write};
use std::ops::Range;

use bytemuck::{Pod, cast_slice_mut};
use rayon::prelude::*;

use super::buffer::Buffer;
#[cfg(all(test, target_os = "linux"))]
use super::edges::guarded::Edge;
use super::operand::{Format, nearest, to_bfloat};
use super::packed::{Packed, Sections};
use super::vector::lanes;

/// Groups of a panel that are multiplied in one go: 256 rows of 32 groups are 32 KiB.
const BLOCK: usize = 256;

/// A packed matrix `[k, n]`.
#[derive(Clone, Debug)]
pub struct Panels {
    format: Format,
    /// `count() * stride()` groups at least.
    data: Packed,
    /// What [`Self::columns`] gives.
    columns: Packed,
    /// Rows of groups that are multiplied in one go.
    block: usize,
    k: usize,
    n: usize,
}

impl Panels {
    /// Packs the matrix `[k, n]` whose element at row `i` and column `j` is `element(i, j)`, for
    /// [`accumulate`](super::matmul::accumulate).
    ///
    /// # Panics
    /// If one of the sides is zero, or if no memory has so many values.
    pub fn new(format: Format, k: usize, n: usize, element: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        Self::with_blocks(format, BLOCK, k, n, element)
    }

    /// [`Self::new`] for [`gate`](super::matmul::gate), where column `j` is of the matrix and column that
    /// [`gate_column`] says.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn for_gate(format: Format, k: usize, n: usize, element: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        Self::with_blocks(format, format.groups(k), k, n, element)
    }

    fn with_blocks(
        format: Format,
        block: usize,
        k: usize,
        n: usize,
        element: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Self {
        assert!(k > 0 && n > 0, "a matrix without elements");
        assert!(format.is_available(), "a format that this CPU does not compute in");
        assert!(fits(format, block), "more values than exact sums have room for");
        let len = Self::len(format, k, n).expect("a matrix larger than the memory");
        let (data, columns) = (Buffer::zeros::<u32>(len).into(), Buffer::default().into());
        let mut packed = Self { format, data, columns, block, k, n };
        match format {
            Format::Float => packed.fill(element),
            Format::Bfloat => packed.fill(|i, j| to_bfloat(element(i, j))),
            Format::Bytes | Format::Words => {
                let scales: Vec<f32> = (0..n).into_par_iter().map(|j| step((0..k).map(|i| element(i, j)))).collect();
                let rounded = |i, j| nearest(element(i, j) / scales[j]).clamp(-127, 127);
                if format == Format::Bytes {
                    packed.fill(|i, j| rounded(i, j) as i8);
                } else {
                    packed.fill(|i, j| rounded(i, j) as i16);
                }
                packed.describe_columns(&scales, rounded);
            }
        }
        packed
    }

    /// [`Self::new`] with what [`Self::write`] has written of a matrix of the same format and size, if there is so
    /// much.
    pub fn restore(format: Format, k: usize, n: usize, sections: &mut Sections) -> Option<Self> {
        Self::restore_with_blocks(format, BLOCK, k, n, sections)
    }

    /// [`Self::for_gate`] with what [`Self::write`] has written, as [`Self::restore`].
    pub fn restore_for_gate(format: Format, k: usize, n: usize, sections: &mut Sections) -> Option<Self> {
        Self::restore_with_blocks(format, format.groups(k), k, n, sections)
    }

    fn restore_with_blocks(format: Format, block: usize, k: usize, n: usize, sections: &mut Sections) -> Option<Self> {
        if k == 0 || n == 0 || !format.is_available() || !fits(format, block) {
            return None;
        }
        let data = sections.take::<u32>(Self::len(format, k, n)?)?;
        let mut packed = Self { format, data, columns: Buffer::default().into(), block, k, n };
        packed.columns = sections.take::<u32>(packed.columns_len())?;
        Some(packed)
    }

    /// Writes the panels as they are in memory.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.data.write(out)?;
        self.columns.write(out)
    }

    /// Groups of all panels of a matrix, if there can be memory for them.
    fn len(format: Format, k: usize, n: usize) -> Option<usize> {
        let width = Self::width();
        let panel = k.checked_next_multiple_of(64).map(|_| format.padded_groups(k))?.checked_mul(width)?;
        panel.checked_mul(n.div_ceil(width)).filter(|len| len.checked_mul(4).is_some())
    }

    /// Groups of [`Self::columns`].
    fn columns_len(&self) -> usize {
        let blocks = self.steps().div_ceil(self.block);
        if self.format.is_scaled() { self.count() * blocks * 2 * Self::width() } else { 0 }
    }

    /// Packs elements that are `T`.
    fn fill<T: Pod + Send>(&mut self, element: impl Fn(usize, usize) -> T + Sync) {
        /// Rows that are packed column by column before others, so that they stay in the first-level cache.
        const TOGETHER: usize = 64;
        let (width, k, n) = (Self::width(), self.k, self.n);
        let (panel, count) = (self.stride() * (size_of::<u32>() / size_of::<T>()), self.count());
        let data = &mut cast_slice_mut::<u32, T>(self.data.to_mut().as_mut_slice())[..count * panel];
        data.par_chunks_exact_mut(panel).enumerate().for_each(|(panel, values)| {
            // The same as the format says. Known here to the compiler, which would divide by what comes from outside.
            let group = const { size_of::<u32>() / size_of::<T>() };
            let columns = panel * width..n.min((panel + 1) * width);
            for start in (0..k).step_by(TOGETHER) {
                // Column by column: that is how PyTorch's weights lie in memory.
                for (j, column) in columns.clone().enumerate() {
                    for i in start..k.min(start + TOGETHER) {
                        values[(i / group * width + j) * group + i % group] = element(i, column);
                    }
                }
            }
        });
    }

    /// Notes the scale of each column, and the sums of its weights.
    fn describe_columns(&mut self, scales: &[f32], rounded: impl Fn(usize, usize) -> i32 + Sync) {
        let (width, block, k) = (Self::width(), self.block * self.format.group(), self.k);
        let (blocks, len) = (k.div_ceil(block), self.columns_len());
        let columns = self.columns.to_mut().grow_to::<u32>(len);
        columns.par_chunks_exact_mut(2 * width).enumerate().for_each(|(place, values)| {
            let (panel, start) = (place / blocks, place % blocks * block);
            let lanes = width / 2;
            for (j, scale) in scales.iter().enumerate().skip(panel * width).take(width) {
                let sum: i32 = (start..k.min(start + block)).map(|i| rounded(i, j)).sum();
                let (vector, lane) = (j % width / lanes, j % lanes);
                values[2 * vector * lanes + lane] = (sum as f32).to_bits();
                values[(2 * vector + 1) * lanes + lane] = scale.to_bits();
            }
        });
    }

    /// Columns of a panel.
    fn width() -> usize {
        2 * lanes()
    }

    /// How the values are rounded.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Rows of the matrix.
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

    /// The columns of the matrix that are in some panels.
    pub(super) fn columns_of(&self, panels: &Range<usize>) -> Range<usize> {
        panels.start * Self::width()..self.n.min(panels.end * Self::width())
    }

    /// Rows of groups in each panel.
    pub(super) fn steps(&self) -> usize {
        self.format.groups(self.k)
    }

    /// How many of these are multiplied in one go.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// Groups from one panel to the next.
    pub(super) fn stride(&self) -> usize {
        self.format.padded_groups(self.k) * Self::width()
    }

    /// The packed values: [`Self::count`] panels, each of rows of two vectors.
    pub(super) fn values(&self) -> &[u32] {
        self.data.as_slice()
    }

    /// For each panel, for each block of its rows: of the first vector the sums of the rounded weights and the
    /// steps that they are rounded to, then of the second. Empty where values are not scaled.
    pub(super) fn columns(&self) -> &[u32] {
        self.columns.as_slice()
    }

    /// A copy at the edges of forbidden pages.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn guarded(&self, edge: Edge) -> Self {
        Self { data: self.data.guarded(edge), columns: self.columns.guarded(edge), ..self.clone() }
    }
}

/// Whether the sums of one block stay below 2^31: products of bytes are below 2^15.
fn fits(format: Format, block: usize) -> bool {
    !format.is_scaled() || block <= (1 << 16) / format.group()
}

/// The step of 127 that reach the largest of the values.
fn step(values: impl Iterator<Item = f32>) -> f32 {
    // What is not finite makes the result none, as it would in float32.
    let (largest, faulty) =
        values.fold((0f32, 0f32), |(largest, faulty), value| (largest.max(value.abs()), faulty + value * 0.0));
    // Of smaller numbers the quotient would not be finite.
    faulty + if largest < 1e-30 { 1.0 } else { largest / 127.0 }
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
        let panels = Panels::new(Format::Float, 3, width + 1, |i, j| (100 * i + j) as f32 + 1.0);
        assert_eq!(panels.count(), 2);
        let values: &[f32] = bytemuck::cast_slice(panels.values());
        assert_eq!((values[0], values[width - 1], values[width]), (1.0, width as f32, 101.0));
        assert_eq!((values[3 * width], values[3 * width + 1]), (width as f32 + 1.0, 0.0));
    }

    /// As many rows as make the number of values wrap around to a panel of one row.
    #[test]
    #[should_panic(expected = "a matrix larger than the memory")]
    fn more_rows_than_memory_are_refused() {
        Panels::new(Format::Float, usize::MAX / Panels::width() + 2, 1, |_, _| 0.0);
    }

    /// As many columns as make the number of values wrap around to zero.
    #[test]
    #[should_panic(expected = "a matrix larger than the memory")]
    fn more_columns_than_memory_are_refused() {
        Panels::new(Format::Float, 1, usize::MAX, |_, _| 0.0);
    }

    #[test]
    #[should_panic(expected = "a matrix without elements")]
    fn a_matrix_without_rows_is_refused() {
        Panels::new(Format::Float, 0, 1, |_, _| 0.0);
    }
}
