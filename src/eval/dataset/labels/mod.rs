//! From the names of folders, and from files of labels, to class indices.
//!
//! ```text
//! classes      the names by which a model's classes are known
//! folders      the class of each image by the folder that it is in
//! class_map    a file that says which folder is which class
//! list         the class of each image by a file of labels
//! lines        the lines of such files
//! ```

mod class_map;
mod classes;
mod folders;
mod lines;
mod list;

pub use classes::Classes;
pub(super) use folders::{are_indices, by_folder};
pub(super) use lines::{Line, read_lines};
pub(super) use list::{by_file, find_beside};

/// The first few of many names, for a message.
fn first_of(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let first = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{first} and {} more", names.len() - SHOWN) } else { first }
}

#[cfg(test)]
pub(super) mod samples {
    use super::Classes;
    use crate::eval::dataset::listing::Entry;
    use crate::weights::registry::{MODELS, find};

    pub fn imagenet() -> Classes {
        Classes::new(&MODELS[0].labels())
    }

    pub fn digits() -> Classes {
        Classes::new(&find("qlnet-digits").unwrap().labels())
    }

    pub fn entries(paths: &[&str]) -> Vec<Entry> {
        paths.iter().map(|path| Entry { path: (*path).into(), size: 0, offset: 0, regular: true }).collect()
    }
}
