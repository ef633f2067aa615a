//! Pictures of where the network looked.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use crate::cli::images::Batch;
use crate::network::Explanation;
use crate::output::{Output, directory};
use crate::sheet::picture::{MapPicture, is_map_picture};

/// The directory that pictures are written into, and the names that are taken there.
pub struct Pictures {
    directory: PathBuf,
    /// In lower case: some systems tell no other apart.
    taken: HashSet<String>,
    /// How often each name was asked for: many images may share one.
    asked: HashMap<String, usize>,
}

impl Pictures {
    /// Makes the directory if it is not there. What is there, and is no picture that this program wrote, keeps its name.
    ///
    /// # Errors
    /// If it cannot be written, or has one of the images in it.
    pub fn create(into: &Path, images: &[PathBuf]) -> Result<Self> {
        std::fs::create_dir_all(into).with_context(|| format!("cannot make the directory {}", into.display()))?;
        // Whether it can be written.
        Output::create(&into.join("picture.png"))?;
        let absolute = into.canonicalize()?;
        let mut known = HashMap::new();
        for image in images.iter().filter(|image| image.as_os_str() != "-") {
            let parent = directory(image);
            if *known.entry(parent).or_insert_with(|| parent.canonicalize().is_ok_and(|parent| parent == absolute)) {
                bail!(
                    "{}: it is in {}, where pictures are written; give a directory that is not searched for images",
                    image.display(),
                    into.display()
                );
            }
        }
        Ok(Self { directory: into.to_path_buf(), taken: foreign(&absolute)?, asked: HashMap::new() })
    }

    /// Writes the pictures of a batch, and says in `written` where that of each image is.
    ///
    /// # Errors
    /// If one cannot be drawn or written.
    pub fn write(
        &mut self,
        model: &str,
        batch: &Batch,
        explained: &[(usize, Vec<Explanation>)],
        written: &mut [Option<PathBuf>],
    ) -> Result<()> {
        for (place, _) in explained {
            let name = self.name(batch.images[*place].path);
            written[*place] = Some(self.directory.join(name));
        }
        explained.par_iter().try_for_each(|(place, explanations)| {
            let name = last_part(&batch.images[*place].path.display().to_string());
            let picture =
                MapPicture { name: &name, model: &last_part(model), crop: &batch.crops[*place], explanations };
            match &written[*place] {
                Some(path) => Ok(Output::create(path)?.write(&picture.png()?)?),
                None => Ok(()),
            }
        })
    }

    /// The image's name with another ending, and with a number if it is taken.
    fn name(&mut self, image: &Path) -> OsString {
        let stem = if image.as_os_str() == "-" { OsStr::new("stdin") } else { image.file_stem().unwrap_or_default() };
        let number = self.asked.entry(lower(stem)).or_default();
        loop {
            *number += 1;
            let mut name = stem.to_os_string();
            if *number > 1 {
                name.push(format!("-{number}"));
            }
            name.push(".png");
            if self.taken.insert(lower(&name)) {
                return name;
            }
        }
    }
}

/// What a file is called without its directories: there is little room in a picture.
fn last_part(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_string(), |name| name.to_string_lossy().into_owned())
}

fn lower(name: &OsStr) -> String {
    name.to_string_lossy().to_lowercase()
}

/// The names in a directory of what is no picture of an earlier run, links included.
fn foreign(directory: &Path) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let ours = entry.file_type()?.is_file() && is_map_picture(&entry.path());
        if !ours {
            names.insert(lower(&entry.file_name()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_taken_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut pictures = Pictures::create(&dir.path().join("new/maps"), &["a.png".into(), "-".into()]).unwrap();
        let mut names = |images: &[&str]| -> Vec<String> {
            images.iter().map(|image| pictures.name(Path::new(image)).into_string().unwrap()).collect()
        };
        assert_eq!(
            names(&["a/x.jpg", "b/x.png", "X.png", "-", "x-2.gif"]),
            ["x.png", "x-2.png", "X-3.png", "stdin.png", "x-2-2.png"]
        );
    }

    #[test]
    fn what_others_wrote_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("A.png"), "of another program").unwrap();
        let crop = image::RgbImage::new(64, 64);
        let picture = MapPicture { name: "b.png", model: "m", crop: &crop, explanations: &[] };
        std::fs::write(dir.path().join("b.png"), picture.png().unwrap()).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("b.png", dir.path().join("c.png")).unwrap();
        let mut pictures = Pictures::create(dir.path(), &[]).unwrap();
        assert_eq!(pictures.name(Path::new("x/a.jpg")), "a-2.png");
        assert_eq!(pictures.name(Path::new("x/b.jpg")), "b.png");
        #[cfg(unix)]
        assert_eq!(pictures.name(Path::new("x/c.jpg")), "c-2.png");
    }

    #[test]
    fn images_are_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("a.jpg");
        std::fs::write(&image, "").unwrap();
        let error = Pictures::create(&dir.path().join("."), std::slice::from_ref(&image)).err().unwrap().to_string();
        assert!(error.contains("a.jpg: it is in") && error.contains("not searched"), "{error}");
        assert!(Pictures::create(&dir.path().join("maps"), &[image]).is_ok());
    }
}
