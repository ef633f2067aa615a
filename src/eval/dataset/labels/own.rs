//! The class of each image by what its files say: a number, and perhaps a name for each number.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::class_map::read_class_map;
use super::classes::Classes;
use super::first_of;
use crate::error::{DatasetProblem, Error, Result};
use crate::eval::dataset::listing::Entry;

/// The label of an image that has none.
const UNKNOWN: i32 = -1;

/// What images show, and how that is known.
pub struct OwnLabels {
    /// The class of each image, of which some may have no label.
    pub labels: Vec<Option<u32>>,
    /// What a person should know of it.
    pub note: Option<String>,
}

/// The class of each image, by the label that came with it.
///
/// Without names, a label is the index of a class. With names, it is too where they are in the model's order, as far
/// as they can be told; else it is the class of its name. A class map, if there is one, says which name, or number, is
/// which class.
pub fn own(
    root: &Path,
    entries: &[Entry],
    names: Option<&[String]>,
    classes: &Classes,
    class_map: Option<&Path>,
) -> Result<OwnLabels> {
    let used = used_labels(root, entries, names)?;
    let name_of = |label: i32| names.map_or_else(|| label.to_string(), |names| names[label as usize].clone());
    let used_names: Vec<String> = used.iter().map(|label| name_of(*label)).collect();
    let mut note = None;
    let of_used: Vec<Option<u32>> = match (class_map, names) {
        (Some(file), _) => {
            let map = read_class_map(file, classes, &used_names.iter().map(String::as_str).collect())?;
            let number = |label: &i32| map.get(&label.to_string());
            used.iter().zip(&used_names).map(|(label, name)| map.get(name).or_else(|| number(label)).copied()).collect()
        }
        (None, Some(names)) => {
            let (of_names, said) = by_names(names, classes);
            note = said;
            used.iter().map(|label| of_names[*label as usize]).collect()
        }
        (None, None) => {
            let index = |label: i32| u32::try_from(label).ok().filter(|index| (*index as usize) < classes.count);
            let last = used.last().copied().unwrap_or_default();
            // As many as a subset would have that counts its own classes.
            if used.len() > 1 && used.len() < classes.count && last as usize == used.len() - 1 {
                note = Some(format!(
                    "its labels, 0 to {last}, are taken as the model's first {} classes; if they count others, \
                     --class-map says which",
                    used.len()
                ));
            }
            used.iter().map(|label| index(*label)).collect()
        }
    };
    let unknown: Vec<&str> =
        used_names.iter().zip(&of_used).filter(|(_, class)| class.is_none()).map(|(name, _)| &**name).collect();
    if !unknown.is_empty() {
        return Err(unknown_classes(root, &unknown, names.is_some(), classes, class_map));
    }
    let class_of: HashMap<i32, u32> = used.into_iter().zip(of_used.into_iter().flatten()).collect();
    let labels = entries.iter().map(|entry| class_of.get(&entry.label?).copied()).collect();
    Ok(OwnLabels { labels, note })
}

/// The labels that images have, if any has one and each can be meant. `datasets` writes -1 where there is none.
fn used_labels(root: &Path, entries: &[Entry], names: Option<&[String]>) -> Result<BTreeSet<i32>> {
    let shown = root.display();
    let given = |entry: &Entry| entry.label.filter(|label| *label != UNKNOWN);
    let used: BTreeSet<i32> = entries.iter().filter_map(given).collect();
    if used.is_empty() {
        let why = match entries.iter().any(|entry| entry.label.is_some()) {
            true => "every label is -1: what the images of this split show is kept secret",
            false => "no image has a label",
        };
        return Err(DatasetProblem::NoLabels.error(format!("{shown}: {why}")));
    }
    let last = names.map_or(i32::MAX, |names| names.len() as i32 - 1);
    let odd = |entry: &&Entry| given(entry).is_some_and(|label| !(0..=last).contains(&label));
    if let Some(odd) = entries.iter().find(odd) {
        let (path, label) = (&odd.path, odd.label.unwrap_or_default());
        let range = match names {
            Some(_) => format!("and the classes of this set are 0 to {last}"),
            None => "which is no class index".into(),
        };
        return Err(DatasetProblem::OwnLabels.error(format!("{shown}: {path} has the label {label}, {range}")));
    }
    Ok(used)
}

/// Of a set with as many classes as the model, so many in a hundred of the names that the model knows may be those of
/// other classes, and the order still be the same: `sunglasses` is the name of two classes, or of either, depending on
/// whom one asks. Of WordNet ids and numbers, none may.
const MISNAMED: usize = 5;

/// The class of each name, and what to say of how it was found.
fn by_names(names: &[String], classes: &Classes) -> (Vec<Option<u32>>, Option<String>) {
    // Of synonyms, the first will do.
    let first = |name: &str| name.split_once(',').and_then(|(first, _)| classes.named(first));
    let found: Vec<Option<u32>> = names.iter().map(|name| classes.named(name).or_else(|| first(name))).collect();
    let others = || (0..).zip(&found).filter(|(index, class)| class.is_some_and(|class| class != *index));
    let exact = |name: &String| classes.by_wnid.contains_key(name) || name.bytes().all(|byte| byte.is_ascii_digit());
    let other_ids = others().any(|(index, _)| exact(&names[index as usize]));
    let known = found.iter().flatten().count();
    if names.len() != classes.count || other_ids || others().count() * 100 > MISNAMED * known {
        let note = "its labels are not the model's; each image is taken for the class that has the name of its label";
        return (found, Some(note.into()));
    }
    let others: Vec<&str> = others().map(|(index, _)| &*names[index as usize]).collect();
    let note = if found.iter().all(Option::is_none) {
        Some("its classes have names that are none of the model's; they are taken to be in the same order".into())
    } else {
        let some = first_of(&others);
        (!others.is_empty())
            .then(|| format!("its classes are taken to be in the model's order, but for the names {some}"))
    };
    ((0..names.len() as u32).map(Some).collect(), note)
}

/// What to say of labels that are no classes of the model.
fn unknown_classes(
    root: &Path,
    unknown: &[&str],
    are_names: bool,
    classes: &Classes,
    class_map: Option<&Path>,
) -> Error {
    let (shown, unknown) = (root.display(), first_of(unknown));
    match (class_map, are_names) {
        (Some(file), _) => {
            DatasetProblem::Labels.error(format!("{shown}: {} has no line for the classes {unknown}", file.display()))
        }
        (None, true) => {
            DatasetProblem::OwnLabels.error(format!("{shown}: classes whose names are none of the model's: {unknown}"))
        }
        (None, false) => DatasetProblem::OwnLabels.error(format!(
            "{shown}: labels that are no classes of the model, which are 0 to {}: {unknown}",
            classes.count.saturating_sub(1)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{digits, entries, imagenet};
    use super::*;

    fn labels(
        given: &[i32],
        names: Option<&[&str]>,
        classes: &Classes,
        map: Option<&str>,
    ) -> Result<OwnLabels, String> {
        let paths: Vec<String> = (0..given.len()).map(|index| format!("x.parquet/{index}")).collect();
        let mut entries = entries(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        entries
            .iter_mut()
            .zip(given)
            .for_each(|(entry, label)| entry.label = Some(*label).filter(|label| *label != -9));
        let names: Option<Vec<String>> = names.map(|names| names.iter().map(|name| name.to_string()).collect());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("map.txt");
        std::fs::write(&file, map.unwrap_or_default()).unwrap();
        let map = map.map(|_| file.as_path());
        own("SET".as_ref(), &entries, names.as_deref(), classes, map).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_are_indices_or_names() {
        let of = |given: &[i32], names: Option<&[&str]>, classes: &Classes, map| {
            let OwnLabels { labels, note } = labels(given, names, classes, map).unwrap();
            (labels.into_iter().flatten().collect::<Vec<_>>(), note.is_some())
        };
        assert_eq!(of(&[0, 999], None, &imagenet(), None), (vec![0, 999], false));
        // Of some images nothing is known.
        let labels = labels(&[5, -1, -9, 999], None, &imagenet(), None).unwrap().labels;
        assert_eq!(labels, [Some(5), None, None, Some(999)]);
        let digit_names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        assert_eq!(of(&[3, 7], Some(&digit_names), &digits(), None), (vec![3, 7], false));
        // Folders of indices, as `datasets` sorts their names.
        assert_eq!(of(&[2, 3], Some(&["0", "1", "10", "100"]), &imagenet(), None), (vec![10, 100], true));
        // A subset such as Imagenette, by WordNet ids or by names, with synonyms or without.
        let few = ["n02979186", "tench", "English springer, English springer spaniel"];
        assert_eq!(of(&[2, 0, 1], Some(&few), &imagenet(), None), (vec![217, 482, 0], true));
        // Another order, and names that say nothing.
        let turned = ["9", "8", "7", "6", "5", "4", "3", "2", "1", "0"];
        assert_eq!(of(&[0, 2], Some(&turned), &digits(), None), (vec![9, 7], true));
        let strange = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        assert_eq!(of(&[0, 2], Some(&strange), &digits(), None), (vec![0, 2], true));
        // A class map of names, or of numbers.
        assert_eq!(
            of(&[1, 0], Some(&["cat", "dog"]), &imagenet(), Some("dog 207\ncat n02123045")),
            (vec![207, 281], false)
        );
        assert_eq!(of(&[5, 4], None, &imagenet(), Some("4 281\n5 207")), (vec![207, 281], false));
    }

    #[test]
    fn wrong_labels_are_refused() {
        let error = |given: &[i32], names: Option<&[&str]>| labels(given, names, &imagenet(), None).err().unwrap();
        assert!(
            error(&[0, 1000], None)
                .contains("SET: labels that are no classes of the model, which are 0 to 999: `1000`")
        );
        assert!(error(&[0, -2], None).contains("x.parquet/1 has the label -2"));
        assert!(error(&[-1, -1], None).contains("kept secret"));
        assert!(error(&[-9, -9], None).contains("no image has a label"));
        assert!(
            error(&[0, 2], Some(&["tench", "goldfish"])).contains("label 2, and the classes of this set are 0 to 1")
        );
        assert!(error(&[0, 1], Some(&["tench", "my dog"])).contains("none of the model's: `my dog`"));
        let two = labels(&[0, 1], Some(&["cat", "dog"]), &imagenet(), Some("cat 281")).err().unwrap();
        assert!(two.contains("no line for the classes `dog`"));
    }
}
