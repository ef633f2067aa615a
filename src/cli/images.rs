//! The images that a command reads: which they are, and their way to the network, a batch at a time.

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use image::RgbImage;
use indicatif::ProgressBar;
use rayon::prelude::*;

use super::arguments::{PictureArgs, ensure_batch, positive};
use super::hints::with_advice;
use super::image_list::read_list;
use super::print::{info, is_broken_pipe, one_line, print, progress_bar, say, say_warning};
use crate::input::ahead::Ahead;
use crate::input::decode::Options;
pub use crate::input::files::ImageName;
use crate::input::files::{Links, images_below, read_bounded};
use crate::input::preprocess::{Crop, Preprocess};
use crate::sheet::Failures;
use crate::text::count;

/// So many of the images that cannot be read are listed in results.
const LISTED: usize = 1000;

/// Which images are read. Options of a command come before these, which end under a heading of their own.
#[derive(Args)]
pub struct ImageArgs {
    /// Image files, directories of them, or `-` for standard input
    ///
    /// Directories are searched to any depth, but not through links, for files with the extension of an image.
    #[arg(required_unless_present = "image_list", value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Read more names of images from a file, or from `-`
    ///
    /// A name a line, of a file or a directory, relative to where the command runs. Empty lines are passed over. The
    /// images follow those of the command line. `-` stands for standard input.
    #[arg(long, value_name = "FILE")]
    image_list: Option<PathBuf>,
    /// The names in --image-list end with NUL, as of `find -print0`
    ///
    /// So names may contain newlines.
    #[arg(short = '0', long, requires = "image_list")]
    null: bool,
    /// Do not turn pictures by the orientation that a camera noted
    ///
    /// Pixels are then taken as they are stored, as timm and eval take them.
    #[arg(long)]
    no_exif: bool,
    /// Images that run through the network together
    ///
    /// By default 8, or as many as there are threads. As many more are decoded meanwhile.
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true)]
    batch_size: Option<usize>,
    #[command(flatten)]
    pictures: PictureArgs,
}

impl ImageArgs {
    /// The file of the list, if one is named.
    pub fn list(&self) -> Option<&Path> {
        self.image_list.as_deref()
    }

    /// The name of the file or directory on the command line, if there is no more.
    pub fn only(&self) -> Option<&Path> {
        self.images.first().filter(|_| self.images.len() == 1 && self.image_list.is_none()).map(PathBuf::as_path)
    }

    /// Finds the images. What is missing is reported at once, before weights are downloaded for its sake. Nothing if
    /// there is no image to go on with, and all that is left is to fail.
    ///
    /// # Errors
    /// If the list of images cannot be read, or is no such list.
    pub fn find(&self) -> Result<Option<Images>> {
        let stdin = Path::new("-");
        let list = self.image_list.as_deref();
        ensure!(
            list != Some(stdin) || !self.images.iter().any(|image| image == stdin),
            "standard input cannot be both an image and the list of images"
        );
        let mut progress = Progress { bar: ProgressBar::hidden(), failures: Failures::default() };
        let mut names = self.images.clone();
        if let Some(list) = list {
            let (before, shown) = (names.len(), list.display());
            let end = if self.null { 0 } else { b'\n' };
            if list == stdin {
                read_list(std::io::stdin().lock(), end, &mut names).context("standard input")?;
                ensure!(!names[before..].iter().any(|name| name == stdin), "-: standard input is the list of images");
            } else {
                let file = File::open(list).with_context(|| format!("cannot read {shown}"))?;
                read_list(BufReader::new(file), end, &mut names).with_context(|| shown.to_string())?;
            }
            if names.len() == before {
                progress.report(&anyhow!("{shown}: no names in this list of images"));
            }
        }
        // Together, because a file system may take its time to answer.
        let kinds: Vec<_> = names.par_iter().map(|name| name.metadata().map(|metadata| metadata.is_dir())).collect();
        let mut paths = Vec::with_capacity(names.len());
        for (name, kind) in names.into_iter().zip(kinds) {
            match kind {
                Ok(true) => add_directory(&name, &mut paths, &mut progress),
                Err(error) if name != stdin => progress.report_image(&name, error),
                _ => paths.push(name),
            }
        }
        let batch_size = self.batch_size.unwrap_or_else(|| rayon::current_num_threads().max(8));
        let options = self.pictures.options(!self.no_exif);
        Ok((!paths.is_empty()).then_some(Images { paths, options, batch_size, progress }))
    }
}

/// The images of a command.
pub struct Images {
    paths: Vec<PathBuf>,
    options: Options,
    batch_size: usize,
    progress: Progress,
}

/// Images that could be loaded, as they run through the network together: none where none could.
pub struct Batch<'a> {
    /// What each is called.
    pub images: Vec<Image<'a>>,
    /// What the network sees of each.
    pub crops: Vec<RgbImage>,
}

/// What is known of an image that could be loaded.
pub struct Image<'a> {
    /// Its file, or `-`.
    pub path: &'a Path,
    /// What is wrong with it all the same; it has been said.
    pub warning: Option<String>,
}

impl Images {
    /// Their paths, those that cannot be read included.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// How they are decoded.
    pub fn options(&self) -> Options {
        self.options
    }

    /// How they are turned, in words.
    pub fn orientation(&self) -> &'static str {
        if self.options.exif { "turned upright" } else { "as stored" }
    }

    /// Loads all images, in their order and while the network computes, and hands them to `each` a batch at a time, with
    /// what it needs to print beside the progress bar. An image that cannot be read is reported, and left out of its
    /// batch. If a reader of standard output leaves, that ends the work without an error.
    ///
    /// Returns what could not be read.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn run(
        self,
        preprocess: &Preprocess,
        mut each: impl FnMut(&mut Progress, Batch) -> Result<()>,
    ) -> Result<Failures> {
        let Self { paths, options, batch_size, mut progress } = self;
        ensure_batch(batch_size.min(paths.len()), preprocess.crop)?;
        if paths.len() > batch_size {
            progress.bar = progress_bar(paths.len() as u64, "{wide_bar} {pos}/{len} images {per_sec} {eta}");
        }
        let workers = rayon::current_num_threads().min(paths.len());
        let (start, mut used) = (Instant::now(), Duration::ZERO);
        let load = |image: usize| load(&paths[image], options, preprocess);
        Ahead { batch_size, workers }.load(0..paths.len(), load, |loaded| -> Result<_> {
            let done = loaded.len();
            let batch = Batch::new(&paths, loaded, &mut progress);
            let since = Instant::now();
            let outcome = each(&mut progress, batch);
            used += since.elapsed();
            match outcome {
                // The reader has seen enough, but what was wrong before stays wrong.
                Err(error) if is_broken_pipe(&error) => return Ok(ControlFlow::Break(())),
                done => done?,
            }
            progress.bar.inc(done as u64);
            Ok(ControlFlow::Continue(()))
        })?;
        progress.bar.finish_and_clear();
        info(|| {
            let [all, used] = [start.elapsed(), used].map(|time| time.as_secs_f64());
            let (images, waited) = (count(paths.len() as u64, "image"), all - used);
            format!("{images} in {all:.3} s: network and output {used:.3} s, waiting for pictures {waited:.3} s")
        });
        Ok(progress.failures)
    }
}

/// The exit code says whether every image could be read.
pub fn exit_code(failures: &Failures) -> ExitCode {
    if failures.count > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl<'a> Batch<'a> {
    /// Those of the images that have crops; why others have none is reported.
    fn new(paths: &'a [PathBuf], loaded: Vec<(usize, Result<Crop>)>, progress: &mut Progress) -> Self {
        let mut batch = Self { images: Vec::new(), crops: Vec::new() };
        for (image, crop) in loaded {
            let path = &paths[image];
            match crop {
                Ok(Crop { pixels, warning }) => {
                    if let Some(warning) = &warning {
                        progress.bar.suspend(|| say_warning(path, warning));
                    }
                    batch.images.push(Image { path, warning });
                    batch.crops.push(pixels);
                }
                Err(error) => progress.report_image(path, error),
            }
        }
        batch
    }
}

/// How far a command is with its images.
pub struct Progress {
    /// Hidden where there are few.
    bar: ProgressBar,
    /// What could not be read.
    failures: Failures,
}

impl Progress {
    /// Writes a line of results to standard output.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print(&self, line: &str) -> Result<()> {
        self.bar.suspend(|| print(line))
    }

    /// Lets something else be written to the terminal.
    pub fn beside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Says why there is no result for an image; the exit code will be 1.
    pub fn report_image(&mut self, path: &Path, error: impl Into<anyhow::Error>) {
        self.report(&error.into().context(path.display().to_string()));
    }

    /// Says what is wrong, while the others are gone on with.
    fn report(&mut self, error: &anyhow::Error) {
        self.failures.count += 1;
        if self.failures.first.len() < LISTED {
            self.failures.first.push(one_line(error));
        }
        self.bar.suspend(|| say("error", &with_advice(error)));
    }
}

/// Adds the images below a directory, in the order of their paths. What cannot be read is reported, and the rest of
/// the directory is still searched.
fn add_directory(directory: &Path, images: &mut Vec<PathBuf>, progress: &mut Progress) {
    let (before, mut all) = (images.len(), true);
    // Not through links: they may lead in circles.
    for image in images_below(directory, Links::NotFollowed) {
        match image {
            // A directory or a link that leads nowhere may have an image's name too.
            Ok(image) if image.is_file() => images.push(image),
            Ok(_) => {}
            Err(error) => {
                all = false;
                progress.report(&error.into());
            }
        }
    }
    if images.len() == before && all {
        let directory = directory.display();
        progress.report(&anyhow!("{directory}: no images in this directory (known by their extension, such as .jpg)"));
    }
}

/// Reads, decodes, resizes and crops one image. The error does not name it.
fn load(path: &Path, options: Options, preprocess: &Preprocess) -> Result<Crop> {
    let bytes = match path.as_os_str() == "-" {
        true => read_bounded(std::io::stdin().lock(), 0)?,
        false => read_bounded(File::open(path)?, 0)?,
    };
    Ok(preprocess.crop_of(&bytes, path, options)?)
}
