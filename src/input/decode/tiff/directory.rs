//! The header of a TIFF file and its first image file directory: TIFF 6.0, section 2, and BigTIFF.

use std::collections::BTreeMap;

use crate::error::{Context, Reason, Result, bail, ensure};

/// The fields of a directory, by tag.
pub(super) struct Directory<'a> {
    /// The whole file.
    pub(super) bytes: &'a [u8],
    /// Numbers begin with their most significant byte.
    pub(super) big_endian: bool,
    fields: BTreeMap<u16, Field<'a>>,
}

/// The values of a tag, at least one.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    /// The type of the values, as TIFF numbers it.
    kind: u16,
    big_endian: bool,
    /// The values as they lie in the file.
    pub(super) bytes: &'a [u8],
}

impl<'a> Directory<'a> {
    /// Reads the first directory. As in Pillow's `ImageFileDirectory_v2.load`, of two fields with the same tag
    /// the first counts, and the directory may be cut short: a field that is needed is missed later. Fields whose
    /// values lie outside the file are ignored.
    ///
    /// # Errors
    /// If it is no TIFF file, or the directory lies outside it.
    pub(super) fn first(bytes: &'a [u8]) -> Result<Self, Reason> {
        let (big_endian, big) = match bytes.get(..4) {
            // Of 42 the bytes are swapped in some files, which Pillow reads.
            Some(b"MM\0\x2a" | b"MM\x2a\0") => (true, false),
            Some(b"II\x2a\0" | b"II\0\x2a") => (false, false),
            Some(b"MM\0\x2b") => (true, true),
            Some(b"II\x2b\0") => (false, true),
            _ => bail!("no TIFF file"),
        };
        let number = |at: usize, size: usize| Some(integer(bytes.get(at..at.checked_add(size)?)?, big_endian));
        // Positions and counts have 8 bytes in a BigTIFF file, else 4; the number of fields has 2.
        let (word, count_size) = if big { (8, 8) } else { (4, 2) };
        let start = number(word, word).and_then(|start| usize::try_from(start).ok());
        let start = start.filter(|start| *start > 0).context("its directory lies outside the file")?;
        let count = number(start, count_size).context("its directory lies outside the file")?;
        let mut fields = BTreeMap::new();
        for index in 0..count {
            let entry = start + count_size + index as usize * (4 + 2 * word);
            let (Some(tag), Some(kind), Some(length)) =
                (number(entry, 2), number(entry + 2, 2), number(entry + 4, word))
            else {
                break;
            };
            let kind = kind as u16;
            let size = length.checked_mul(size_of(kind)).and_then(|size| usize::try_from(size).ok());
            // Types that are unknown have no size.
            let Some(size) = size.filter(|size| *size > 0) else { continue };
            let inside = entry + 4 + word;
            let at =
                if size <= word { Some(inside) } else { number(inside, word).and_then(|at| usize::try_from(at).ok()) };
            if let Some(bytes) = at.and_then(|at| bytes.get(at..at.checked_add(size)?)) {
                fields.entry(tag as u16).or_insert(Field { kind, big_endian, bytes });
            }
        }
        Ok(Self { bytes, big_endian, fields })
    }

    /// All values of a tag.
    pub(super) fn field(&self, tag: u16) -> Option<Field<'a>> {
        self.fields.get(&tag).copied()
    }

    /// The first value of a tag, if it is an integer and not negative.
    pub(super) fn integer(&self, tag: u16) -> Option<u64> {
        self.field(tag)?.integer(0)
    }

    /// The first value of a tag, if it is a number of pixels above zero.
    pub(super) fn side(&self, tag: u16) -> Option<u32> {
        self.integer(tag).and_then(|side| u32::try_from(side).ok()).filter(|side| *side > 0)
    }

    /// Width and height of the picture.
    ///
    /// # Errors
    /// If one of them is missing, zero, or more than 32 bits hold.
    pub(super) fn size(&self) -> Result<(u32, u32), Reason> {
        self.side(256).zip(self.side(257)).context("the size of the picture is missing")
    }

    /// The value of a tag that has one for each sample of a pixel.
    ///
    /// # Errors
    /// If it is not the same for the first `samples` samples.
    pub(super) fn same(&self, tag: u16, samples: usize) -> Result<Option<u64>, Reason> {
        let Some(field) = self.field(tag) else { return Ok(None) };
        let first = field.integer(0);
        let all = (1..field.len().min(samples)).all(|index| field.integer(index) == first);
        ensure!(all, "samples of different kinds in one picture are not decoded");
        Ok(first)
    }

    /// The first `N` values of a tag, if it has as many and they are finite.
    pub(super) fn reals<const N: usize>(&self, tag: u16) -> Option<[f32; N]> {
        let field = self.field(tag).filter(|field| field.len() >= N)?;
        let values = std::array::from_fn(|index| field.real(index).unwrap_or(f32::NAN));
        values.iter().all(|value| value.is_finite()).then_some(values)
    }
}

impl Field<'_> {
    /// The number of values.
    pub(super) fn len(&self) -> usize {
        self.bytes.len().checked_div(size_of(self.kind) as usize).unwrap_or(0)
    }

    /// The value with this index, if it is an integer and not negative.
    pub(super) fn integer(&self, index: usize) -> Option<u64> {
        let size = size_of(self.kind) as usize;
        let value = integer(self.bytes.get(index.checked_mul(size)?..)?.get(..size)?, self.big_endian);
        let negative = value >> (8 * size - 1) == 1;
        match self.kind {
            1 | 3 | 4 | 7 | 13 | 16 | 18 => Some(value),
            6 | 8 | 9 | 17 => (!negative).then_some(value),
            _ => None,
        }
    }

    /// The value with this index as a real number.
    fn real(&self, index: usize) -> Option<f32> {
        let half = |at| Some(integer(self.bytes.get(8 * index + at..)?.get(..4)?, self.big_endian));
        match self.kind {
            5 => Some((half(0)? as f64 / half(4)? as f64) as f32),
            11 => Some(f32::from_bits(integer(self.bytes.get(4 * index..)?.get(..4)?, self.big_endian) as u32)),
            _ => self.integer(index).map(|value| value as f32),
        }
    }
}

/// Bytes that a value of this type has: 0 for a type that is not known.
fn size_of(kind: u16) -> u64 {
    match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 0,
    }
}

/// An unsigned integer of up to 8 bytes.
pub(super) fn integer(bytes: &[u8], big_endian: bool) -> u64 {
    let join = |value, byte: &u8| value << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with one field: its tag, type and count, and its value or the place of it.
    fn directory(field: [u8; 12]) -> Vec<u8> {
        [&b"II*\0\x08\0\0\0\x01\0"[..], &field, &[0; 4]].concat()
    }

    #[test]
    fn fields_are_read_as_far_as_they_lie_in_the_file() {
        let file = directory(*b"\x00\x01\x03\0\x02\0\0\0\x05\0\x06\0");
        let fields = Directory::first(&file).unwrap();
        assert_eq!((fields.integer(256), fields.field(256).unwrap().integer(1)), (Some(5), Some(6)));
        assert_eq!(fields.field(256).unwrap().integer(usize::MAX), None);
        // Values behind the end, so many that they fill all memory, and of an unknown type.
        for field in [b"\x00\x01\x04\0\x02\0\0\0\xff\0\0\0", b"\x00\x01\x0c\0\xff\xff\xff\xff\x08\0\0\0"] {
            assert!(Directory::first(&directory(*field)).unwrap().field(256).is_none());
        }
        assert!(Directory::first(&directory(*b"\x00\x01\x63\0\x01\0\0\0\x08\0\0\0")).unwrap().field(256).is_none());
        for length in 0..file.len() {
            let cut = Directory::first(&file[..length]);
            assert!(cut.is_err() || cut.unwrap().fields.is_empty() || length >= file.len() - 4);
        }
    }

    /// On 32-bit machines too, where the positions are larger than what addresses hold.
    #[test]
    fn positions_beyond_4_gib_are_outside() {
        let file = include_bytes!("../../../../tests/fixtures/decode/bigtiff.tiff");
        let start = u64::from_le_bytes(file[8..16].try_into().unwrap()) as usize;
        assert_eq!(Directory::first(file).unwrap().field(273).map(|strips| strips.len()), Some(3));
        // The position of the directory, and that of the fifth field's values: byte 4 of each is 4 GiB.
        for (at, is_directory) in [(8 + 4, true), (start + 8 + 4 * 20 + 12 + 4, false)] {
            let mut bytes = file.to_vec();
            bytes[at] += 1;
            match Directory::first(&bytes) {
                Ok(directory) => assert!(!is_directory && directory.field(273).is_none()),
                Err(_) => assert!(is_directory),
            }
        }
    }
}
