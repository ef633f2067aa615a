//! `qlnet features`: what the network makes of pictures before it decides on a class.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail, ensure};
use candle_core::Tensor;
use clap::Args;

use super::arguments::{ModelArgs, PreprocessArgs};
use super::images::{Batch, ImageArgs, Progress, exit_code};
use super::interruption::{INTERRUPTED, interruption};
use super::output::{ensure_distinct, ensure_images_stay};
use super::print::{say, say_warning};
use crate::error::Error;
use crate::features::{About, Format, Writer};
use crate::network::classifier::Classifier;
use crate::network::{Precision, device};
use crate::output::Output;
use crate::text::thousands;

/// Write what the network makes of pictures, as numbers
///
/// The features of an image are the means of the network's last activation over all places, 512 numbers, of which the
/// logits are an affine function. The rows are in the order of the images. An image that cannot be read is reported
/// and has no row; the exit code is then 1. Rows are written as they come: of many images no more than the paths are in
/// memory.
///
/// NAME.npy has the array [n, 512], and NAME.paths.jsonl beside it the image of each row, {"image"}, with
/// "image_base64" if its name is not UTF-8. NAME.safetensors has the tensor `features`, and in its metadata `paths` (a
/// JSON array), `model`, `weights_sha256`, `layer`, `preprocessing`, `dtype` and `device`. NAME.csv has the image in the first column.
/// The files appear when they are complete.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Features {
    /// The file to write: .npy, .safetensors or .csv
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// The layer whose output is taken
    ///
    /// `stem` (after the pool), `layer1` to `layer4`, one of their blocks such as `layer3.0`, or `act`, the last
    /// activation.
    #[arg(long, value_name = "NAME", default_value = "act")]
    layer: String,
    /// Write the whole map of an image, not the means over its places
    ///
    /// Rows are then [channels, height, width], as PyTorch's hooks see them.
    #[arg(long)]
    unpooled: bool,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  qlnet features photos --out photos.npy                           numpy.load('photos.npy')
  qlnet features photos --out photos.safetensors --layer layer3    means of another layer
  find /archive -name '*.jpg' -print0 |
    qlnet features --image-list - -0 --out archive.npy             more names than fit in a command
  qlnet features samples/digits --model qlnet-digits --out d.csv   no download";

/// Writes the features of the pictures that the arguments name.
pub fn run(args: &Features) -> Result<ExitCode> {
    ensure!(
        args.model.precision() != Precision::Int8,
        "for int8 the weights are moved along the symmetry, which turns the channels of layers: features would be others; \
         use --dtype bf16"
    );
    let preprocess = args.preprocess.resolve(args.model.registered())?;
    let files = Writer::files(&args.out)?;
    let read = [args.model.weights.clone(), args.images.list().map(Path::to_path_buf)];
    ensure_distinct(&files, &read.into_iter().flatten().collect::<Vec<_>>())?;
    files.iter().try_for_each(|file| Output::create(file).map(drop))?;
    let Some(images) = args.images.find()? else { return Ok(ExitCode::FAILURE) };
    ensure_images_stay(&files, images.paths())?;
    let (classifier, weights_sha256) = args.model.load(preprocess)?;
    let layers = classifier.layers();
    if !layers.contains(&args.layer) {
        return Err(Error::UnknownLayer { name: args.layer.clone(), layers }.into());
    }
    let about = About {
        model: args.model.shown_name(),
        weights_sha256,
        layer: args.layer.clone(),
        preprocessing: format!("{preprocess}, {}", images.orientation()),
        dtype: classifier.precision().name(),
        device: device::name(classifier.device()),
    };
    let mut writer = Writer::create(&args.out, about, images.paths())?;
    let table = Format::of(&args.out)? == Format::Csv;
    let (interrupted, count) = (interruption()?, images.paths().len());
    let outcome = images.run(&preprocess, |progress, batch| {
        let (paths, rows) = match batch.images.is_empty() {
            true => Default::default(),
            false => features(args, &classifier, &batch, progress)?,
        };
        for path in paths.iter().filter(|path| table && path.to_str().is_none()) {
            progress.beside(|| say_warning(path, "its name is not UTF-8, and is not written to the byte"));
        }
        if let Some(rows) = rows {
            writer.append(&paths, &rows)?;
        }
        if interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    });
    let of = thousands(count as u64);
    if interrupted.load(Ordering::Relaxed) && outcome.is_err() {
        let rows = thousands(writer.rows() as u64);
        say("interrupted", &format!("{} is not written, after {rows} of {of} images", args.out.display()));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let code = exit_code(&outcome?);
    let rows = thousands(writer.rows() as u64);
    let shape = writer.shape().unwrap_or_default().iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    writer.finish()?;
    let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    say("note", &format!("{rows} of {of} images, {shape} numbers each: {}", names.join(", ")));
    Ok(code)
}

/// The paths and the rows of those images of a batch that have finite ones; others are reported.
fn features<'a>(
    args: &Features,
    classifier: &Classifier,
    batch: &Batch<'a>,
    progress: &mut Progress,
) -> Result<(Vec<&'a Path>, Option<Tensor>)> {
    let images = classifier.batch(&batch.crops)?;
    let rows = match args.unpooled {
        true => classifier.activations(&images, &args.layer),
        false => classifier.pooled(&images, &args.layer),
    }?;
    let (mut paths, mut finite) = (Vec::new(), Vec::new());
    for (place, image) in batch.images.iter().enumerate() {
        let row = rows.narrow(0, place, 1)?;
        match classifier.check_finite(&row.flatten_all()?.to_vec1::<f32>()?) {
            Ok(()) => {
                paths.push(image.path);
                finite.push(row);
            }
            Err(error) => progress.report_image(image.path, error),
        }
    }
    let all = finite.len() == batch.images.len();
    let rows = match () {
        () if all => Some(rows),
        () if finite.is_empty() => None,
        () => Some(Tensor::cat(&finite, 0)?),
    };
    Ok((paths, rows))
}
