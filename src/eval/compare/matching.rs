//! Which row of one file is of the same image as which of the other.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, PredictionsProblem, Reason, Result, bail, ensure};
use crate::eval::Row;
use crate::eval::predictions::Shards;

/// How names of ImageNet's validation images begin, before their number. What follows the number differs: the
/// hub's files have the class there too.
const IMAGENET: &str = "ILSVRC2012_val_";

/// A file of predictions, with what it is called.
pub struct Named<'a> {
    pub file: &'a Path,
    pub shards: &'a Shards,
}

/// Hands the two rows of each image to `each`, in the order of the first file.
///
/// Where the files are of the same paths in the same order, both are read side by side, and nothing is held in
/// memory. Otherwise the second is held; rows are matched by their paths, or if these are not the same, as of a
/// folder and an archive of the same images, by [`name_of`] them.
///
/// # Errors
/// What `each` returns; [`Error::Predictions`] if an image of one is not in the other, or has other labels.
pub fn each_pair(a: &Named, b: &Named, mut each: impl FnMut(&Row, &Row)) -> Result<()> {
    let mut pair = |ours: &Row, theirs: &Row| {
        if ours.label != theirs.label {
            let label = |row: &Row| row.label.map_or("none".into(), |label| label.to_string());
            let labels = format!("label {} in {}, {} in {}", label(ours), shown(a), label(theirs), shown(b));
            return Err(PredictionsProblem::Unlike.error(format!("{}: {labels}", ours.path)));
        }
        each(ours, theirs);
        Ok(())
    };
    // Opening verified that the rows are those of the fingerprint.
    if a.shards.run().data.sha256 == b.shards.run().data.sha256 {
        let mut others = b.shards.rows()?;
        for row in a.shards.rows()? {
            let (row, other) = (row?, others.next().transpose()?);
            let other = other.ok_or_else(|| Reason::new(format!("{} has become shorter", shown(b))));
            pair(&row, &other.map_err(PredictionsProblem::Unlike.because())?)?;
        }
        return Ok(());
    }
    let rows: Vec<Row> = b.shards.rows()?.collect::<Result<_>>()?;
    let paths: Vec<String> = a.shards.rows()?.map(|row| Ok(row?.path)).collect::<Result<_>>()?;
    let places = places(a, &paths, b, &rows).map_err(PredictionsProblem::Unlike.because())?;
    let mut places = places.into_iter();
    a.shards.for_each(|row| match places.next() {
        Some(place) => pair(&row, &rows[place]),
        None => Ok::<_, Error>(()),
    })
}

/// For each of the first file's paths, which of the second's rows is of the same image: each row is of one.
fn places(a: &Named, paths: &[String], b: &Named, rows: &[Row]) -> Result<Vec<usize>, Reason> {
    let by_path: HashMap<&str, usize> = rows.iter().zip(0..).map(|(row, place)| (&*row.path, place)).collect();
    if paths.len() == rows.len()
        && let Some(places) = paths.iter().map(|path| by_path.get(&**path).copied()).collect()
    {
        return Ok(places);
    }
    let ours = by_name(a, paths.iter().map(String::as_str))?;
    let theirs = by_name(b, rows.iter().map(|row| &*row.path))?;
    let lacking = |named: &Named, paths: Vec<&str>, other: &Named| {
        let first = paths.iter().min()?;
        let more = paths.len() - 1;
        let more = if more > 0 { format!(" and {more} more images") } else { String::new() };
        Some(format!("{} has {first}{more} that {} lacks", shown(named), shown(other)))
    };
    let only_ours = ours.iter().filter(|(name, _)| !theirs.contains_key(*name)).map(|(_, place)| &*paths[*place]);
    let only_theirs = theirs.iter().filter(|(name, _)| !ours.contains_key(*name)).map(|(_, at)| &*rows[*at].path);
    let lacks = [lacking(a, only_ours.collect(), b), lacking(b, only_theirs.collect(), a)];
    let lacks: Vec<String> = lacks.into_iter().flatten().collect();
    ensure!(lacks.is_empty(), "{}", lacks.join(", and "));
    Ok(paths.iter().filter_map(|path| theirs.get(name_of(path)).copied()).collect())
}

/// The places of images by their names, each of which there must be once.
fn by_name<'p>(named: &Named, paths: impl Iterator<Item = &'p str> + Clone) -> Result<HashMap<&'p str, usize>, Reason> {
    let mut places = HashMap::new();
    for (path, place) in paths.clone().zip(0..) {
        if let Some(before) = places.insert(name_of(path), place) {
            let other = paths.clone().nth(before).unwrap_or_default();
            bail!(
                "{} has both {other} and {path}: the files have other paths, and by their names alone images cannot be \
                 told apart",
                shown(named)
            );
        }
    }
    Ok(places)
}

/// What an image is called wherever it is: its file's name without folders and extension, and of an image of
/// ImageNet's validation split what ends with its number.
fn name_of(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    if let Some(start) = name.find(IMAGENET) {
        let name = &name[start..];
        let digits = name[IMAGENET.len()..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            return &name[..IMAGENET.len() + digits];
        }
    }
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    }
}

fn shown(named: &Named) -> String {
    named.file.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_one_name_in_every_form() {
        for path in [
            "n01751748/ILSVRC2012_val_00000001.JPEG",
            "ILSVRC2012_val_00000001.JPEG",
            "ILSVRC2012_val_00000001_n01751748.JPEG",
            "imagenet1k-validation-00.tar/n01751748_ILSVRC2012_val_00000001.jpg",
            "data/validation-00000-of-00014.parquet/ILSVRC2012_val_00000001",
        ] {
            assert_eq!(name_of(path), "ILSVRC2012_val_00000001", "{path}");
        }
        assert_eq!(name_of("3/0078.png"), "0078");
        assert_eq!(name_of("a/b.c.jpg"), "b.c");
        assert_eq!(name_of("a/.png"), ".png");
        assert_eq!(name_of("ILSVRC2012_val_x.png"), "ILSVRC2012_val_x");
    }
}
