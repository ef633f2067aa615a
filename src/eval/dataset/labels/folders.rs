//! The class of each image by the folder that it is in.

use std::collections::BTreeSet;
use std::path::Path;

use super::class_map::read_class_map;
use super::classes::Classes;
use super::first_of;
use crate::error::{DatasetProblem, Error, Result};
use crate::eval::corruptions::CORRUPTIONS;
use crate::eval::dataset::listing::Entry;

/// The class of each image, by the first folder of its path. A class map, if there is one, says which
/// folder is which class.
pub fn by_folder(root: &Path, entries: &[Entry], classes: &Classes, class_map: Option<&Path>) -> Result<Vec<u32>> {
    let folders: BTreeSet<&str> = entries.iter().filter_map(Entry::folder).collect();
    let map = class_map.map(|file| read_class_map(file, classes, &folders)).transpose()?;
    let by_index = are_indices(entries, classes);
    let of_folder = |folder: &str| match &map {
        Some(map) => map.get(folder).copied(),
        None if by_index => classes.named(folder),
        None => classes.of_folder(folder),
    };
    let unknown: Vec<&str> = folders.iter().copied().filter(|folder| of_folder(folder).is_none()).collect();
    if !unknown.is_empty() {
        return Err(unknown_folders(root, entries, classes, class_map, &unknown));
    }
    Ok(entries.iter().filter_map(|entry| of_folder(entry.folder()?)).collect())
}

/// Whether the folders are named by index although the model's classes have WordNet ids, as ImageNet-V2's are: all
/// of them by a number, without zeros before it, with the images in them and nothing between.
pub fn are_indices(entries: &[Entry], classes: &Classes) -> bool {
    let number = |entry: &Entry| entry.folder().is_some_and(is_number) && entry.path.matches('/').count() == 1;
    classes.have_wnids() && entries.iter().all(number)
}

/// Whether a name is a number as a program writes it.
fn is_number(name: &str) -> bool {
    name.parse().is_ok_and(|index: u32| index.to_string() == name)
}

/// What to say of folders that are no classes.
fn unknown_folders(
    root: &Path,
    entries: &[Entry],
    classes: &Classes,
    class_map: Option<&Path>,
    unknown: &[&str],
) -> Error {
    // `ImageNet/val/n01440764/...`: one folder too high.
    let is_class = |folder: &str| classes.of_folder(folder).is_some() || (classes.have_wnids() && is_number(folder));
    let below = |entry: &&Entry| {
        let mut parts = entry.path.split('/').skip(1);
        parts.next().is_some_and(is_class) && parts.next().is_some()
    };
    let parents: BTreeSet<&str> = entries.iter().filter(below).filter_map(Entry::folder).collect();
    let parent = parents.iter().find(|folder| folder.contains("val")).or_else(|| parents.first());
    let (shown, folders) = (root.display(), first_of(unknown));
    match (class_map, parent) {
        (Some(file), _) => {
            DatasetProblem::Labels.error(format!("{shown}: {} has no line for the folders {folders}", file.display()))
        }
        (None, Some(parent)) => DatasetProblem::FolderAbove.error(format!(
            "{shown}: folders that are no classes of the model: {folders}; did you mean {}?",
            root.join(parent).display()
        )),
        // In a directory they would have been found.
        (None, None) if CORRUPTIONS.iter().any(|corruption| unknown.contains(&corruption.name)) => {
            let words = "corruptions of ImageNet-C, and not classes";
            DatasetProblem::Archive
                .error(format!("{shown}: {words}: {folders}; unpack the archive and name its folder"))
        }
        (None, None) => {
            let kind = match (classes.have_wnids(), are_indices(entries, classes)) {
                (false, _) => "labels or indices",
                (true, false) => "WordNet ids",
                (true, true) => "indices",
            };
            DatasetProblem::UnknownFolders
                .error(format!("{shown}: folders that are not named by {kind} of the model's classes: {folders}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{digits, entries, imagenet};
    use super::*;

    #[test]
    fn folders_are_classes_by_wordnet_id_label_or_index() {
        let paths = ["n01484850/a.JPEG", "n15075141/b.JPEG"];
        let by = |classes: &Classes, paths: &[&str], map: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("map.txt");
            std::fs::write(&file, map.unwrap_or_default()).unwrap();
            let file = map.map(|_| file.as_path());
            by_folder("DIR".as_ref(), &entries(paths), classes, file).map_err(|error| error.to_string())
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
        // ImageNet-V2's are indices, if all are.
        assert_eq!(by(&imagenet(), &["0/a.jpg", "10/b.jpg", "999/c.jpg"], None), Ok(vec![0, 10, 999]));
        assert!(
            error(&["0/a.jpg", "1000/b.jpg"], None).contains("not named by indices of the model's classes: `1000`")
        );
        assert!(
            error(&["0/a.jpg", "n01440764/b.jpg"], None)
                .contains("not named by WordNet ids of the model's classes: `0`")
        );
        assert!(error(&["000/a.jpg", "001/b.jpg"], None).contains("WordNet ids of the model's classes: `000`, `001`"));
        assert!(error(&["+1/a.jpg"], None).contains("`+1`"));
        let weather = error(&["fog/1/n01440764/a.jpg", "snow/1/n01440764/a.jpg"], None);
        assert!(weather.contains("corruptions of ImageNet-C, and not classes: `fog`, `snow`; unpack"), "{weather}");
        // A severity of ImageNet-C is no class, nor is the folder that is around ImageNet-V2's.
        let one = Path::new("DIR").join("1").display().to_string();
        assert!(error(&["1/n01440764/a.jpg", "2/n01440764/a.jpg"], None).contains(&format!("did you mean {one}?")));
        let val = Path::new("DIR").join("v2-val").display().to_string();
        assert!(error(&["v2-val/0/a.jpg", "v2-val/1/a.jpg"], None).contains(&format!("did you mean {val}?")));
        let parent = Path::new("DIR").join("val");
        let parent = format!("did you mean {}?", parent.display());
        assert!(error(&["train/n01440764/a.JPEG", "val/n01440764/a.JPEG"], None).contains(&parent));
        assert!(error(&cats, Some("cats n02123045\n")).contains("has no line for the folders `my dogs`"));
        assert!(error(&cats, Some("cats n02123045\nmy dogs n99\n")).contains("line 2: no class"));
        assert!(error(&cats, Some("cats\ncats\n")).contains("line 2: `cats` is there twice"));
        assert!(error(&paths, Some("n01484850\nn15075141\n")).contains("line 1: `n01484850` is class 2"));
    }
}
