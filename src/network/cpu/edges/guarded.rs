//! Memory for tests that ends, or begins, where nobody may touch anything: what a kernel reads or writes beyond it ends
//! the program with SIGSEGV.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

use bytemuck::{Pod, cast_slice, cast_slice_mut};
use memmap2::{Mmap, MmapMut};

/// Where the memory touches a forbidden page. On the other side there is what is left of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Begin,
    End,
}

/// Both of them.
pub const EDGES: [Edge; 2] = [Edge::Begin, Edge::End];

/// Values at the edge of a forbidden page.
pub struct Guarded<T> {
    map: MmapMut,
    bytes: Range<usize>,
    of: PhantomData<T>,
}

impl<T: Pod> Guarded<T> {
    /// A copy of these values.
    pub fn new(values: &[T], edge: Edge) -> Self {
        let (map, bytes) = filled(cast_slice(values), edge);
        forbid_outer_pages(&map);
        Self { map, bytes, of: PhantomData }
    }
}

impl<T: Pod> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        cast_slice(&self.map[self.bytes.clone()])
    }
}

impl<T: Pod> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        cast_slice_mut(&mut self.map[self.bytes.clone()])
    }
}

/// A copy of these bytes as a map that is only read, and where in it they are.
pub fn mapped(bytes: &[u8], edge: Edge) -> (Mmap, Range<usize>) {
    let (map, range) = filled(bytes, edge);
    let map = map.make_read_only().unwrap();
    forbid_outer_pages(&map);
    (map, range)
}

/// A map with these bytes at an edge of all but its first and last pages, which are not forbidden yet.
fn filled(bytes: &[u8], edge: Edge) -> (MmapMut, Range<usize>) {
    let (page, room) = (page(), bytes.len().next_multiple_of(page()));
    let mut map = MmapMut::map_anon(room + 2 * page).unwrap();
    let start = if edge == Edge::Begin { page } else { page + room - bytes.len() };
    let range = start..start + bytes.len();
    map[range.clone()].copy_from_slice(bytes);
    (map, range)
}

/// Takes all permissions from the first and the last page.
fn forbid_outer_pages(map: &[u8]) {
    for start in [0, map.len() - page()] {
        // SAFETY: the page is the map's own, and nobody reads or writes what is in it.
        let status = unsafe { libc::mprotect(map.as_ptr().add(start).cast_mut().cast(), page(), libc::PROT_NONE) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Bytes of a page.
fn page() -> usize {
    // SAFETY: it returns a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the system can read a byte, which it says without an end of the program.
    fn is_readable(byte: *const u8) -> bool {
        let mut ends = [0; 2];
        // SAFETY: the pipe's ends are closed once, and the system checks the address of what is written to it.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let written = libc::syscall(libc::SYS_write, ends[1], byte, 1usize);
            ends.iter().for_each(|end| assert_eq!(libc::close(*end), 0));
            written == 1
        }
    }

    #[test]
    fn nobody_can_read_beyond_the_edge() {
        for len in [1, 3, 16, 1000, 5000] {
            let values = vec![7u32; len];
            let around = |first: *const u8| [first.wrapping_sub(1), first, first.wrapping_add(4 * len)];
            let begin = Guarded::new(&values, Edge::Begin);
            assert_eq!(around(begin.as_ptr().cast()).map(is_readable)[..2], [false, true], "{len}");
            let end = Guarded::new(&values, Edge::End);
            assert_eq!(around(end.as_ptr().cast()).map(is_readable)[1..], [true, false], "{len}");
            assert_eq!((&begin[..], &end[..]), (&values[..], &values[..]));
            let (map, range) = mapped(cast_slice(&values), Edge::End);
            assert_eq!(around(map[range].as_ptr()).map(is_readable)[1..], [true, false], "{len}");
        }
    }
}
