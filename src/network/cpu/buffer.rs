//! Memory that begins at a cache line, so that no vector straddles two.

use bytemuck::allocation::zeroed_vec;
use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};

/// One cache line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// A growing buffer in whole cache lines, of numbers of whatever type is asked for.
#[derive(Clone, Debug, Default)]
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// A buffer of at least `len` zeros of the type `T`.
    pub fn zeros<T: Pod>(len: usize) -> Self {
        // Pages that are not touched here are made by the thread that writes to them.
        Self(zeroed_vec(lines::<T>(len)))
    }

    /// Grows the buffer to at least `len` values, and gives the first `len`. They keep what was written there
    /// before; new ones are zero.
    pub fn grow_to<T: Pod>(&mut self, len: usize) -> &mut [T] {
        if self.0.len() < lines::<T>(len) {
            self.0.resize(lines::<T>(len), Line::zeroed());
        }
        &mut self.as_mut_slice()[..len]
    }

    /// All values, as many as whole cache lines have.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        cast_slice(&self.0)
    }

    /// All values, as many as whole cache lines have.
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        cast_slice_mut(&mut self.0)
    }
}

/// Cache lines of so many values.
fn lines<T>(len: usize) -> usize {
    len.div_ceil(LINE / size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_keeps_its_values_and_stays_aligned() {
        let mut buffer = Buffer::default();
        assert!(buffer.as_slice::<f32>().is_empty() && buffer.grow_to::<f32>(0).is_empty());
        buffer.grow_to(17).fill(2f32);
        assert_eq!(buffer.as_slice::<f32>().len(), 32);
        let grown = buffer.grow_to::<f32>(100);
        assert_eq!((grown.len(), grown[16], grown[17]), (100, 2.0, 0.0));
        assert_eq!(grown.as_ptr().align_offset(64), 0);
        assert_eq!(buffer.grow_to::<f32>(3), [2.0; 3]);
        assert_eq!(buffer.grow_to::<u16>(4), [0, 0x4000, 0, 0x4000]);
        assert_eq!(Buffer::zeros::<i8>(65).as_slice::<i8>(), [0; 128]);
    }
}
