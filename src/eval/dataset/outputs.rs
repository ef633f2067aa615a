//! The outputs that images are scored among, where these are not all of the model's.
//!
//! ImageNet-A and ImageNet-R have images of 200 classes, and their authors take the arg max over the outputs of
//! those alone, as timm does with `--valid-labels`.

use std::collections::BTreeSet;
use std::path::Path;

use super::labels::{Line, read_lines};
use super::{Classes, Dataset};
use crate::error::{DatasetProblem, Reason, Result, bail, ensure};
use crate::text::thousands;

/// Reads a list of outputs, and puts it in ascending order: an index a line, as timm's `--valid-labels` takes
/// it, a WordNet id or a label. What follows an id or index after a blank, a comma or a tab is not looked at.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the file cannot be read; [`Error::Dataset`](crate::Error::Dataset) if a
/// line names no class of the model, or one that was there before.
pub fn read_outputs(file: &Path, classes: &Classes) -> Result<Vec<u32>> {
    let lines = read_lines(file)?;
    parse(file, &lines, classes).map_err(DatasetProblem::Labels.because())
}

fn parse(file: &Path, lines: &[Line], classes: &Classes) -> Result<Vec<u32>, Reason> {
    let mut outputs = BTreeSet::new();
    for Line { number, text } in lines {
        let at = || format!("{}, line {number}", file.display());
        let first = text.split([' ', '\t', ',']).next().unwrap_or_default();
        let Some(class) = classes.named(text).or_else(|| classes.named(first)) else {
            bail!("{}: `{text}` is no class of the model; expected {}", at(), classes.kinds());
        };
        ensure!(outputs.insert(class), "{}: `{first}` is there twice", at());
    }
    Ok(outputs.into_iter().collect())
}

impl Dataset {
    /// The classes that its images show, in ascending order.
    pub fn classes_present(&self) -> Vec<u32> {
        self.labels.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Has its images scored among these outputs alone, which must be in ascending order: most likely classes,
    /// rank, probabilities and loss are as if the network had no others.
    ///
    /// # Errors
    /// [`Error::Dataset`](crate::Error::Dataset) if an image shows none of those classes, or the outputs are not
    /// in ascending order.
    pub fn restrict(mut self, outputs: Vec<u32>) -> Result<Self> {
        self.check_outputs(&outputs).map_err(DatasetProblem::OtherOutputs.because())?;
        self.outputs = Some(outputs);
        Ok(self)
    }

    fn check_outputs(&self, outputs: &[u32]) -> Result<(), Reason> {
        ensure!(outputs.is_sorted_by(|one, other| one < other), "outputs that are scored must be in ascending order");
        let outside = |label: &Option<u32>| label.is_some_and(|label| outputs.binary_search(&label).is_err());
        let Some(image) = self.labels.iter().position(outside) else { return Ok(()) };
        let images = self.labels.iter().filter(|label| outside(label)).count();
        let [images, all, outputs] = [images, self.images(), outputs.len()].map(|count| thousands(count as u64));
        let (path, label) = (self.path(image), self.labels[image].unwrap_or_default());
        bail!("{images} of {all} images show none of the {outputs} classes that are scored: {path} shows class {label}")
    }

    /// The outputs that its images are scored among, in ascending order; `None` if these are all of the model's.
    pub fn outputs(&self) -> Option<&[u32]> {
        self.outputs.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::samples::imagenet;
    use super::*;

    #[test]
    fn a_list_of_outputs_is_timms_or_one_of_wordnet_ids() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let file = dir.path().join("valid.txt");
            std::fs::write(&file, text).unwrap();
            read_outputs(&file, &imagenet()).map_err(|error| error.to_string())
        };
        assert_eq!(read("6\n11\n13\n"), Ok(vec![6, 11, 13]));
        assert_eq!(
            read("n15075141\r\nn01440764 tench, Tinca tinca\r\n\r\nn01484850,great white shark"),
            Ok(vec![0, 2, 999])
        );
        assert!(read("6\n1000\n").unwrap_err().contains("valid.txt, line 2: `1000` is no class"));
        assert!(read("6\nshark\n").unwrap_err().contains("a WordNet id of the model or an index from 0 to 999"));
        assert!(read("6\nn01498041\n").unwrap_err().contains("line 2: `n01498041` is there twice"));
        assert!(read("\n").unwrap_err().contains("is empty"));
    }
}
