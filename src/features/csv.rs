//! Rows as lines of a table.

use std::path::Path;

use crate::error::Reason;

/// The names of the columns: `image`, and `f0`, `f1`, ... for rows of one dimension. For maps of `[channels, height,
/// width]` they are `f0_0_0`, `f0_0_1`, ...
pub fn header(shape: &[usize]) -> Result<Vec<u8>, Reason> {
    let mut names = vec![String::from("f")];
    for (place, size) in shape.iter().enumerate() {
        let separator = if place == 0 { "" } else { "_" };
        names = names.iter().flat_map(|name| (0..*size).map(move |i| format!("{name}{separator}{i}"))).collect();
    }
    names.insert(0, "image".into());
    lines(|writer| writer.serialize(&names))
}

/// A line for each image, with so few digits as tell its numbers from all others.
pub fn rows(images: &[&Path], values: &[f32]) -> Result<Vec<u8>, Reason> {
    let columns = values.len() / images.len().max(1);
    lines(|writer| {
        let mut rows = images.iter().zip(values.chunks_exact(columns.max(1)));
        rows.try_for_each(|(image, row)| writer.serialize((image.display().to_string(), row)))
    })
}

/// What `write` writes.
fn lines(write: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>) -> Result<Vec<u8>, Reason> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    write(&mut writer)?;
    writer.into_inner().map_err(|error| Reason::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_all_digits_and_quotes_where_needed() {
        assert_eq!(header(&[3]).unwrap(), b"image,f0,f1,f2\n");
        assert_eq!(header(&[2, 1, 2]).unwrap(), b"image,f0_0_0,f0_0_1,f1_0_0,f1_0_1\n");
        let images = ["a,b.png", "c\nd.png"].map(Path::new);
        let values = [0.1, -1e-30, 16777217.0, f32::MIN_POSITIVE];
        let text = String::from_utf8(rows(&images, &values).unwrap()).unwrap();
        assert_eq!(text, "\"a,b.png\",0.1,-1e-30\n\"c\nd.png\",16777216.0,1.1754944e-38\n");
        assert!(rows(&[], &[]).unwrap().is_empty());
    }
}
