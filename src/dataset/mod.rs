//! Which images to evaluate on, and what each of them shows.
//!
//! Three forms are told apart by what is there:
//!
//! ```text
//! DIR/n01440764/*.JPEG          a folder per class, as torchvision's ImageFolder takes them
//! DIR/ILSVRC2012_val_*.JPEG     all in one folder, with a file of labels
//! ILSVRC2012_img_val.tar        either of them in an archive, which is read where it is
//! ```

mod labels;
mod listing;
mod real;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

pub use labels::Classes;
pub use listing::Listing;
use listing::{Container, Entry};
pub use real::RealLabels;

use crate::decode::read_image;
use crate::digest::sha256_of;

/// Images with the class of each, in the order of their paths.
pub struct Dataset {
    container: Container,
    samples: Vec<Sample>,
    /// The file that the labels were read from, where folders do not tell them.
    pub labels_from: Option<PathBuf>,
}

/// An image of a dataset.
pub struct Sample {
    entry: Entry,
    /// Index of the class that it shows.
    pub label: u32,
}

impl Sample {
    /// Below the dataset's folder, or in its archive; `/` separates the parts.
    pub fn path(&self) -> &str {
        &self.entry.path
    }
}

/// Which part of a dataset to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    First(usize),
    /// So many, each as likely as every other.
    Random {
        count: usize,
        seed: u64,
    },
}

/// What a dataset is, in few bytes: two with the same have the same images and labels.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    pub images: usize,
    /// Of all image files together.
    pub bytes: u64,
    /// SHA-256 of the lines that [`Fingerprint::line`] makes.
    pub sha256: String,
}

impl Fingerprint {
    /// What an image adds to the text that is hashed.
    pub fn line(path: &str, label: u32) -> String {
        format!("{path}\t{label}\n")
    }
}

impl Dataset {
    /// Gives each image of a listing its class: by its folder, or by a file of labels, which is
    /// looked for beside the images unless it is named.
    ///
    /// A file of labels has one line an image: a class (WordNet id, label or index) each, in the order
    /// of the file names; or a file name, a comma, tab or space, and a class, as in Kaggle's
    /// `LOC_val_solution.csv`. A class map has lines of a folder's name, and its class; or only the
    /// folder's name, the first of class 0, as timm's.
    ///
    /// # Errors
    /// If an image has no class, or none of the model's; the message names it and the way on.
    pub fn new(listing: Listing, classes: &Classes, labels: Option<&Path>, class_map: Option<&Path>) -> Result<Self> {
        let Listing { path, container, entries } = listing;
        let folders = entries.iter().filter(|entry| entry.folder().is_some()).count();
        let shown = path.display();
        let by_folder = labels.is_none() && folders > 0;
        if by_folder && folders < entries.len() {
            bail!("{shown}: {}", both_forms(&entries, folders));
        }
        ensure!(by_folder || class_map.is_none(), "{shown}: --class-map is for class folders, and there are none");
        let (labels, labels_from) = if by_folder {
            (labels::by_folder(&path, &entries, classes, class_map)?, None)
        } else {
            let file = match labels {
                Some(file) => file.to_path_buf(),
                None => labels::find_beside(&path).with_context(|| {
                    format!(
                        "{shown}: the images are not in class folders, and there is no LOC_val_solution.csv and no \
                         list of labels beside them; name one with --labels"
                    )
                })?,
            };
            (labels::by_file(&path, &entries, classes, &file)?, Some(file))
        };
        let samples = entries.into_iter().zip(labels).map(|(entry, label)| Sample { entry, label }).collect();
        Ok(Self { container, samples, labels_from })
    }

    /// For reading the images alone: what they show is not asked, and every label is 0.
    pub fn unlabelled(listing: Listing) -> Self {
        let samples = listing.entries.into_iter().map(|entry| Sample { entry, label: 0 }).collect();
        Self { container: listing.container, samples, labels_from: None }
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Keeps a part, in the same order.
    pub fn select(mut self, selection: Selection) -> Self {
        match selection {
            Selection::All => {}
            Selection::First(count) => self.samples.truncate(count),
            Selection::Random { count, seed } => {
                let all = self.samples.len();
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let chosen: BTreeSet<_> = rand::seq::index::sample(&mut rng, all, count.min(all)).into_iter().collect();
                let mut index = 0..all;
                self.samples.retain(|_| index.next().is_some_and(|index| chosen.contains(&index)));
            }
        }
        self
    }

    pub fn fingerprint(&self) -> Fingerprint {
        let text: String = self.samples.iter().map(|s| Fingerprint::line(s.path(), s.label)).collect();
        Fingerprint {
            images: self.samples.len(),
            bytes: self.samples.iter().map(|sample| sample.entry.size).sum(),
            sha256: sha256_of(text.as_bytes()),
        }
    }

    /// The image at that path, if it is one of the dataset's.
    pub fn find(&self, path: &str) -> Option<&Sample> {
        self.samples.binary_search_by(|sample| sample.path().cmp(path)).ok().map(|index| &self.samples[index])
    }

    /// The bytes of an image file.
    ///
    /// # Errors
    /// If it cannot be read. The message does not name it.
    pub fn read(&self, sample: &Sample) -> Result<Vec<u8>> {
        match &self.container {
            Container::Directory(root) => {
                let path = root.join(sample.path());
                let metadata = match path.metadata() {
                    Err(_) if path.is_symlink() => bail!("a link that leads nowhere"),
                    metadata => metadata?,
                };
                ensure!(!metadata.is_dir(), "a directory, not an image");
                ensure!(metadata.is_file(), "not a regular file");
                read_image(File::open(path)?)
            }
            Container::Tar(file) => {
                let Entry { offset, size, regular, .. } = sample.entry;
                ensure!(regular, "a directory or a link in the archive, not an image");
                let mut file = File::open(file)?;
                file.seek(SeekFrom::Start(offset))?;
                let bytes = read_image(file.take(size))?;
                ensure!(bytes.len() as u64 == size, "the archive has become shorter");
                Ok(bytes)
            }
        }
    }
}

/// What to say of images beside class folders: which of them should count?
fn both_forms(entries: &[Entry], folders: usize) -> String {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        *names.entry(entry.name()).or_default() += 1;
    }
    let twice = names.values().filter(|count| **count > 1).count();
    let twice = if twice > 0 { format!(", {twice} names in both") } else { String::new() };
    format!(
        "{} images lie beside class folders with {folders}{twice}; keep one form, or name the labels of all with --labels",
        entries.len() - folders
    )
}
