//! Writes the file, and the one beside it.

use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::{csv, npy, safetensors};
use crate::error::{Error, Reason, Result, ensure};
use crate::input::files::ImageName;
use crate::output::{Growing, Output};

/// The form of a file of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NumPy's.
    Npy,
    /// With metadata.
    Safetensors,
    /// A table.
    Csv,
}

impl Format {
    /// The form that a file's name asks for.
    ///
    /// # Errors
    /// [`Error::Features`] if its ending is not known.
    pub fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            Some("csv") => Ok(Self::Csv),
            _ => {
                let path = path.display();
                let words = format!("{path}: the name of a file of features ends in .npy, .safetensors or .csv");
                Err(Error::Features(Reason::new(words)))
            }
        }
    }
}

/// What made the rows, for the metadata of a safetensors file.
#[derive(Clone, Debug)]
pub struct About {
    /// The name of the model, or the file of its weights.
    pub model: String,
    /// The SHA-256 of the checkpoint, in lower-case hexadecimal.
    pub weights_sha256: String,
    /// The layer whose output was taken.
    pub layer: String,
    /// How images became the network's input.
    pub preprocessing: String,
    /// What the network computed in.
    pub dtype: &'static str,
    /// And where.
    pub device: String,
}

/// A file of features that grows. Dropped before it is complete, it leaves nothing.
pub struct Writer {
    file: Growing,
    form: Form,
    about: About,
    /// Images that may still come, and those that came.
    most: usize,
    /// Of one row; nothing before the first.
    shape: Option<Vec<usize>>,
    rows: usize,
}

/// What a form needs besides.
enum Form {
    /// The paths, a line each.
    Npy(Growing),
    Safetensors {
        /// The paths, as JSON without the brackets.
        paths: String,
        /// The length of what the paths of all images would be, as a string in JSON.
        longest: usize,
        /// The length of the header that is kept free.
        room: usize,
    },
    Csv,
}

impl Writer {
    /// The files that are written under that name: two for `.npy`, `features.npy` and `features.paths.jsonl`.
    ///
    /// # Errors
    /// As [`Format::of`].
    pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
        let beside = (Format::of(path)? == Format::Npy).then(|| path_of_paths(path));
        Ok([path.to_path_buf()].into_iter().chain(beside).collect())
    }

    /// Begins a file for rows of all these images, or some of them.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, and [`Error::Features`] if its name says no form, or the form cannot
    /// hold so many paths.
    pub fn create(path: &Path, about: About, images: &[PathBuf]) -> Result<Self> {
        let format = Format::of(path)?;
        let file = Output::create(path)?.begin()?;
        let form = match format {
            Format::Npy => Form::Npy(Output::create(&path_of_paths(path))?.begin()?),
            Format::Safetensors => {
                let mut all = String::new();
                images.iter().try_for_each(|image| push_name(&mut all, image))?;
                // Found out before there is anything to write.
                safetensors::header(&[], &about.metadata(&all), 0)?;
                Form::Safetensors { paths: String::new(), longest: json(&format!("[{all}]"))?.len(), room: 0 }
            }
            Format::Csv => Form::Csv,
        };
        Ok(Self { file, form, about, most: images.len(), shape: None, rows: 0 })
    }

    /// Writes a row for each image: `rows` is `[n, ...]` in float32, and the first sets the shape of all.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written, as on a full disk; [`Error::Compute`] if `rows` has not as many rows
    /// as there are images, or they are of another shape or type than those before.
    pub fn append(&mut self, images: &[&Path], rows: &Tensor) -> Result<()> {
        let shape = rows.dims().get(1..).unwrap_or_default();
        let expected = self.shape.as_deref();
        let fits = || -> Result<(), Reason> {
            let count = rows.dims().first();
            ensure!(count == Some(&images.len()), "{:?} are no rows of {} images", rows.dims(), images.len());
            let expected = expected.unwrap_or(shape);
            ensure!(shape == expected, "a row of shape {shape:?} after those of shape {expected:?}");
            Ok(())
        };
        fits().map_err(Error::Compute)?;
        if expected.is_none() {
            self.begin(shape)?;
            self.shape = Some(shape.to_vec());
        }
        self.rows += images.len();
        let values = rows.flatten_all()?.to_vec1::<f32>()?;
        match &mut self.form {
            Form::Csv => return self.file.append(&csv::rows(images, &values).map_err(Error::Features)?),
            Form::Npy(paths) => {
                let mut lines = String::new();
                for image in images {
                    lines.push_str(&json(&ImageName::from(*image))?);
                    lines.push('\n');
                }
                paths.append(lines.as_bytes())?;
            }
            Form::Safetensors { paths, .. } => images.iter().try_for_each(|image| push_name(paths, image))?,
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.append(&bytes)
    }

    /// Writes the header, or keeps room for it.
    fn begin(&mut self, shape: &[usize]) -> Result<()> {
        let header = match &mut self.form {
            Form::Csv => csv::header(shape).map_err(Error::Features)?,
            Form::Npy(_) => vec![b' '; npy::HEADER],
            Form::Safetensors { longest, room, .. } => {
                let shape = [&[self.most], shape].concat();
                // Two quotes are there without any path.
                *room = safetensors::header(&shape, &self.about.metadata(""), 0)?.len() + *longest - 2;
                *room = room.next_multiple_of(8);
                vec![b' '; *room]
            }
        };
        self.file.append(&header)
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The shape of one row, if there is one.
    pub fn shape(&self) -> Option<&[usize]> {
        self.shape.as_deref()
    }

    /// Completes the file, and gives it its name.
    ///
    /// # Errors
    /// [`Error::Features`] if there is no row, or one of an image that [`Self::create`] was not told of; [`Error::Io`] if the disk or the directory does not take it.
    pub fn finish(self) -> Result<()> {
        let Self { mut file, form, about, shape, rows, .. } = self;
        let Some(shape) = shape.filter(|_| rows > 0) else {
            let words = format!("{} is not written: there is no row", file.path().display());
            return Err(Error::Features(Reason::new(words)));
        };
        let shape = [&[rows], &shape[..]].concat();
        match form {
            Form::Csv => {}
            Form::Npy(paths) => {
                file.write_start(&npy::header(&shape))?;
                file.sync()?;
                // Rows without paths are worth less than paths without rows.
                paths.finish()?;
            }
            Form::Safetensors { paths, room, .. } => {
                let header = safetensors::header(&shape, &about.metadata(&format!("[{paths}]")), room)?;
                if header.len() > room {
                    let words = "there are more rows, or images of longer names, than there is room for";
                    return Err(Error::Features(Reason::new(words)));
                }
                file.write_start(&header)?;
            }
        }
        file.finish()
    }
}

impl About {
    /// The entries of the metadata.
    fn metadata<'a>(&'a self, paths: &'a str) -> [(&'static str, &'a str); 7] {
        let Self { model, weights_sha256, layer, preprocessing, dtype, device } = self;
        [
            ("paths", paths),
            ("model", model),
            ("weights_sha256", weights_sha256),
            ("layer", layer),
            ("preprocessing", preprocessing),
            ("dtype", dtype),
            ("device", device),
        ]
    }
}

/// Where the paths of a file of NumPy are.
fn path_of_paths(path: &Path) -> PathBuf {
    path.with_extension("paths.jsonl")
}

/// Adds a path to those of a JSON array.
fn push_name(paths: &mut String, image: &Path) -> Result<()> {
    if !paths.is_empty() {
        paths.push(',');
    }
    paths.push_str(&match image.to_str() {
        Some(name) => json(&name)?,
        None => json(&ImageName::from(image))?,
    });
    Ok(())
}

/// A value as JSON.
fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Features(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn about() -> About {
        let [model, layer, preprocessing] = ["m", "act", "resize 8"].map(String::from);
        About { model, weights_sha256: "0".repeat(64), layer, preprocessing, dtype: "f32", device: "cpu".into() }
    }

    fn rows(shape: &[usize]) -> Tensor {
        Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn rows_have_one_shape_and_an_image_each() {
        let dir = tempfile::tempdir().unwrap();
        let images = ["a.png", "b.png"].map(PathBuf::from);
        let paths = images.each_ref().map(PathBuf::as_path);
        for name in ["f.npy", "f.safetensors", "f.csv"] {
            let mut writer = Writer::create(&dir.path().join(name), about(), &images).unwrap();
            assert!(writer.append(&paths, &rows(&[3, 4])).is_err());
            writer.append(&paths[..1], &rows(&[1, 4])).unwrap();
            for (images, shape) in [(1, &[1, 5][..]), (1, &[1, 4, 1]), (2, &[1, 4]), (1, &[1]), (1, &[])] {
                let refused = writer.append(&paths[..images], &rows(shape));
                assert!(matches!(refused, Err(Error::Compute(_))), "{shape:?}");
            }
            assert_eq!((writer.rows(), writer.shape()), (1, Some(&[4][..])));
            writer.finish().unwrap();
            let nothing = Writer::create(&dir.path().join(name), about(), &images).unwrap().finish();
            assert!(matches!(nothing, Err(Error::Features(_))));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_header_never_reaches_into_the_rows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.safetensors");
        let mut writer = Writer::create(&file, about(), &[PathBuf::from("a.png")]).unwrap();
        for _ in 0..20 {
            writer.append(&[Path::new("another-name.png")], &rows(&[1, 4])).unwrap();
        }
        assert!(matches!(writer.finish(), Err(Error::Features(_))));
        assert!(!file.exists());
        assert!(matches!(Format::of(Path::new("f.txt")), Err(Error::Features(_))));
    }
}
