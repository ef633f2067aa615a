//! The header of NumPy's own format, [version 1.0](https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

/// In bytes: a multiple of 64, as NumPy asks for, with room for any four dimensions.
pub const HEADER: usize = 192;

/// The header of an array of float32, little-endian and row by row.
pub fn header(shape: &[usize]) -> Vec<u8> {
    // The comma makes a tuple of one dimension too.
    let dimensions: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dimensions.trim_end());
    let length = HEADER - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((length as u16).to_le_bytes());
    header.extend(format!("{text:<0$}\n", length - 1).into_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_one_length() {
        for shape in [&[0, 512][..], &[1_281_167, 64, 112, 112], &[usize::MAX; 4], &[7]] {
            let header = header(shape);
            assert_eq!((header.len(), header[191]), (HEADER, b'\n'), "{shape:?}");
        }
        let header = header(&[3, 512]);
        assert!(header[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 512,), } "));
    }
}
