//! Memory that begins at a cache line, so that no vector straddles two.

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};

/// One cache line of values.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A growing buffer of float32 in whole cache lines.
#[derive(Clone, Debug, Default)]
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// A buffer of at least `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self(vec![Line::default(); len.div_ceil(16)])
    }

    /// Grows the buffer to at least `len` values, and gives the first `len`. They keep what was written there
    /// before; new ones are zero.
    pub fn grow_to(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() * 16 < len {
            self.0.resize(len.div_ceil(16), Line::default());
        }
        &mut self.as_mut_slice()[..len]
    }

    /// All values, a multiple of 16 of them.
    pub fn as_slice(&self) -> &[f32] {
        cast_slice(&self.0)
    }

    /// All values, a multiple of 16 of them.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        cast_slice_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_keeps_its_values_and_stays_aligned() {
        let mut buffer = Buffer::default();
        assert!(buffer.as_slice().is_empty() && buffer.grow_to(0).is_empty());
        buffer.grow_to(17).fill(2.0);
        assert_eq!(buffer.as_slice().len(), 32);
        let grown = buffer.grow_to(100);
        assert_eq!((grown.len(), grown[16], grown[17]), (100, 2.0, 0.0));
        assert_eq!(grown.as_ptr().align_offset(64), 0);
        assert_eq!(buffer.grow_to(3), [2.0; 3]);
    }
}
