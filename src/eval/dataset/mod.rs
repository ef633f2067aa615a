//! Which images to evaluate on, and what each of them shows.
//!
//! The forms are told apart by what is there:
//!
//! ```text
//! DIR/n01440764/*.JPEG                   a folder per class, as torchvision's ImageFolder takes them
//! DIR/ILSVRC2012_val_*.JPEG              all in one folder, with a file of labels
//! ILSVRC2012_img_val.tar                 either of them in an archive, which is read where it is
//! DIR/data/validation-*.parquet          tables, as the hub has them
//! imagenet1k-validation-{00..63}.tar     WebDataset shards, or their folder
//! ```
//!
//! ```text
//! form         what a path means; braces, for names of several files
//! beside       files about a data set that are found beside it; json, what is used of those in JSON
//! folder, archive, webdataset, parquet
//!              the images of each form, and their bytes
//! listing      the images of a data set, whatever its form
//! labels       what they show
//! real         what else they show
//! ```

mod archive;
mod beside;
mod braces;
mod folder;
mod form;
mod json;
mod labels;
mod listing;
mod outputs;
mod parquet;
mod real;
mod webdataset;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use labels::Classes;
use labels::{List, OwnLabels};
use listing::Entry;
pub use listing::Listing;
pub use outputs::read_outputs;
pub use real::RealLabels;

use crate::digest::sha256_of;
use crate::error::{DatasetProblem, Error, Reason, Result};
use crate::random;

/// What the parts of a data set are called, where there is a choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The column of images of a Parquet file, `image` unless set; of WebDataset shards the extension of images, or
    /// several separated by `;`.
    pub input_key: Option<String>,
    /// The column of labels, `label` unless set, or the only one of classes; of shards the extension of the file with
    /// the class, `cls` unless set, or the field of the JSON, `label` unless set.
    pub target_key: Option<String>,
    /// The split that is taken of a folder with several, `validation` unless set.
    pub split: Option<String>,
}

/// What stands in place of a file where Git LFS has not fetched it begins so, and this is said of it.
const LFS_POINTER: &[u8] = b"version https://git-lfs";
const IS_LFS_POINTER: &str = "a pointer of Git LFS in place of the file: fetch it with `git lfs pull`";

/// What says which class each image is, where the images themselves do not.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelFiles<'a> {
    /// A file of labels.
    pub labels: Option<&'a Path>,
    /// What class each folder is, or each label of Parquet files and shards, or each number in the file of labels.
    pub class_map: Option<&'a Path>,
    /// Whether numbers in the file of labels are certainly indices, from 0.
    pub zero_based: bool,
}

/// Images with the class of each, in the order of their paths.
pub struct Dataset {
    listing: Listing,
    /// As many as there are images.
    labels: Vec<Option<u32>>,
    labels_from: Option<PathBuf>,
    note: Option<String>,
    /// See [`Self::restrict`].
    outputs: Option<Vec<u32>>,
}

/// Which part of a dataset to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// All images.
    All,
    /// So many from the beginning, in the order of their paths.
    First(usize),
    /// So many, each as likely as every other.
    Random {
        /// How many, or all if there are not so many.
        count: usize,
        /// With the same seed, the same images are chosen.
        seed: u64,
    },
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::First(count) => write!(f, "the first {count}"),
            Self::Random { count, seed } => write!(f, "{count} at random, seed {seed}"),
        }
    }
}

/// Identifies a dataset in few bytes: two datasets with the same fingerprint have the same paths and
/// labels, and as many bytes. It says nothing of the images' content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The number of images.
    pub images: usize,
    /// Of all image files together; of images in tables, what they take there.
    pub bytes: u64,
    /// SHA-256 of the lines that [`Fingerprint::line`] makes.
    pub sha256: String,
}

impl Fingerprint {
    /// What an image adds to the text that is hashed.
    pub fn line(path: &str, label: Option<u32>) -> String {
        format!("{path}\t{}\n", label.map_or("-".into(), |label| label.to_string()))
    }
}

impl Dataset {
    /// Gives each image of a listing its class: by what came with it, by its folder, or by a file of labels, which is
    /// looked for beside the images unless it is named.
    ///
    /// What comes with images of Parquet files and WebDataset shards is a number: the index of a class, or where the
    /// files name their classes and these are not the model's in their order, the class of that name.
    ///
    /// A folder is a class by its name, and not as torchvision's ImageFolder has it by its place among
    /// the folders that are there: subsets are scored against the right outputs. Where the model's classes
    /// have WordNet ids, folders that are all named by numbers, as ImageNet-V2's, are indices.
    ///
    /// A file of labels has one line an image: a class (WordNet id, label or index) each, in the order
    /// of the file names; or a file name, a comma, tab or space, and a class, as in Kaggle's
    /// `LOC_val_solution.csv`. A class map has lines of a folder's name, and its class; or only the
    /// folder's name, the first of class 0, as timm's. For a file of labels it has lines of a number and its class, or
    /// is `map_clsloc.txt` of ILSVRC's development kit, which counts from 1 in an order of its own. Without it, a list
    /// of nothing but numbers, none of them 0, is refused where classes have WordNet ids, unless it is said to be
    /// zero-based.
    ///
    /// # Errors
    /// [`Error::Dataset`] if an image has no class, or none of the model's; [`Error::Io`] if a file of labels
    /// cannot be read.
    pub fn new(listing: Listing, classes: &Classes, files: LabelFiles) -> Result<Self> {
        let LabelFiles { labels, class_map, zero_based } = files;
        let Listing { path, entries, .. } = &listing;
        if let Some(reason) = listing.unlabelled.clone().filter(|_| labels.is_none()) {
            return Err(DatasetProblem::Columns.because()(reason));
        }
        if listing.labelled && labels.is_none() {
            let names = listing.class_names.as_deref();
            let OwnLabels { labels, note } = labels::own(path, entries, names, classes, class_map)?;
            return Ok(Self { listing, labels, labels_from: None, note, outputs: None });
        }
        let folders = entries.iter().filter(|entry| entry.folder().is_some()).count();
        let shown = path.display();
        // All in one folder that is no class, with labels beside it.
        let around = entries.first().and_then(Entry::folder).filter(|around| {
            classes.of_folder(around).is_none() && entries.iter().all(|entry| entry.folder() == Some(around))
        });
        let flat = around.is_some() && class_map.is_none() && labels::find_beside(path).is_some();
        let by_folder = labels.is_none() && folders > 0 && !flat;
        if by_folder && folders < entries.len() {
            return Err(DatasetProblem::MixedForms.error(format!("{shown}: {}", both_forms(entries, folders))));
        }
        let indices = by_folder && class_map.is_none() && labels::are_indices(entries, classes);
        let note = "the folders are named by numbers, which are taken as the model's indices, as in ImageNet-V2";
        let note = indices.then(|| note.to_string());
        let (labels, labels_from) = if by_folder {
            (labels::by_folder(path, entries, classes, class_map)?, None)
        } else {
            let file = labels.map(Path::to_path_buf).or_else(|| labels::find_beside(path)).ok_or_else(|| {
                DatasetProblem::NoLabels.error(format!(
                    "{shown}: the images are not in class folders, and there is no LOC_val_solution.csv and no list \
                     of labels beside them"
                ))
            })?;
            let numbered = class_map.map(|map| labels::read_numbers(map, classes)).transpose()?;
            let numbered = numbered.map(|numbers| classes.numbered(numbers));
            let list = List { file: &file, zero_based };
            (labels::by_file(path, entries, numbered.as_ref().unwrap_or(classes), list, listing.labelled)?, Some(file))
        };
        let labels = labels.into_iter().map(Some).collect();
        Ok(Self { listing, labels, labels_from, note, outputs: None })
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// The path of an image below the dataset's folder, or in its archive; `/` separates the parts.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn path(&self, image: usize) -> &str {
        self.listing.path(image)
    }

    /// Index of the class that an image shows; `None` if there is no label among those that came with the images.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn label(&self, image: usize) -> Option<u32> {
        self.labels[image]
    }

    /// The images, without their labels.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The file that the labels were read from; `None` if the folders' names told them, or they came with the images.
    pub fn labels_from(&self) -> Option<&Path> {
        self.labels_from.as_deref()
    }

    /// What a person should know of how the labels were understood.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Keeps a part, in the same order.
    #[must_use]
    pub fn select(mut self, selection: Selection) -> Self {
        match selection {
            Selection::All => {}
            Selection::First(count) => {
                self.listing.entries.truncate(count);
                self.labels.truncate(count);
            }
            Selection::Random { count, seed } => {
                let all = self.images();
                let mut rng = random::stream(seed, random::SAMPLE);
                let chosen: BTreeSet<_> = rand::seq::index::sample(&mut rng, all, count.min(all)).into_iter().collect();
                let mut index = 0..all;
                self.listing.entries.retain(|_| index.next().is_some_and(|index| chosen.contains(&index)));
                self.labels = chosen.into_iter().map(|index| self.labels[index]).collect();
            }
        }
        self
    }

    /// Identifies the images and their labels.
    pub fn fingerprint(&self) -> Fingerprint {
        let images = self.listing.entries.iter().zip(&self.labels);
        let text: String = images.map(|(entry, label)| Fingerprint::line(&entry.path, *label)).collect();
        Fingerprint {
            images: self.images(),
            bytes: self.listing.entries.iter().map(|entry| entry.size).sum(),
            sha256: sha256_of(text.as_bytes()),
        }
    }
}

/// What to say of images both in class folders and beside them.
fn both_forms(entries: &[Entry], folders: usize) -> String {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        *names.entry(entry.name()).or_default() += 1;
    }
    let twice = names.values().filter(|count| **count > 1).count();
    let twice = if twice > 0 { format!(", {twice} names in both") } else { String::new() };
    format!("there are images both in class folders ({folders}) and beside them ({}{twice})", entries.len() - folders)
}

impl DatasetProblem {
    /// This problem in words.
    pub(crate) fn error(self, words: String) -> Error {
        Error::Dataset { problem: self, reason: Reason::new(words) }
    }

    /// Makes an error of this problem, for `map_err`.
    pub(crate) fn because(self) -> impl FnOnce(Reason) -> Error {
        move |reason| Error::Dataset { problem: self, reason }
    }
}
