//! ImageNet-ReaL: what else an image of ImageNet's validation set shows.
//!
//! Beyer, Hénaff, Kolesnikov, Zhai, van den Oord, "Are we done with ImageNet?",
//! [arXiv 2006.07159](https://arxiv.org/abs/2006.07159), and its file `real.json`.

use std::collections::HashMap;
use std::path::Path;

use super::labels::read_labels;
use crate::error::{Context, DatasetProblem, Reason, Result, bail, ensure};

/// The classes that each image shows, of which there may be none or several.
pub struct RealLabels {
    lists: Vec<Vec<u32>>,
    order: Order,
}

/// How an image finds its list.
enum Order {
    /// By the number in the image's name, from 1.
    Numbers,
    /// By its path.
    Positions(HashMap<String, usize>),
}

impl RealLabels {
    /// Reads a list of lists of class indices. Images of ImageNet's validation set find theirs by the
    /// number in their names; for others there must be as many lists as images, in the order of the
    /// file names.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read; [`Error::Dataset`](crate::Error::Dataset) if it is
    /// something else, is too short or larger than 256 MiB, or names a class that the model does not have.
    pub fn open<'a>(file: &Path, paths: impl Iterator<Item = &'a str>, classes: usize) -> Result<Self> {
        let bytes = read_labels(file)?;
        Self::parse(&bytes, file, paths.collect(), classes).map_err(DatasetProblem::Labels.because())
    }

    fn parse(bytes: &[u8], file: &Path, mut paths: Vec<&str>, classes: usize) -> Result<Self, Reason> {
        let shown = file.display();
        let lists: Vec<Vec<u32>> = serde_json::from_slice(bytes)
            .with_context(|| format!("{shown}: not a list of lists of class indices, as real.json is"))?;
        if let Some(wrong) = lists.iter().flatten().find(|index| **index as usize >= classes) {
            bail!("{shown}: class {wrong} is none of the model's {classes}");
        }
        let count = lists.len();
        let numbers: Vec<usize> = paths.iter().filter_map(|path| number(path)).collect();
        if numbers.len() == paths.len() {
            if let Some(number) = numbers.into_iter().find(|number| *number > count) {
                bail!("{shown} has {count} lists, and there is an image with the number {number}");
            }
            return Ok(Self { lists, order: Order::Numbers });
        }
        if let Some(odd) = paths.iter().find(|path| number(path).is_none()).filter(|_| !numbers.is_empty()) {
            bail!("{odd} has no number in its name as the others have, so {shown} has no list for it");
        }
        let images = paths.len();
        ensure!(count == images, "{shown} has {count} lists for {images} images");
        paths.sort_by_key(|path| (name_of(path), *path));
        if let Some(pair) = paths.windows(2).find(|pair| name_of(pair[0]) == name_of(pair[1])) {
            bail!("{} and {} have one name, and {shown} goes by names", pair[0], pair[1]);
        }
        let positions = paths.iter().enumerate().map(|(position, path)| (path.to_string(), position)).collect();
        Ok(Self { lists, order: Order::Positions(positions) })
    }

    /// The classes that an image shows; none where people could not agree on any.
    pub fn of(&self, path: &str) -> &[u32] {
        let position = match &self.order {
            Order::Numbers => number(path).map(|number| number - 1),
            Order::Positions(positions) => positions.get(path).copied(),
        };
        position.and_then(|position| self.lists.get(position)).map_or(&[], Vec::as_slice)
    }
}

/// The last part of a path.
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// 7 for `ILSVRC2012_val_00000007.JPEG`, whatever is around it.
fn number(path: &str) -> Option<usize> {
    let (_, after) = path.rsplit_once("ILSVRC2012_val_")?;
    after.get(..8)?.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_find_their_labels_by_number_or_by_position() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("real.json");
        std::fs::write(&file, "[[5], [], [1, 2]]").unwrap();
        let by_number = ["n01440764/ILSVRC2012_val_00000003.JPEG", "n01440764/n01440764_ILSVRC2012_val_00000001.JPEG"];
        let real = RealLabels::open(&file, by_number.into_iter(), 10).unwrap();
        assert_eq!(real.of(by_number[0]), [1, 2]);
        assert_eq!(real.of(by_number[1]), [5]);

        let real = RealLabels::open(&file, ["b/x.png", "a/y.png", "a/z.png"].into_iter(), 10).unwrap();
        assert_eq!([real.of("b/x.png"), real.of("a/y.png"), real.of("a/z.png")], [&[5][..], &[], &[1, 2]]);

        let error = |paths: &[&str], classes| match RealLabels::open(&file, paths.iter().copied(), classes) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error(&["ILSVRC2012_val_00000004.JPEG"], 10).contains("number 4"));
        assert!(error(&["x.png"], 10).contains("3 lists for 1 images"));
        assert!(error(&["x.png", "y.png", "z.png"], 5).contains("class 5"));
    }
}
