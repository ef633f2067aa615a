//! The class of each image by a file of labels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::first_of;
use super::lines::{Line, SEPARATORS, name_and_class, read_lines};
use crate::error::{Context, DatasetProblem, Reason, Result, bail, ensure};
use crate::eval::dataset::listing::Entry;

/// The file of labels that lies beside the images, if there is one.
pub fn find_beside(images: &Path) -> Option<PathBuf> {
    const LISTS: [&str; 7] = [
        "labels.txt",
        "labels.csv",
        "val_labels.txt",
        "val.txt",
        "synset_labels.txt",
        "imagenet_2012_validation_synset_labels.txt",
        "ILSVRC2012_validation_ground_truth.txt",
    ];
    let images = images.canonicalize().ok()?;
    // In Kaggle's archive the images are in `ILSVRC/Data/CLS-LOC/val`, the solution is at the top.
    let files = images.ancestors().take(5).enumerate().flat_map(|(up, directory)| {
        let lists = LISTS.iter().filter(move |_| up < 2);
        std::iter::once(&"LOC_val_solution.csv").chain(lists).map(|name| directory.join(name))
    });
    files.into_iter().find(|file| file.is_file())
}

/// A file of labels.
#[derive(Clone, Copy)]
pub struct List<'a> {
    pub file: &'a Path,
    /// Whether its numbers are certainly indices, from 0.
    pub zero_based: bool,
}

/// The class of each image, by a file of labels. Labels without names are in the order of the images' file names,
/// or if these are rows of tables or samples of shards, in their order.
pub fn by_file(root: &Path, entries: &[Entry], classes: &Classes, list: List, are_rows: bool) -> Result<Vec<u32>> {
    let List { file, zero_based } = list;
    let (shown, root) = (file.display().to_string(), root.display().to_string());
    let names = Names::new(entries, are_rows);
    let lines = read_lines(file)?;
    let found = FoundLabels::read(&shown, lines, classes, &names).map_err(DatasetProblem::Labels.because())?;
    if !zero_based && found.could_be_the_development_kits(classes) {
        return Err(DatasetProblem::Numbers.error(format!("{shown}: {DEVELOPMENT_KIT}")));
    }
    let labels = || {
        let by_names = !are_rows || !found.by_image.is_empty();
        if let Some([one, other]) = names.twice().filter(|_| by_names) {
            bail!("{root}: {one} and {other} have one name, and {shown} goes by names");
        }
        if found.in_order.is_empty() { found.by_image(&shown, &names) } else { found.in_order(&shown, &root, &names) }
    };
    labels().map_err(DatasetProblem::Labels.because())
}

/// Finds images by their file names, whatever folders they are in.
struct Names<'a> {
    entries: &'a [Entry],
    /// Indices of the entries in the order of their names.
    order: Vec<usize>,
    /// With and without extension.
    by_name: HashMap<&'a str, usize>,
    /// Rows come in their own order.
    are_rows: bool,
}

impl<'a> Names<'a> {
    fn new(entries: &'a [Entry], are_rows: bool) -> Self {
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|index| entries[*index].name());
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for &index in &order {
            let name = entries[index].name();
            by_name.entry(name.rsplit_once('.').map_or(name, |(stem, _)| stem)).or_insert(index);
        }
        by_name.extend(order.iter().map(|index| (entries[*index].name(), *index)));
        Self { entries, order, by_name, are_rows }
    }

    /// The image of that name. Caffe's lists have `val/ILSVRC2012_val_00000001.JPEG`.
    fn find(&self, name: &str) -> Option<usize> {
        let name = name.rsplit('/').next().unwrap_or(name);
        let stem = || self.by_name.get(name.rsplit_once('.')?.0);
        self.by_name.get(name).or_else(stem).copied()
    }

    /// The entries in the order of their names, two by two.
    fn neighbours(&self) -> impl Iterator<Item = [&'a Entry; 2]> {
        self.order.windows(2).map(|pair| [&self.entries[pair[0]], &self.entries[pair[1]]])
    }

    /// The paths of two images with one name.
    fn twice(&self) -> Option<[&'a str; 2]> {
        let pair = self.neighbours().find(|[one, other]| one.name() == other.name());
        pair.map(|pair| pair.map(|entry| &*entry.path))
    }

    /// Two names that a person would put in another order, by the numbers in them.
    fn unclear(&self) -> Option<[&'a str; 2]> {
        if self.are_rows {
            return None;
        }
        let mut pairs = self.neighbours().map(|pair| pair.map(Entry::name));
        pairs.find(|[one, other]| numbers_padded(one) > numbers_padded(other))
    }
}

/// What the lines of a file of labels say.
#[derive(Default)]
struct FoundLabels {
    /// Of lines that are only a label.
    in_order: Vec<u32>,
    /// Of these, how many are written as numbers other than 0.
    numbers: usize,
    /// Of lines with the name of an image, by the image's index.
    by_image: HashMap<usize, u32>,
    /// Names of images that are not there.
    strangers: Vec<String>,
    /// What is wrong with the first line, unless it is a header.
    first_line: Option<Reason>,
}

impl FoundLabels {
    fn read(shown: &str, lines: Vec<Line>, classes: &Classes, names: &Names) -> Result<Self, Reason> {
        let mut found = Self::default();
        for (index, Line { number, text }) in lines.into_iter().enumerate() {
            match parse_label(&text, classes, |name| names.find(name).is_some()) {
                Parsed::Label(class) => {
                    found.numbers += usize::from(text.parse().is_ok_and(|number: u32| number > 0));
                    found.in_order.push(class);
                }
                Parsed::Named(name, class) => match names.find(name) {
                    Some(image) => {
                        let before = found.by_image.insert(image, class);
                        ensure!(
                            before.is_none_or(|before| before == class),
                            "{shown}, line {number}: another label for {name} than before"
                        );
                    }
                    // Kaggle's file has all 50,000, also where only some images are there.
                    None => found.strangers.push(name.to_string()),
                },
                Parsed::Unknown(class) => {
                    let error = unknown_label(shown, number, class, classes);
                    if index > 0 {
                        return Err(found.first_line.unwrap_or(error));
                    }
                    found.first_line = Some(error);
                }
            }
        }
        Ok(found)
    }

    /// Whether its labels may be those of ILSVRC's development kit, which counts classes from 1, in an order of its own:
    /// all are numbers, and none is 0.
    fn could_be_the_development_kits(&self, classes: &Classes) -> bool {
        let named = !self.by_image.is_empty() || !self.strangers.is_empty();
        let numbers = !self.in_order.is_empty() && self.numbers == self.in_order.len();
        numbers && !named && classes.have_wnids() && classes.take_numbers_for_indices()
    }

    /// The label of each image, where the file has one a line in the order of the images' names.
    fn in_order(self, shown: &str, root: &str, names: &Names) -> Result<Vec<u32>, Reason> {
        let (labels, images) = (self.in_order.len(), names.entries.len());
        ensure!(
            self.by_image.is_empty() && self.strangers.is_empty(),
            "{shown}: some lines have a file name and a label, and others have only one of them"
        );
        if let Some(error) = self.first_line.filter(|_| labels != images) {
            return Err(error);
        }
        ensure!(labels == images, "{shown} has {labels} labels, and {root} has {images} images");
        if let Some([one, other]) = names.unclear() {
            bail!(
                "{shown} has labels without file names, and the order of {one} and {other} is not clear; write `name \
                 label` lines"
            );
        }
        let mut by_entry = vec![0; images];
        if names.are_rows {
            return Ok(self.in_order);
        }
        for (index, label) in names.order.iter().zip(self.in_order) {
            by_entry[*index] = label;
        }
        Ok(by_entry)
    }

    /// The label of each image, where the file names them.
    fn by_image(self, shown: &str, names: &Names) -> Result<Vec<u32>, Reason> {
        let images = names.entries.len();
        let labels = (0..images).map(|index| self.by_image.get(&index).copied()).collect::<Option<Vec<_>>>();
        labels.with_context(|| {
            let without = (0..images).filter(|index| !self.by_image.contains_key(index));
            let without: Vec<&str> = without.map(|index| &*names.entries[index].path).collect();
            let stranger = self.strangers.first();
            let other = stranger.map_or(String::new(), |name| format!("; it has one for `{name}`, which is not there"));
            format!("{shown} has no label for {} of {images} images: {}{other}", without.len(), first_of(&without))
        })
    }
}

/// What a line says.
enum Parsed<'a> {
    /// A class.
    Label(u32),
    /// An image's name and its class.
    Named(&'a str, u32),
    /// What is no class of the model, where a class should stand.
    Unknown(&'a str),
}

/// A line is a label, or the name of an image and a label.
fn parse_label<'a>(line: &'a str, classes: &Classes, is_image: impl Fn(&str) -> bool) -> Parsed<'a> {
    // Kaggle's solution goes on with boxes. Of a label, the first word may be another class.
    let starts_with_class = |text: &str| {
        let first = text.split_whitespace().next().unwrap_or_default();
        let unmistakable = classes.by_wnid.contains_key(first) || first.bytes().all(|byte| byte.is_ascii_digit());
        classes.named(text).or_else(|| classes.named(first).filter(|_| unmistakable))
    };
    // `n01440764 tench, Tinca tinca`
    let first = line.split(SEPARATORS).next().unwrap_or_default();
    if let Some(class) = classes.by_wnid.get(first).filter(|_| !is_image(first)) {
        return Parsed::Label(*class);
    }
    match (classes.named(line), name_and_class(line, starts_with_class)) {
        (_, Some((name, class))) if is_image(name) => Parsed::Named(name, class),
        (Some(class), _) => Parsed::Label(class),
        (None, Some((name, class))) => Parsed::Named(name, class),
        (None, None) => {
            let label = line.split_once(SEPARATORS).filter(|(name, _)| is_image(name));
            Parsed::Unknown(label.map_or(line, |(_, label)| label.trim()))
        }
    }
}

/// What to ask of numbers that may be either.
const DEVELOPMENT_KIT: &str = "its numbers may be indices from 0, or those of ILSVRC's development kit, which counts \
                               from 1 and in another order";

/// What to say of a label that is no class.
fn unknown_label(shown: &str, number: usize, class: &str, classes: &Classes) -> Reason {
    let from_one = class.parse() == Ok(classes.count) && classes.have_wnids() && classes.take_numbers_for_indices();
    let devkit = if from_one {
        "; are these the numbers of ILSVRC's development kit, from 1 and in another order? Its map_clsloc.txt, as a \
         class map, says which class each is"
    } else {
        ""
    };
    Reason::new(format!(
        "{shown}, line {number}: `{class}` is no class of the model; expected {}{devkit}",
        classes.kinds()
    ))
}

/// A name in which numbers sort as numbers.
fn numbers_padded(name: &str) -> String {
    let mut padded = String::new();
    for run in name.as_bytes().chunk_by(|a, b| a.is_ascii_digit() && b.is_ascii_digit()) {
        let run = String::from_utf8_lossy(run);
        match run.as_bytes()[0].is_ascii_digit() {
            true => padded.push_str(&format!("{run:0>20}")),
            false => padded.push_str(&run),
        }
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::super::read_numbers;
    use super::super::samples::{digits, entries, imagenet};
    use super::*;
    use crate::error::Error;

    /// Labels by a file with that text, or the error.
    fn labels(text: &str, classes: &Classes, paths: &[&str]) -> Result<Vec<u32>, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("labels.txt");
        std::fs::write(&file, text).unwrap();
        let list = List { file: &file, zero_based: false };
        by_file("DIR".as_ref(), &entries(paths), classes, list, false).map_err(|error| error.to_string())
    }

    const THREE: [&str; 3] = ["val_1.JPEG", "val_2.JPEG", "val_3.JPEG"];

    #[test]
    fn every_form_of_a_labels_file_is_read() {
        let expected = Ok(vec![2, 0, 999]);
        for text in [
            "n01484850\nn01440764\nn15075141\n",
            "\u{feff}n01484850\r\nn01440764\r\n\r\nn15075141",
            "2\n0\n999\n",
            "n01484850 great white shark\nn01440764 tench, Tinca tinca\nn15075141 toilet tissue, bathroom tissue\n",
            "n01484850\ttiger shark\nn01440764\ttench\nn15075141\tSaluki, gazelle hound\n",
            // Kaggle's, with boxes, in its own order, of more images than there are.
            "ImageId,PredictionString\nval_3,n15075141 85 1 499 272 \nval_9,n01440764 1 2 3 4\nval_1,n01484850 0 0 9 9 \nval_2,n01440764 1 1 2 2 3 3 4 4 \n",
            // Caffe's.
            "val_1.JPEG 2\nval_2.JPEG 0\nval_3.JPEG 999\n",
            "label\n2\n0\n999\n",
            "2\r0\r999\r",
            "great white shark\ntench\ntoilet tissue\n",
            "./val_1.png,2\n./val_2.png,0\n./val_3.png,999\n",
            "val/val_1.JPEG 2\nval/val_2.JPEG 0\nval/val_3.JPEG 999\n",
            "file\tlabel\nval_1.JPEG\t2\nval_2.JPEG\ttench, Tinca tinca\nval_3.JPEG\tn15075141\n",
            "\"val_1.JPEG\",\"2\"\n\"val_2.JPEG\",\"0\"\n\"val_3.JPEG\",\"999\"\n",
        ] {
            assert_eq!(labels(text, &imagenet(), &THREE), expected, "{text}");
        }
        // Names that could be indices, and names with blanks.
        assert_eq!(labels("1.png 7\n2.png 8\n", &digits(), &["1.png", "2.png"]), Ok(vec![7, 8]));
        assert_eq!(labels("1 7\n2 8\n", &digits(), &["1.png", "2.png"]), Ok(vec![7, 8]));
        assert_eq!(labels("a b.png,7\na c.png,8\n", &digits(), &["a b.png", "a c.png"]), Ok(vec![7, 8]));
        // By file name, not by path.
        assert_eq!(labels("7\n8\n", &digits(), &["x/b.png", "y/a.png"]), Ok(vec![8, 7]));
    }

    /// Indices from 0 and the development kit's numbers from 1 look alike where neither 0 nor 1000 occurs.
    #[test]
    fn numbers_that_may_count_from_one_are_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ILSVRC2012_validation_ground_truth.txt");
        std::fs::write(&file, "490\n361\n171\n").unwrap();
        let labels = |classes: &Classes, zero_based| {
            let list = List { file: &file, zero_based };
            by_file("DIR".as_ref(), &entries(&THREE), classes, list, false)
        };
        let error = labels(&imagenet(), false).unwrap_err();
        assert!(matches!(error, Error::Dataset { problem: DatasetProblem::Numbers, .. }), "{error}");
        assert_eq!(labels(&imagenet(), true).unwrap(), [490, 361, 171]);
        // As the kit says it, and as one would write it.
        for map in [
            "n01751748 490 sea_snake\nn01440764 361 other\nn02119789 171 kit_fox\n",
            "number,class\n490,n01751748\n361,tench\n171,kit fox",
        ] {
            let map_file = dir.path().join("map_clsloc.txt");
            std::fs::write(&map_file, map).unwrap();
            let numbered = imagenet().numbered(read_numbers(&map_file, &imagenet()).unwrap());
            assert_eq!(labels(&numbered, false).unwrap(), [65, 0, 278], "{map}");
            std::fs::write(&map_file, map.replace("171", "172")).unwrap();
            let numbered = imagenet().numbered(read_numbers(&map_file, &imagenet()).unwrap());
            let error = labels(&numbered, false).unwrap_err().to_string();
            assert!(
                error.contains("line 3: `171` is no class") && error.contains("number of the class map"),
                "{error}"
            );
            std::fs::write(&map_file, map.replace("171", "490")).unwrap();
            let error = read_numbers(&map_file, &imagenet()).unwrap_err().to_string();
            assert!(error.contains("490 is there twice"), "{error}");
        }
        // Digits have no WordNet ids, so that nobody else counts them.
        std::fs::write(&file, "4\n3\n1\n").unwrap();
        assert_eq!(labels(&digits(), false).unwrap(), [4, 3, 1]);
    }

    #[test]
    fn wrong_labels_are_refused() {
        let error = |text: &str, paths: &[&str]| labels(text, &imagenet(), paths).unwrap_err();
        assert!(error("n01440764\nn01440764\n", &THREE).contains("has 2 labels, and DIR has 3 images"));
        assert!(error("n01440764\nn99999999\nn01440764\n", &THREE).contains("line 2: `n99999999` is no class"));
        assert!(error("490\n361\n1000\n", &THREE).contains("map_clsloc.txt"));
        assert!(error("val_1 0\nval_1 1\nval_2 2\n", &THREE).contains("line 2: another label for val_1"));
        assert!(error("val_1 0\nval_3 1\n", &THREE).contains("no label for 1 of 3 images: `val_2.JPEG`"));
        assert!(error("val_1 0\n7\n8\n", &THREE).contains("only one of them"));
        assert!(error("\n \n", &THREE).contains("is empty"));
        assert!(error("0\n1\n", &["a/x.png", "b/x.png"]).contains("have one name"));
        // What begins with a class is not that class; two classes are called crane.
        assert!(error("val_2 0\nval_1 chain letter\nval_3 0\n", &THREE).contains("`chain letter` is no class"));
        assert!(error("crane\nval_2.JPEG,0\nval_3.JPEG,0\n", &THREE).contains("no label for 1 of 3"));
        assert!(error("crane\ncrane\n0\n", &THREE).contains("line 1: `crane` is no class"));
        assert!(error("val_2.JPEG,0\nval_1.JPEG,crane\nval_3.JPEG,0\n", &THREE).contains("`crane` is no class"));
        // Which comes first, the second or the tenth?
        let unpadded = ["val_1.JPEG", "val_10.JPEG", "val_2.JPEG"];
        assert!(error("0\n1\n2\n", &unpadded).contains("val_10.JPEG and val_2.JPEG is not clear"));
        let named = "val_1 0\nval_2 1\nval_10 2\n";
        assert_eq!(labels(named, &imagenet(), &unpadded), Ok(vec![0, 2, 1]));
    }
}
