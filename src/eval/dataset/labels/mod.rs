//! From the names of folders, and from files of labels, to class indices.
//!
//! ```text
//! classes      the names by which a model's classes are known
//! folders      the class of each image by the folder that it is in
//! class_map    a file that says which folder, or which number, is which class
//! list         the class of each image by a file of labels
//! own          the class of each image by what its files say
//! lines        the lines of such files
//! ```

mod class_map;
mod classes;
mod folders;
mod lines;
mod list;
mod own;

pub(super) use class_map::read_numbers;
pub use classes::Classes;
pub(super) use folders::{are_indices, by_folder};
pub(super) use lines::{Line, read_labels, read_lines};
pub(super) use list::{List, by_file, find_beside};
pub(super) use own::{OwnLabels, own};

/// The first few of many names, for a message.
fn first_of(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let first = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{first} and {} more", names.len() - SHOWN) } else { first }
}

#[cfg(test)]
pub(super) mod samples {
    use super::Classes;
    use crate::eval::dataset::listing::{Entry, Kind};
    use crate::weights::registry::{MODELS, find};

    pub fn imagenet() -> Classes {
        Classes::new(&MODELS[0].labels())
    }

    pub fn digits() -> Classes {
        Classes::new(&find("qlnet-digits").unwrap().labels())
    }

    pub fn entries(paths: &[&str]) -> Vec<Entry> {
        paths
            .iter()
            .map(|path| Entry { path: (*path).into(), size: 0, place: 0, file: 0, kind: Kind::File, label: None })
            .collect()
    }
}
