//! From the names of folders and from files of labels to class indices.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::listing::Entry;
use crate::weights::registry::Label;

/// The names by which a model's classes are known.
pub struct Classes {
    count: usize,
    by_wnid: HashMap<String, u32>,
    /// `None` for a text that several classes have: ImageNet has two cranes.
    by_text: HashMap<String, Option<u32>>,
}

impl Classes {
    /// The classes with these labels, in order.
    pub fn new(labels: &[Label]) -> Self {
        let mut classes = Self { count: labels.len(), by_wnid: HashMap::new(), by_text: HashMap::new() };
        for (index, label) in (0..).zip(labels) {
            if let Some(wnid) = &label.wnid {
                classes.by_wnid.insert(wnid.clone(), index);
            }
            classes.by_text.entry(label.text.clone()).and_modify(|known| *known = None).or_insert(Some(index));
        }
        // The first of several synonyms will do, unless it is also what another class is called.
        let mut short: HashMap<&str, Option<u32>> = HashMap::new();
        for (index, label) in (0..).zip(labels) {
            if let Some((first, _)) = label.text.split_once(',') {
                short.entry(first).and_modify(|known| *known = None).or_insert(Some(index));
            }
        }
        for (first, index) in short {
            classes.by_text.entry(first.to_string()).or_insert(index);
        }
        classes
    }

    /// The class that a folder is named after: by WordNet id where the model's classes have one, else
    /// by label or by index.
    pub fn of_folder(&self, name: &str) -> Option<u32> {
        if self.by_wnid.is_empty() { self.named(name) } else { self.by_wnid.get(name).copied() }
    }

    /// The class with that WordNet id, label or index.
    pub fn named(&self, name: &str) -> Option<u32> {
        let index = || name.parse().ok().filter(|index| (*index as usize) < self.count);
        self.by_wnid.get(name).copied().or_else(|| self.by_text.get(name).copied().flatten()).or_else(index)
    }

    /// What a class may be called.
    fn kinds(&self) -> String {
        let last = self.count.saturating_sub(1);
        match self.by_wnid.is_empty() {
            true => format!("a label of the model or an index from 0 to {last}"),
            false => format!("a WordNet id of the model or an index from 0 to {last}"),
        }
    }
}

/// The class of each image, by the first folder of its path.
pub(super) fn by_folder(
    root: &Path,
    entries: &[Entry],
    classes: &Classes,
    class_map: Option<&Path>,
) -> Result<Vec<u32>> {
    let folders: BTreeSet<&str> = entries.iter().filter_map(Entry::folder).collect();
    let map = class_map.map(|file| read_class_map(file, classes, &folders)).transpose()?;
    let of_folder = |folder: &str| match &map {
        Some(map) => map.get(folder).copied(),
        None => classes.of_folder(folder),
    };
    let unknown: Vec<&str> = folders.iter().copied().filter(|folder| of_folder(folder).is_none()).collect();
    if !unknown.is_empty() {
        bail!("{}: {}", root.display(), unknown_folders(root, entries, classes, class_map, &unknown));
    }
    Ok(entries.iter().filter_map(|entry| of_folder(entry.folder()?)).collect())
}

fn unknown_folders(
    root: &Path,
    entries: &[Entry],
    classes: &Classes,
    class_map: Option<&Path>,
    unknown: &[&str],
) -> String {
    // `ImageNet/val/n01440764/...`: one folder too high.
    let below = |entry: &&Entry| {
        let mut parts = entry.path.split('/').skip(1);
        parts.next().and_then(|folder| classes.of_folder(folder)).is_some() && parts.next().is_some()
    };
    let parents: BTreeSet<&str> = entries.iter().filter(below).filter_map(Entry::folder).collect();
    let parent = parents.iter().find(|folder| folder.contains("val")).or_else(|| parents.first());
    let folders = listed(unknown);
    match (class_map, parent) {
        (Some(file), _) => format!("{} has no line for the folders {folders}", file.display()),
        (None, Some(parent)) => {
            format!(
                "folders that are no classes of the model: {folders}; did you mean {}?",
                root.join(parent).display()
            )
        }
        (None, None) => {
            let kind = if classes.by_wnid.is_empty() { "labels or indices" } else { "WordNet ids" };
            format!(
                "folders that are not named by {kind} of the model's classes: {folders}; say which classes they are \
                 with --class-map, move them away, or name the label of each image with --labels"
            )
        }
    }
}

/// The first few of many names.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let first = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{first} and {} more", names.len() - SHOWN) } else { first }
}

/// Reads lines of a folder's name and its class; or of only the folder's name, the first of class 0,
/// as in timm's class maps.
fn read_class_map(file: &Path, classes: &Classes, folders: &BTreeSet<&str>) -> Result<HashMap<String, u32>> {
    let mut lines = read_lines(file)?;
    let named = |line: &Line| split(&line.text, |class| classes.named(class)).map(|(f, class)| (f.to_string(), class));
    let has_classes = lines.iter().any(|line| named(line).is_some() && !folders.contains(line.text.as_str()));
    let names_folder = |line: &Line| line.text.split_once(SEPARATORS).is_some_and(|(name, _)| folders.contains(name));
    if has_classes && named(&lines[0]).is_none() && !names_folder(&lines[0]) {
        // A header.
        lines.remove(0);
    }
    let mut map = HashMap::new();
    for (index, line) in (0..).zip(&lines) {
        let at = || format!("{}, line {}", file.display(), line.number);
        let (folder, class) = if has_classes {
            named(line).with_context(|| {
                format!("{}: no class of the model in `{}`; expected {}", at(), line.text, classes.kinds())
            })?
        } else {
            let (folder, count) = (line.text.clone(), classes.count);
            ensure!((index as usize) < count, "{}: more folders than the model has classes ({count})", at());
            if let Some(class) = classes.by_wnid.get(&folder).filter(|class| **class != index) {
                bail!("{}: `{folder}` is class {class} of the model, and not {index}; write `{folder} {class}`", at());
            }
            (folder, index)
        };
        if let Some(folder) = map.insert(folder.clone(), class).map(|_| folder) {
            bail!("{}: `{folder}` is there twice", at());
        }
    }
    Ok(map)
}

/// The file of labels that lies beside the images, if there is one.
pub(super) fn find_beside(images: &Path) -> Option<PathBuf> {
    const LISTS: [&str; 6] = [
        "labels.txt",
        "labels.csv",
        "val_labels.txt",
        "val.txt",
        "synset_labels.txt",
        "imagenet_2012_validation_synset_labels.txt",
    ];
    let images = images.canonicalize().ok()?;
    // In Kaggle's archive the images are in `ILSVRC/Data/CLS-LOC/val`, the solution is at the top.
    let files = images.ancestors().take(5).enumerate().flat_map(|(up, directory)| {
        let lists = LISTS.iter().filter(move |_| up < 2);
        std::iter::once(&"LOC_val_solution.csv").chain(lists).map(|name| directory.join(name))
    });
    files.into_iter().find(|file| file.is_file())
}

/// The class of each image, by a file of labels.
pub(super) fn by_file(root: &Path, entries: &[Entry], classes: &Classes, file: &Path) -> Result<Vec<u32>> {
    let shown = file.display();
    // In the order of their names, whatever folders they are in.
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|index| entries[*index].name());
    if let Some(pair) = order.windows(2).find(|pair| entries[pair[0]].name() == entries[pair[1]].name()) {
        let [one, other] = [&entries[pair[0]].path, &entries[pair[1]].path];
        bail!("{}: {one} and {other} have one name, and {shown} goes by names", root.display());
    }
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for &index in &order {
        let name = entries[index].name();
        by_name.entry(name.rsplit_once('.').map_or(name, |(stem, _)| stem)).or_insert(index);
    }
    by_name.extend(order.iter().map(|index| (entries[*index].name(), *index)));
    // Caffe's lists have `val/ILSVRC2012_val_00000001.JPEG`.
    let image = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        let stem = || by_name.get(name.rsplit_once('.')?.0);
        by_name.get(name).or_else(stem).copied()
    };

    let mut listed_labels = Vec::new();
    let mut named_labels: HashMap<usize, u32> = HashMap::new();
    // Names of images that are not there, and what may be a header.
    let mut strangers: Vec<String> = Vec::new();
    let mut header = None;
    for (index, Line { number, text }) in read_lines(file)?.into_iter().enumerate() {
        match parse_label(&text, classes, |name| image(name).is_some()) {
            Parsed::Label(class) => listed_labels.push(class),
            Parsed::Named(name, class) => match image(name) {
                Some(image) => {
                    if named_labels.insert(image, class).is_some_and(|before| before != class) {
                        bail!("{shown}, line {number}: another label for {name} than before");
                    }
                }
                // Kaggle's file has all 50,000, also where only some images are there.
                None => strangers.push(name.to_string()),
            },
            Parsed::Unknown(class) => {
                let error = unknown_label(file, number, class, classes);
                if index > 0 {
                    return Err(header.unwrap_or(error));
                }
                header = Some(error);
            }
        }
    }
    let images = entries.len();
    if !listed_labels.is_empty() {
        let labels = listed_labels.len();
        ensure!(
            named_labels.is_empty() && strangers.is_empty(),
            "{shown}: some lines have a file name and a label, and others have only one of them"
        );
        if let Some(error) = header.filter(|_| labels != images) {
            return Err(error);
        }
        ensure!(labels == images, "{shown} has {labels} labels, and {} has {images} images", root.display());
        if let Some(pair) = order.windows(2).map(|pair| pair.iter().map(|i| entries[*i].name())).find(|pair| {
            let mut names = pair.clone().map(numbers_padded);
            names.next() > names.next()
        }) {
            bail!(
                "{shown} has labels without file names, and the order of {} is not clear; write `name label` lines",
                pair.collect::<Vec<_>>().join(" and ")
            );
        }
        let mut by_entry = vec![0; images];
        for (index, label) in order.into_iter().zip(listed_labels) {
            by_entry[index] = label;
        }
        return Ok(by_entry);
    }
    let labels = (0..images).map(|index| named_labels.get(&index).copied()).collect::<Option<Vec<_>>>();
    labels.with_context(|| {
        let without: Vec<&str> =
            (0..images).filter(|index| !named_labels.contains_key(index)).map(|index| &*entries[index].path).collect();
        let other =
            strangers.first().map_or(String::new(), |name| format!("; it has one for `{name}`, which is not there"));
        format!("{shown} has no label for {} of {images} images: {}{other}", without.len(), listed(&without))
    })
}

enum Parsed<'a> {
    Label(u32),
    Named(&'a str, u32),
    /// No class of the model.
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
    match (classes.named(line), split(line, starts_with_class)) {
        (_, Some((name, class))) if is_image(name) => Parsed::Named(name, class),
        (Some(class), _) => Parsed::Label(class),
        (None, Some((name, class))) => Parsed::Named(name, class),
        (None, None) => {
            let label = line.split_once(SEPARATORS).filter(|(name, _)| is_image(name));
            Parsed::Unknown(label.map_or(line, |(_, label)| label.trim()))
        }
    }
}

fn unknown_label(file: &Path, number: usize, class: &str, classes: &Classes) -> anyhow::Error {
    let shown = file.display();
    let devkit = if class.parse() == Ok(classes.count) && !classes.by_wnid.is_empty() {
        "; are these the numbers from 1 of the ILSVRC development kit? They are in another order: use WordNet ids"
    } else {
        ""
    };
    anyhow!("{shown}, line {number}: `{class}` is no class of the model; expected {}{devkit}", classes.kinds())
}

/// A line of a text file, without blanks around it.
struct Line {
    /// From 1.
    number: usize,
    text: String,
}

/// The lines of a text file that are not blank.
fn read_lines(file: &Path) -> Result<Vec<Line>> {
    let shown = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("{shown} is not a text file in UTF-8; save it as one"))?;
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<Line> = (1..)
        .zip(text.trim_start_matches('\u{feff}').lines())
        .map(|(number, text)| Line { number, text: text.trim().to_string() })
        .filter(|line| !line.text.is_empty())
        .collect();
    ensure!(!lines.is_empty(), "{shown} is empty");
    Ok(lines)
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

const SEPARATORS: [char; 3] = ['\t', ',', ' '];

/// The name and the class of a line: what stands before and after the first separator that a class
/// follows.
fn split(line: &str, class: impl Fn(&str) -> Option<u32>) -> Option<(&str, u32)> {
    SEPARATORS.into_iter().find_map(|separator| {
        let (name, rest) = line.split_once(separator)?;
        let [name, rest] = [name, rest].map(|text| text.trim().trim_matches('"'));
        (!name.is_empty()).then_some((name, class(rest)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imagenet() -> Classes {
        Classes::new(&crate::weights::registry::MODELS[0].labels())
    }

    fn digits() -> Classes {
        Classes::new(&crate::weights::registry::find("qlnet-digits").unwrap().labels())
    }

    fn entries(paths: &[&str]) -> Vec<Entry> {
        paths.iter().map(|path| Entry { path: (*path).into(), size: 0, offset: 0, regular: true }).collect()
    }

    /// Labels by a file with that text, or the error.
    fn labels(text: &str, classes: &Classes, paths: &[&str]) -> Result<Vec<u32>, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("labels.txt");
        std::fs::write(&file, text).unwrap();
        by_file("DIR".as_ref(), &entries(paths), classes, &file).map_err(|error| format!("{error:#}"))
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

    #[test]
    fn wrong_labels_are_refused() {
        let error = |text: &str, paths: &[&str]| labels(text, &imagenet(), paths).unwrap_err();
        assert!(error("n01440764\nn01440764\n", &THREE).contains("has 2 labels, and DIR has 3 images"));
        assert!(error("n01440764\nn99999999\nn01440764\n", &THREE).contains("line 2: `n99999999` is no class"));
        assert!(error("490\n361\n1000\n", &THREE).contains("development kit"));
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

    #[test]
    fn folders_are_classes_by_wordnet_id_label_or_index() {
        let paths = ["n01484850/a.JPEG", "n15075141/b.JPEG"];
        let by = |classes: &Classes, paths: &[&str], map: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("map.txt");
            std::fs::write(&file, map.unwrap_or_default()).unwrap();
            let file = map.map(|_| file.as_path());
            by_folder("DIR".as_ref(), &entries(paths), classes, file).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(by(&imagenet(), &paths, None), Ok(vec![2, 999]));
        assert_eq!(by(&digits(), &["3/a.png", "07/b.png"], None), Ok(vec![3, 7]));

        let cats = ["cats/a.jpg", "my dogs/b.jpg"];
        for map in
            ["cats n02123045\nmy dogs\t207\n", "my dogs,n02099601\ncats,281", "cats tabby, tabby cat\nmy dogs,207"]
        {
            assert_eq!(by(&imagenet(), &cats, Some(map)), Ok(vec![281, 207]), "{map}");
        }
        assert_eq!(by(&digits(), &cats, Some("my dogs\ncats\n")), Ok(vec![1, 0]));
        assert_eq!(by(&digits(), &["class 1/a.jpg", "class 0/b.jpg"], Some("class 1\nclass 0\n")), Ok(vec![0, 1]));
        assert_eq!(by(&digits(), &cats, Some("folder,class\ncats,3\nmy dogs,4\n")), Ok(vec![3, 4]));

        let error = |paths: &[&str], map: Option<&str>| by(&imagenet(), paths, map).unwrap_err();
        assert!(error(&cats, None).contains("not named by WordNet ids of the model's classes: `cats`, `my dogs`"));
        assert!(error(&["0/a.jpg"], None).contains("`0`"));
        assert!(error(&["train/n01440764/a.JPEG", "val/n01440764/a.JPEG"], None).contains("did you mean DIR/val?"));
        assert!(error(&cats, Some("cats n02123045\n")).contains("has no line for the folders `my dogs`"));
        assert!(error(&cats, Some("cats n02123045\nmy dogs n99\n")).contains("line 2: no class"));
        assert!(error(&cats, Some("cats\ncats\n")).contains("line 2: `cats` is there twice"));
        assert!(error(&paths, Some("n01484850\nn15075141\n")).contains("line 1: `n01484850` is class 2"));
    }
}
