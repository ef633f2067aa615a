//! Weights as products read them, in whole cache lines.
//!
//! They are in memory of their own where they were packed, or in a file that is mapped into memory, where an
//! earlier run has written them: then nothing is copied, and processes share the pages.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, cast_slice};
use memmap2::Mmap;

use super::buffer::{Buffer, LINE};
#[cfg(all(test, target_os = "linux"))]
use super::edges::guarded::{Edge, mapped as mapped_at};

/// Values that begin at a cache line, and end with one.
#[derive(Clone, Debug)]
pub struct Packed(Memory);

#[derive(Clone, Debug)]
enum Memory {
    Owned(Buffer),
    /// Whole cache lines of the map.
    Mapped(Arc<Mmap>, Range<usize>),
}

impl Packed {
    /// A copy of these values.
    pub fn copy_of<T: Pod>(values: &[T]) -> Self {
        let mut buffer = Buffer::default();
        buffer.grow_to(values.len()).copy_from_slice(values);
        buffer.into()
    }

    /// All values, as many as whole cache lines have.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        match &self.0 {
            Memory::Owned(buffer) => buffer.as_slice(),
            Memory::Mapped(map, range) => cast_slice(&map[range.clone()]),
        }
    }

    /// The same to write to, in memory of its own.
    pub fn to_mut(&mut self) -> &mut Buffer {
        if let Memory::Mapped(..) = self.0 {
            *self = Self::copy_of::<u8>(self.as_slice());
        }
        match &mut self.0 {
            Memory::Owned(buffer) => buffer,
            Memory::Mapped(..) => unreachable!("it was copied"),
        }
    }

    /// Writes all values for [`Sections`] to find.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.as_slice())
    }

    /// A copy at the edge of a forbidden page.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn guarded(&self, edge: Edge) -> Self {
        let (map, range) = mapped_at(self.as_slice(), edge);
        Self(Memory::Mapped(Arc::new(map), range))
    }
}

impl From<Buffer> for Packed {
    fn from(buffer: Buffer) -> Self {
        Self(Memory::Owned(buffer))
    }
}

/// Packed values that were written one after another, and are taken in the same order. Nothing tells where each
/// ends: whoever takes them knows how many values there must be.
#[derive(Debug)]
pub struct Sections {
    map: Arc<Mmap>,
    /// Where the next values begin, at a cache line.
    next: usize,
}

impl Sections {
    /// Those of a map from the cache line on that begins at byte `start`.
    pub fn new(map: Arc<Mmap>, start: usize) -> Option<Self> {
        (start.is_multiple_of(LINE) && start <= map.len()).then_some(Self { map, next: start })
    }

    /// As many cache lines as `len` values take up, if there are so many.
    pub fn take<T: Pod>(&mut self, len: usize) -> Option<Packed> {
        let bytes = len.checked_mul(size_of::<T>())?.checked_next_multiple_of(LINE)?;
        let end = self.next.checked_add(bytes).filter(|end| *end <= self.map.len())?;
        let range = self.next..end;
        self.next = end;
        Some(Packed(Memory::Mapped(self.map.clone(), range)))
    }

    /// Whether everything was taken.
    pub fn are_taken(&self) -> bool {
        self.next == self.map.len()
    }
}

/// What was written, mapped as from a file.
#[cfg(test)]
pub fn mapped(bytes: &[u8]) -> Sections {
    let mut map = memmap2::MmapMut::map_anon(bytes.len()).unwrap();
    map.copy_from_slice(bytes);
    Sections::new(Arc::new(map.make_read_only().unwrap()), 0).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_in_its_order() {
        let (first, second) = (Packed::copy_of(&[1f32; 17]), Packed::copy_of(&[7u8]));
        let mut written = Vec::new();
        first.write(&mut written).unwrap();
        second.write(&mut written).unwrap();
        assert_eq!(written.len(), 192);
        let mut sections = mapped(&written);
        let found = sections.take::<f32>(17).unwrap();
        assert_eq!(found.as_slice::<f32>(), first.as_slice::<f32>());
        assert!(!sections.are_taken());
        let mut last = sections.take::<u8>(1).unwrap();
        assert!(sections.are_taken());
        last.to_mut().as_mut_slice::<u8>()[1] = 9;
        assert_eq!(last.as_slice::<u8>()[..3], [7, 9, 0]);
    }

    #[test]
    fn more_than_there_is_cannot_be_taken() {
        let sections = || mapped(&[0; 128]);
        assert!(sections().take::<f32>(32).is_some() && sections().take::<u8>(0).is_some());
        for len in [33, usize::MAX / 4, usize::MAX / 4 + 1, usize::MAX] {
            assert!(sections().take::<f32>(len).is_none(), "{len}");
        }
        let Sections { map, .. } = sections();
        for (start, fits) in [(0, true), (64, true), (128, true), (192, false), (1, false)] {
            assert_eq!(Sections::new(map.clone(), start).is_some(), fits, "{start}");
        }
    }
}
