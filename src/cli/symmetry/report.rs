//! The path as a page: along all families at once, and along each by itself.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{Asked, Header, Symmetry, number};
use crate::cli::print::progress_bar;
use crate::page::Fact;
use crate::symmetry::page::{Course, Walk, page};
use crate::symmetry::path::Step;
use crate::symmetry::{FAMILIES, Family};

/// No more images are shown on a page: each runs through all the networks.
const MOST_IMAGES: usize = 12;

/// Steps on the paths of a page: all of their weights and answers are in it, and in memory.
const MOST_STEPS: usize = 100;

/// Refuses more images, or steps, than a page shows.
pub fn ensure_few(args: &Symmetry) -> Result<()> {
    let (images, steps) = (args.image.len(), args.path.unwrap_or_default());
    ensure!(images <= MOST_IMAGES, "a page shows at most {MOST_IMAGES} images, and {images} are named by --image");
    ensure!(steps <= MOST_STEPS, "a page shows at most {MOST_STEPS} steps, and --path asks for {steps}");
    Ok(())
}

/// All paths of a page, the one along `together` first; `each` sees its places. If no family is named, general-linear
/// has a path too, beside those that keep the architecture.
pub fn walks(
    course: &Course,
    together: &[&dyn Family],
    named: &[String],
    each: impl Fn(&Step) -> Result<()>,
) -> Result<Vec<Walk>> {
    let config = course.subject.weights().config();
    let is_meant = |family: &&'static dyn Family| {
        let joins = together.iter().any(|other| other.name() == family.name());
        (joins || named.is_empty()) && family.dimensions(config, course.layer) > 0
    };
    let mut single: Vec<&'static dyn Family> = FAMILIES.into_iter().filter(is_meant).collect();
    if let ([one], [other]) = (single.as_slice(), together)
        && one.name() == other.name()
    {
        // The path of the only family is there already.
        single.clear();
    }
    let places = (single.len() + 1) * (course.steps + 1);
    let bar = progress_bar(places as u64, "{msg} {wide_bar} {pos}/{len} places, {eta} left");
    bar.set_message("all together");
    let mut walks = vec![course.walk(together, |step| {
        bar.inc(1);
        bar.suspend(|| each(step))
    })?];
    for family in single {
        bar.set_message(family.name());
        walks.push(course.walk(&[family], |_| {
            bar.inc(1);
            Ok::<(), anyhow::Error>(())
        })?);
    }
    bar.finish_and_clear();
    Ok(walks)
}

/// What a page is made of.
pub struct Report<'a> {
    pub course: Course<'a>,
    pub walks: Vec<Walk>,
    pub asked: &'a Asked,
    pub header: &'a Header,
}

impl Report<'_> {
    /// The page.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn page(&self) -> Result<String> {
        let Self { course, walks, asked, header } = self;
        let model = Path::new(&header.model).file_name().unwrap_or_default().to_string_lossy();
        Ok(page(course, walks, &asked.pictures, &model, &self.facts())?)
    }

    fn facts(&self) -> Vec<Fact> {
        let Self { course: Course { scale, steps, layer, seed, .. }, asked, header, .. } = self;
        let sha256 = asked.weights_sha256.as_deref();
        let layer = layer.map_or_else(String::new, |layer| format!(", what begins in layer {layer}"));
        let facts = [
            Fact::new("model", &header.model),
            match sha256 {
                Some(sha256) => Fact::with_code("weights", "SHA-256", sha256),
                None => Fact::new("weights", "random"),
            },
            Fact::new("computed", format!("in {} on {}; weights moved in f64", header.dtype, header.device)),
            Fact::new("paths", format!("exp(t A) for t from 0 to {scale} in {steps} steps, seed {seed}{layer}")),
            Fact::new(
                "outputs",
                format!(
                    "the largest is {}; rounding may move one by {:.1e} of that",
                    number(header.largest_logit),
                    header.tolerance
                ),
            ),
            Fact::new("program", concat!("qlnet ", env!("CARGO_PKG_VERSION"))),
        ];
        facts.into_iter().chain(asked.origin.facts()).collect()
    }
}
