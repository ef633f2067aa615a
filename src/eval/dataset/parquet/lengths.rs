//! The lengths of values in a page, where they are encoded apart from the values, by their differences.

use ::parquet::basic::Encoding;

use super::thrift::Compact;
use crate::error::{Context, Reason, Result, ensure};

/// The length of the levels of definition that a page begins with, in bytes, where it is told.
pub fn length_of_levels(page: &[u8], encoding: Encoding) -> Option<usize> {
    let length = page.first_chunk().filter(|_| encoding == Encoding::RLE)?;
    usize::try_from(u32::from_le_bytes(*length)).ok()?.checked_add(4)
}

/// Refuses a page whose values are encoded by their lengths, if these are more than the page's header says. Returns the
/// bytes that values have in common with those before, which the page has once, and each value has of its own when it is
/// decoded.
pub fn common_bytes(page: &[u8], levels: Option<usize>, encoding: Encoding, values: u32) -> Result<u64, Reason> {
    let has_prefixes = encoding == Encoding::DELTA_BYTE_ARRAY;
    if !has_prefixes && encoding != Encoding::DELTA_LENGTH_BYTE_ARRAY {
        return Ok(0);
    }
    let lengths = |bytes| {
        let found = Differences::of(bytes, u64::from(values)).context("a page's lengths are damaged")?;
        ensure!(found.count <= u64::from(values), "a page of {values} values with {} lengths", found.count);
        Ok::<_, Reason>(found)
    };
    let page = levels.and_then(|levels| page.get(levels..)).context("a page without its levels")?;
    let Differences { sum, behind, .. } = lengths(page)?;
    if !has_prefixes {
        return Ok(0);
    }
    // The lengths of what each value has of its own.
    lengths(behind)?;
    Ok(sum)
}

/// What a stream of whole numbers of 32 bits in
/// [DELTA_BINARY_PACKED](https://parquet.apache.org/docs/file-format/data-pages/encodings/#delta-encoding-delta_binary_packed--5)
/// has.
struct Differences<'a> {
    count: u64,
    /// Of the positive ones.
    sum: u64,
    behind: &'a [u8],
}

impl<'a> Differences<'a> {
    /// Reads them, unless they are more than `most`: those without a difference take no bytes, and any time.
    fn of(bytes: &'a [u8], most: u64) -> Option<Self> {
        let mut reader = Compact { bytes };
        let [in_block, parts, count] = [reader.varint()?, reader.varint()?, reader.varint()?];
        if count > most {
            return Some(Self { count, sum: 0, behind: reader.bytes });
        }
        let in_part = in_block.checked_div(parts).filter(|in_part| *in_part > 0)?;
        let mut value = reader.signed()? as i32;
        let positive = |value: i32| u64::from(value.max(0).unsigned_abs());
        let (mut left, mut sum) = (count.saturating_sub(1), positive(value));
        while left > 0 {
            let least = reader.signed()? as i32;
            for bits in reader.take(usize::try_from(parts).ok()?)? {
                // There are no parts without values.
                let here = in_part.min(left);
                if here == 0 {
                    break;
                }
                let bytes = in_part.checked_mul(u64::from(*bits))?.div_ceil(8);
                let packed = reader.take(usize::try_from(bytes).ok()?)?;
                for index in 0..here {
                    let difference = unpack(packed, index as usize, usize::from(*bits)) as i32;
                    value = value.wrapping_add(least).wrapping_add(difference);
                    sum += positive(value);
                }
                left -= here;
            }
        }
        Some(Self { count, sum, behind: reader.bytes })
    }
}

/// One of numbers of so many bits, which follow each other from the lowest bit of the first byte on.
fn unpack(packed: &[u8], index: usize, bits: usize) -> u64 {
    let bit = |place: usize| u64::from(packed[place / 8] >> (place % 8) & 1);
    (0..bits.min(64)).map(|place| bit(index * bits + place) << place).sum()
}

#[cfg(test)]
mod tests {
    use super::super::thrift::varint;
    use super::*;

    #[test]
    fn lengths_are_counted_and_added() {
        // As the specification has it: 1 to 5 in one block of 128 in 4 parts, with differences of 1; then 0 and 9, whose
        // difference takes 8 bits, in a part of 32.
        let one = [0x80, 1, 4, 5, 2, 2, 0, 0, 0, 0];
        let two = [&[0x80, 1, 4, 2, 0, 0, 8, 0, 0, 0][..], &[9; 32]].concat();
        let of = |bytes: &[u8]| Differences::of(bytes, 5).map(|found| (found.count, found.sum, found.behind.to_vec()));
        assert_eq!(of(&[&one, &two[..]].concat()), Some((5, 15, two.clone())));
        assert_eq!(of(&[&two, &b"behind"[..]].concat()), Some((2, 9, b"behind".to_vec())));
        for damaged in [&two[..41], &[0x80, 1, 0, 1, 0], &[0, 4, 1, 0], &one[..9]] {
            assert!(of(damaged).is_none(), "{damaged:?}");
        }
        assert_eq!([0, 1, 2].map(|index| unpack(&[0b1010_0011, 0b0000_0101], index, 5)), [3, 13, 1]);
        let encoding = Encoding::DELTA_BYTE_ARRAY;
        let common = |page: &[u8], levels, values| common_bytes(page, levels, encoding, values).ok();
        let both = [&two, &two[..]].concat();
        assert_eq!(common(&both, Some(0), 5), Some(9));
        // Without prefixes, or without lengths.
        assert_eq!(common_bytes(&two, Some(0), Encoding::DELTA_LENGTH_BYTE_ARRAY, 2).unwrap(), 0);
        assert_eq!(common_bytes(&two, None, Encoding::PLAIN, 2).unwrap(), 0);
        // 2^40 zeros in a part as large, which take no bytes.
        let many = [&varint(1 << 41)[..], &[1], &varint(1 << 40), &[0, 0, 0]].concat();
        assert_eq!(common(&[&many, &one[..]].concat(), Some(0), 5), None);
        let both = [&one, &one[..]].concat();
        assert_eq!((common(&both, Some(0), 5), common(&both, Some(0), 4)), (Some(15), None));
        assert_eq!((common(&one, Some(0), 5), common(&both, None, 5), common(&both, Some(21), 5)), (None, None, None));
        // The second of two values begins with 48 MiB of the first.
        let prefixes = [&[0x80, 1, 4, 2, 0][..], &varint(2 * (48 << 20)), &[0; 4]].concat();
        assert_eq!(common(&[&prefixes, &two[..]].concat(), Some(0), 2), Some(48 << 20));
    }
}
