//! The images of a data set, and their bytes.

use std::path::{Path, PathBuf};

use super::form::{self, Form};
use super::parquet::{Listed, Table};
use super::{Layout, archive, folder, webdataset};
use crate::error::{Context, DatasetProblem, Reason, Result, ensure};

/// The images of a folder, of archives or of tables, in the order of their paths. Where the files say what the images
/// show, it is read with them; else nothing is known of that yet.
pub struct Listing {
    pub(super) path: PathBuf,
    source: Source,
    /// In the order of their paths, each path once.
    pub(super) entries: Vec<Entry>,
    /// Whether the files say what the images show.
    pub(super) labelled: bool,
    /// The names of the classes, by the labels, where the files tell them.
    pub(super) class_names: Option<Vec<String>>,
    /// Why they say nothing of that, although they could.
    pub(super) unlabelled: Option<Reason>,
    note: Option<String>,
}

/// Where the bytes of images are.
enum Source {
    Folder(PathBuf),
    Archives(Vec<PathBuf>),
    Table(Box<Table>),
}

/// An image that was found.
pub(super) struct Entry {
    /// Below the folder, or in the archive, or the name of a file and what is in it; `/` separates the parts.
    pub path: Box<str>,
    /// In bytes; 0 if that cannot be found out.
    pub size: u64,
    /// Where its bytes begin in the archive, or its row in the table.
    pub place: u64,
    /// Number of the archive.
    pub file: u32,
    pub kind: Kind,
    /// What it shows, if the files say so: a class by its number there.
    pub label: Option<i32>,
}

/// What has the name of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file. In a folder, that is found out when it is read.
    File,
    /// Something else in an archive.
    NoFile,
    /// A sample without an image.
    Missing,
}

impl Entry {
    /// The file's name, without folders.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The first folder of its path.
    pub fn folder(&self) -> Option<&str> {
        self.path.split_once('/').map(|(folder, _)| folder)
    }
}

impl Listing {
    /// Finds the images that a path stands for, as [`Self::open`] does, in a data set whose parts have their usual
    /// names, or in its validation split.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(path: &Path) -> Result<Self> {
        Self::open(path, &Layout::default())
    }

    /// Finds the images that a path stands for. Nothing is decoded.
    ///
    /// A folder is searched for Parquet files and WebDataset shards, of which it may have several splits, and if
    /// there are none, with all below it for files with an image's extension. A file is a Parquet file or a tar
    /// archive. A name with braces, such as `validation-{0000..0063}.tar`, stands for several of either.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if it cannot be read; [`Error::Dataset`](crate::Error::Dataset) if a file is
    /// damaged, compressed or cut short, parts are missing, there is no image, or one has a name that cannot be used.
    pub fn open(path: &Path, layout: &Layout) -> Result<Self> {
        let (form, note) = Form::of(path, layout)?;
        Self::of_form(path, form, note, layout)
    }

    /// The images in files that are all Parquet files or all tar archives: several archives are WebDataset shards.
    /// `name` is what errors call them.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_files(name: &Path, files: Vec<PathBuf>, layout: &Layout) -> Result<Self> {
        Self::of_form(name, Form::of_files(files)?, None, layout)
    }

    fn of_form(path: &Path, form: Form, note: Option<String>, layout: &Layout) -> Result<Self> {
        let shown = path.display();
        let mut listing = match form {
            Form::Folder => Self::unlabelled(path, Source::Folder(path.to_path_buf()), folder::images(path)?),
            Form::Archives(archives) => {
                Self::of_archives(path, archives, layout).map_err(DatasetProblem::Archive.because())?
            }
            Form::Tables(files) => Self::of_tables(path, &files, layout)?,
        };
        let reads_layout = listing.labelled || *layout == Layout::default();
        listing.note = note.or_else(|| {
            let words = "it has no splits, columns or keys: --split, --input-key and --target-key do nothing here";
            (!reads_layout).then(|| words.to_string())
        });
        if listing.entries.is_empty() {
            let known = if listing.labelled { "" } else { " (known by their extension, such as .JPEG or .png)" };
            let others = form::what_else(path);
            return Err(DatasetProblem::NoImages.error(format!("{shown}: no images here{known}{others}")));
        }
        listing.entries.sort_by(|a, b| a.path.cmp(&b.path));
        let entries = &listing.entries;
        // Files of predictions have an image a line.
        if let Some(odd) = entries.iter().find(|entry| entry.path.contains(char::is_control)) {
            return Err(
                DatasetProblem::Image.error(format!("{shown}: rename {:?}: a control character in a name", odd.path))
            );
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(DatasetProblem::Archive.error(format!("{shown}: {} is in the archive twice", pair[0].path)));
        }
        Ok(listing)
    }

    /// One archive of images, or shards.
    fn of_archives(path: &Path, archives: Vec<PathBuf>, layout: &Layout) -> Result<Self, Reason> {
        let names = names_of(&archives);
        let (mut entries, mut labelled) = (Vec::new(), false);
        let (mut names_file, mut class_names) = (None, None);
        for (number, (archive, name)) in (0..).zip(archives.iter().zip(&names)) {
            let shown = archive.display();
            let members = archive::members(archive).context(&shown)?;
            if webdataset::is_shard(archive, &members, layout).context(&shown)? {
                entries.extend(webdataset::entries(archive, number, name, members, layout).context(&shown)?);
                labelled = true;
                // Looked for once for each folder, and read once for all that share it: there may be a thousand.
                if number > 0 && archive.parent() == archives[number as usize - 1].parent() {
                    continue;
                }
                let file = webdataset::names_file(archive)?;
                if number > 0 && file == names_file {
                    continue;
                }
                let names = file.as_deref().map(webdataset::class_names).transpose()?;
                names_file = file;
                let first = archives[0].display();
                ensure!(
                    number == 0 || names == class_names,
                    "{shown}: its classes have other names than those of {first}"
                );
                class_names = names;
            } else {
                ensure!(
                    archives.len() == 1 && layout.target_key.is_none(),
                    "{shown}: no WebDataset shard: no image has a file `{}` or a field of JSON beside it that says its \
                     class; {} (--target-key, --input-key)",
                    layout.target_key.as_deref().unwrap_or("cls"),
                    webdataset::what_samples_have(&members, layout)
                );
                entries = archive::images(members);
            }
        }
        Ok(Self { labelled, class_names, ..Self::unlabelled(path, Source::Archives(archives), entries) })
    }

    fn of_tables(path: &Path, files: &[PathBuf], layout: &Layout) -> Result<Self> {
        let (table, mut listed) = Table::open(files, &names_of(files), layout)?;
        let entries = std::mem::take(&mut listed.entries);
        let listing = Self::unlabelled(path, Source::Table(Box::new(table)), entries);
        let Listed { class_names, unlabelled, .. } = listed;
        Ok(Self { labelled: true, class_names, unlabelled, ..listing })
    }

    fn unlabelled(path: &Path, source: Source, entries: Vec<Entry>) -> Self {
        Self {
            path: path.to_path_buf(),
            source,
            entries,
            labelled: false,
            class_names: None,
            unlabelled: None,
            note: None,
        }
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.entries.len()
    }

    /// Whether the files say what the images show, as Parquet files and WebDataset shards do.
    pub fn is_labelled(&self) -> bool {
        self.labelled
    }

    /// The paths of all images, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.path)
    }

    /// The path of an image: below the folder, or in the archive; in shards and tables the name of the file, and then
    /// the path in the shard, or the row and the image's own name. `/` separates the parts.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn path(&self, image: usize) -> &str {
        &self.entries[image].path
    }

    /// What a person should know of how the files were chosen: that they are not those of the validation split.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The image at that path, if there is one.
    pub fn find(&self, path: &str) -> Option<usize> {
        self.entries.binary_search_by(|entry| (*entry.path).cmp(path)).ok()
    }

    /// The folder below which each image is a file of its own, at its path; `None` for images in archives and tables.
    pub fn root(&self) -> Option<&Path> {
        match &self.source {
            Source::Folder(root) => Some(root),
            Source::Archives(_) | Source::Table(_) => None,
        }
    }

    /// The bytes of an image file.
    ///
    /// # Errors
    /// If it cannot be read. The message does not name it.
    ///
    /// # Panics
    /// If there are not so many images.
    pub fn read(&self, image: usize) -> Result<Vec<u8>> {
        let entry = &self.entries[image];
        let bytes = match &self.source {
            Source::Folder(root) => folder::read(root, entry),
            Source::Archives(archives) => archive::read(archives, entry),
            Source::Table(table) => table.read(entry.place),
        };
        bytes.map_err(DatasetProblem::Image.because())
    }
}

/// What files are called in the paths of their images: their own names, or if two have one, their paths below the
/// folder that all are in.
fn names_of(files: &[PathBuf]) -> Vec<String> {
    let name = |path: &Path| path.to_string_lossy().replace('\\', "/");
    let own: Vec<String> = files.iter().map(|file| name(file.file_name().unwrap_or_default().as_ref())).collect();
    let mut sorted: Vec<&String> = own.iter().collect();
    sorted.sort();
    if sorted.windows(2).all(|pair| pair[0] != pair[1]) {
        return own;
    }
    let around = files.iter().skip(1).fold(files[0].parent().unwrap_or(Path::new("")), |around, file| {
        around.ancestors().find(|around| file.starts_with(around)).unwrap_or(Path::new(""))
    });
    files.iter().map(|file| name(file.strip_prefix(around).unwrap_or(file))).collect()
}
