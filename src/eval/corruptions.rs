//! ImageNet-C: how much more often a network errs where images are corrupted.
//!
//! Hendrycks, Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
//! [arXiv 1903.12261](https://arxiv.org/abs/1903.12261). A folder for each corruption has a folder for each severity
//! from 1 to 5, and that a folder for each class.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{DatasetProblem, Error, Result};

/// A way to corrupt images.
#[derive(Debug, PartialEq)]
pub struct Corruption {
    /// As its folder is called.
    pub name: &'static str,
    /// AlexNet's top-1 error, the mean over the five severities, in 0..1.
    pub alexnet: f64,
    /// Whether it is one of four that were meant for validation, which no mean takes in.
    pub extra: bool,
}

/// How strongly images are corrupted.
pub const SEVERITIES: RangeInclusive<u8> = 1..=5;

/// The number of severities.
const LEVELS: usize = 5;

/// The fifteen corruptions and the four extra ones, in the order of the paper's tables.
///
/// AlexNet's errors are those that the authors published to divide by: "AlexNet ImageNet-C Error" in the README of
/// [hendrycks/robustness](https://github.com/hendrycks/robustness/blob/ac836a511a76a2c261a097d64a6a2dab71793ef4/README.md),
/// column "Average".
pub const CORRUPTIONS: [Corruption; 19] = [
    benchmark("gaussian_noise", 0.886428),
    benchmark("shot_noise", 0.894468),
    benchmark("impulse_noise", 0.922640),
    benchmark("defocus_blur", 0.819880),
    benchmark("glass_blur", 0.826268),
    benchmark("motion_blur", 0.785948),
    benchmark("zoom_blur", 0.798360),
    benchmark("snow", 0.866816),
    benchmark("frost", 0.826572),
    benchmark("fog", 0.819324),
    benchmark("brightness", 0.564592),
    benchmark("contrast", 0.853204),
    benchmark("elastic_transform", 0.646056),
    benchmark("pixelate", 0.717840),
    benchmark("jpeg_compression", 0.606500),
    extra("speckle_noise", 0.845388),
    extra("gaussian_blur", 0.787108),
    extra("spatter", 0.717512),
    extra("saturate", 0.658248),
];

const fn benchmark(name: &'static str, alexnet: f64) -> Corruption {
    Corruption { name, alexnet, extra: false }
}

const fn extra(name: &'static str, alexnet: f64) -> Corruption {
    Corruption { name, alexnet, extra: true }
}

/// A folder of class folders, all of whose images are corrupted in one way.
#[derive(Debug, PartialEq)]
pub struct Corrupted {
    /// In which way.
    pub corruption: &'static Corruption,
    /// How strongly, from 1 to 5.
    pub severity: u8,
    /// Where they are.
    pub folder: PathBuf,
}

/// The corrupted images in a directory, in the order of [`CORRUPTIONS`] and by severity: folders that are called
/// like a corruption and have folders `1` to `5`, in the directory, or a folder deeper as the authors' archives
/// unpack (`blur/defocus_blur/1`), or the directory itself. None if it holds something else.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read; [`Error::Dataset`] if a corruption is there twice.
pub fn find_corrupted(directory: &Path) -> Result<Vec<Corrupted>> {
    let mut places = vec![directory.to_path_buf()];
    places.extend(groups(directory).map_err(Error::io("read", directory))?);
    let mut found = Vec::new();
    for corruption in &CORRUPTIONS {
        let own = directory.file_name().is_some_and(|name| name == corruption.name).then(|| directory.to_path_buf());
        let folders = own.into_iter().chain(places.iter().map(|place| place.join(corruption.name)));
        let mut folders = folders.filter(|folder| SEVERITIES.clone().any(|severity| is_there(folder, severity)));
        let Some(folder) = folders.next() else { continue };
        if let Some(other) = folders.next() {
            let words = format!("{} and {} are the same corruption; keep one", folder.display(), other.display());
            return Err(DatasetProblem::MixedForms.error(words));
        }
        let severities = SEVERITIES.filter(|severity| is_there(&folder, *severity));
        found.extend(severities.map(|severity| Corrupted {
            corruption,
            severity,
            folder: folder.join(severity.to_string()),
        }));
    }
    Ok(found)
}

fn is_there(corruption: &Path, severity: u8) -> bool {
    corruption.join(severity.to_string()).is_dir()
}

/// The folders in a directory that may be groups of corruptions. There are five; where there are many, they are
/// classes, and not searched.
fn groups(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    const MOST: usize = 32;
    let entries = directory.read_dir()?.take(MOST + 1).collect::<Result<Vec<_>, _>>()?;
    let folders = entries.iter().map(std::fs::DirEntry::path).filter(|path| path.is_dir());
    Ok(if entries.len() > MOST { Vec::new() } else { folders.collect() })
}

/// The top-1 errors on corrupted images, in 0..1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorruptionErrors {
    /// Those that were evaluated, in the order of [`CORRUPTIONS`].
    pub corruptions: Vec<CorruptionRow>,
    /// The mean of the corruption errors of the fifteen corruptions, mCE: 1 for AlexNet. `None` unless all are
    /// there.
    pub mean_corruption_error: Option<f64>,
    /// What the mean lacks: names of corruptions, or of one and a severity.
    pub missing: Vec<String>,
}

/// The top-1 errors on images that are corrupted in one way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorruptionRow {
    /// Its name.
    pub corruption: &'static str,
    /// By severity.
    pub errors: [Option<f64>; LEVELS],
    /// Over all severities; `None` unless all are there.
    pub mean_error: Option<f64>,
    /// The sum of the errors, divided by the sum of AlexNet's, CE; `None` unless all severities are there.
    pub corruption_error: Option<f64>,
    /// Whether the mean over all corruptions leaves it out.
    pub extra: bool,
}

impl CorruptionErrors {
    /// From the error of each set of images: the corruption, the severity and the share of images whose label is
    /// not the most likely class.
    pub fn new(errors: &[(&'static Corruption, u8, f64)]) -> Self {
        let row = |corruption: &Corruption| {
            let of = |severity: u8| {
                let set = errors.iter().find(|(other, level, _)| *other == corruption && *level == severity);
                set.map(|(.., error)| *error)
            };
            let mut by_severity = [None; LEVELS];
            SEVERITIES.zip(&mut by_severity).for_each(|(severity, error)| *error = of(severity));
            let sum: Option<f64> = by_severity.iter().copied().sum();
            let mean_error = sum.map(|sum| sum / LEVELS as f64);
            CorruptionRow {
                corruption: corruption.name,
                errors: by_severity,
                mean_error,
                corruption_error: mean_error.map(|mean| mean / corruption.alexnet),
                extra: corruption.extra,
            }
        };
        let mut corruptions: Vec<_> = CORRUPTIONS.iter().map(row).collect();
        let benchmark = || corruptions.iter().filter(|row| !row.extra);
        let sum: Option<f64> = benchmark().map(|row| row.corruption_error).sum();
        let mean_corruption_error = sum.map(|sum| sum / benchmark().count() as f64);
        let missing = benchmark().flat_map(CorruptionRow::missing).collect();
        corruptions.retain(|row| row.errors.iter().any(Option::is_some));
        Self { corruptions, mean_corruption_error, missing }
    }
}

impl CorruptionRow {
    fn missing(&self) -> Vec<String> {
        if self.errors.iter().all(Option::is_none) {
            return vec![self.corruption.to_string()];
        }
        let severities = SEVERITIES.zip(&self.errors).filter(|(_, error)| error.is_none());
        severities.map(|(severity, _)| format!("{} {severity}", self.corruption)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these folders.
    fn directory(folders: &[String]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        folders.iter().for_each(|folder| std::fs::create_dir_all(directory.path().join(folder)).unwrap());
        directory
    }

    fn folders(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn found(directory: &Path) -> Vec<(&'static str, u8)> {
        find_corrupted(directory).unwrap().iter().map(|set| (set.corruption.name, set.severity)).collect()
    }

    #[test]
    fn corrupted_images_are_found_as_archives_unpack_or_side_by_side() {
        let all = folders(&["noise/shot_noise/1/n01440764", "noise/shot_noise/3/n01440764", "weather/fog/5/n01440764"]);
        let dir = directory(&all);
        assert_eq!(found(dir.path()), [("shot_noise", 1), ("shot_noise", 3), ("fog", 5)]);
        assert_eq!(found(&dir.path().join("noise")), [("shot_noise", 1), ("shot_noise", 3)]);
        assert_eq!(found(&dir.path().join("noise/shot_noise")), [("shot_noise", 1), ("shot_noise", 3)]);
        // One severity is a folder of class folders like any other.
        assert_eq!(found(&dir.path().join("noise/shot_noise/3")), []);
        let dir = directory(&folders(&["fog/2/n01440764", "saturate/1/n01440764", "fog/6/x", "hail/1/x"]));
        assert_eq!(found(dir.path()), [("fog", 2), ("saturate", 1)]);
        std::fs::create_dir_all(dir.path().join("weather/fog/1")).unwrap();
        assert!(find_corrupted(dir.path()).unwrap_err().to_string().contains("are the same corruption"));
        // Classes, of which some could be called so.
        assert_eq!(found(directory(&folders(&["n01440764", "fog"])).path()), []);
        let classes: Vec<String> = (0..1000).map(|class| format!("n{class}/snow/1")).collect();
        assert_eq!(found(directory(&classes).path()), []);
    }

    #[test]
    fn alexnet_has_a_mean_corruption_error_of_one() {
        let alexnet = |severity: &dyn Fn(&Corruption, u8) -> bool| {
            let sets = CORRUPTIONS.iter().flat_map(|corruption| SEVERITIES.map(move |level| (corruption, level)));
            let sets = sets.filter(|(corruption, level)| severity(corruption, *level));
            CorruptionErrors::new(&sets.map(|(c, level)| (c, level, c.alexnet)).collect::<Vec<_>>())
        };
        let whole = alexnet(&|_, _| true);
        assert!((whole.mean_corruption_error.unwrap() - 1.0).abs() < 1e-12 && whole.missing.is_empty());
        assert!(whole.corruptions.iter().all(|row| (row.corruption_error.unwrap() - 1.0).abs() < 1e-12));
        assert_eq!(whole.corruptions.len(), 19);
        // The extra four are in no mean.
        let fifteen = alexnet(&|corruption, _| !corruption.extra);
        assert_eq!(fifteen.mean_corruption_error, whole.mean_corruption_error);
        let part = alexnet(&|corruption, level| corruption.name != "fog" && (corruption.name != "snow" || level != 4));
        assert_eq!((part.mean_corruption_error, &part.missing[..]), (None, &folders(&["snow 4", "fog"])[..]));
        let snow = part.corruptions.iter().find(|row| row.corruption == "snow").unwrap();
        assert_eq!((snow.errors[3], snow.mean_error, snow.corruption_error), (None, None, None));
        assert_eq!(part.corruptions.len(), 18);
    }

    #[test]
    fn errors_are_divided_by_alexnets() {
        let errors = [0.1, 0.2, 0.3, 0.4, 0.5];
        let sets: Vec<_> =
            SEVERITIES.zip(errors).map(|(severity, error)| (&CORRUPTIONS[10], severity, error)).collect();
        let errors = CorruptionErrors::new(&sets);
        let row = &errors.corruptions[0];
        assert_eq!((row.corruption, row.errors[4]), ("brightness", Some(0.5)));
        assert!((row.mean_error.unwrap() - 0.3).abs() < 1e-12);
        assert!((row.corruption_error.unwrap() - 1.5 / (5.0 * 0.564592)).abs() < 1e-12);
        assert_eq!((errors.mean_corruption_error, errors.missing.len()), (None, 14));
    }
}
