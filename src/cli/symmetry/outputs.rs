//! The files that are written when the symmetry has been shown.

use std::path::PathBuf;

use anyhow::Result;

use super::arguments::Symmetry;
use crate::cli::output::{create, ensure_distinct, ensure_ending};
use crate::output::Output;
use crate::symmetry::plot;
use crate::weights::Weights;

/// The files that are written at the end.
pub struct Outputs {
    pub plot: Option<Output>,
    pub csv: Option<Output>,
    pub report: Option<Output>,
    save: Option<Output>,
    save_state_dict: Option<Output>,
}

impl Outputs {
    /// Checks their names, and that they can be written.
    ///
    /// # Errors
    /// If one cannot, or would be written over another file of this run.
    pub fn create(args: &Symmetry) -> Result<Self> {
        let files = [&args.plot, &args.csv, &args.report, &args.save, &args.save_state_dict];
        let paths = |files: &[&Option<PathBuf>]| files.iter().filter_map(|file| (*file).clone()).collect::<Vec<_>>();
        ensure_distinct(&paths(&files), &[paths(&[&args.model.weights]), args.image.clone()].concat())?;
        if let Some(file) = &args.plot {
            plot::format(file)?;
        }
        let name = "the name of this file";
        ensure_ending(&args.csv, &["csv"], name)?;
        ensure_ending(&args.report, &["html"], name)?;
        ensure_ending(&args.save, &["safetensors"], name)?;
        ensure_ending(&args.save_state_dict, &["safetensors"], name)?;
        let [plot, csv, report, save, save_state_dict] = files.map(create);
        Ok(Self { plot: plot?, csv: csv?, report: report?, save: save?, save_state_dict: save_state_dict? })
    }

    /// Writes what is asked for of the weights that `moved` makes.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(self, moved: impl FnOnce() -> Result<Weights>) -> Result<()> {
        if self.save.is_none() && self.save_state_dict.is_none() {
            return Ok(());
        }
        let weights = moved()?;
        let mut files = Vec::new();
        if let Some(output) = self.save {
            files.push((output, weights.to_safetensors()?));
        }
        if let Some(output) = self.save_state_dict {
            files.push((output, weights.to_state_dict()?));
        }
        files.into_iter().try_for_each(|(output, bytes)| Ok(output.write(&bytes)?))
    }
}
