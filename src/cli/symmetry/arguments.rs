//! The arguments of `qlnet symmetry`.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, Args, Command};

use crate::cli::arguments::{ModelArgs, positive, scale};
use crate::symmetry::FAMILIES;

/// Move the weights along the symmetry; the output stays
///
/// Draws an element of each family of the network's symmetry, applies it to the weights, and compares
/// the logits; beside it runs a control, half of the same element, which is no symmetry and must change
/// them. The exit code is 1 if a logit moves by more than rounding explains, or a control does not.
///
/// Columns: dimensions of the family; how far the weights moved, relative to the norm of the tensors that
/// did; the largest change of a logit, and of one under the control, relative to the largest logit; share of
/// the images whose most likely class stays. `all together`, which is also what is saved, is every family
/// but general-linear, which changes the architecture and joins the others only if it is named.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Symmetry {
    /// The same number draws the same elements
    ///
    /// And the same noise and untrained weights.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Only these families, separated by commas
    ///
    /// stage-rotation, stem-scaling, product-balance, product-scale, filter-mixing, conv2-bias-shift, stream-shift,
    /// skip-bias-shift, hidden-permutation, factor-swap, general-linear.
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', value_parser = FamilyName::parser())]
    #[arg(hide_possible_values = true)]
    pub family: Vec<String>,
    /// Only what begins in this layer, from 1
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub layer: Option<usize>,
    /// How far to go, from 0 to 3
    ///
    /// Along a one-parameter subgroup, instead of drawing an element from all of the group. At 1 the weights have
    /// changed by about half. Discrete families go as far as ever.
    #[arg(long, value_name = "S", value_parser = scale)]
    pub scale: Option<f64>,
    /// Run on these images
    ///
    /// Instead of two digits and two images of noise.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub image: Vec<PathBuf>,
    /// Take random weights in the model's dimensions
    ///
    /// Nothing is downloaded.
    #[arg(long, conflicts_with = "weights")]
    pub untrained: bool,
    /// Print one JSON object
    ///
    /// {"passed", "tolerance", "families": [{"family", "dimensions", "weight_change", "logit_change",
    /// "control_logit_change", "passed"}], ...}, changes relative.
    #[arg(long)]
    pub json: bool,
    /// Walk in N steps to --scale (or 1)
    ///
    /// In each continuous family along a one-parameter subgroup.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub path: Option<usize>,
    /// Draw the path, as .svg or .png
    #[arg(long, value_name = "FILE", requires = "path")]
    pub plot: Option<PathBuf>,
    /// Write a page with a slider along the path, as .html
    ///
    /// It shows how weights change, that the answers to the images do not, and what half of the move does: along all
    /// families at once and along each by itself. Without --image it asks about two digits. With --json the numbers
    /// on the page are under "walks": [{"family", "dimensions", "passed", "path": [{"t", "weight_change",
    /// "logit_change", "control_logit_change", "top": [[{"index", "label", "probability", "logit"}]], "control_top"}]}],
    /// "top" for each image.
    #[arg(long, value_name = "FILE", requires = "path")]
    pub report: Option<PathBuf>,
    /// Write the path as .csv
    #[arg(long, value_name = "FILE", requires = "path")]
    pub csv: Option<PathBuf>,
    /// Count the symmetries of a small network
    ///
    /// Count the directions that leave its logits where they are, and compare with the dimensions of the families: of a
    /// network that is made for it, with random weights, or of --weights.
    #[arg(long, conflicts_with_all = [
        "path", "plot", "report", "csv", "save", "save_state_dict", "layer", "scale", "image", "dtype", "device",
    ])]
    pub audit: bool,
    /// Even out the weights for half precision
    ///
    /// By product balance, product scale and scalings of filters; shows what that does to the logits in half precision.
    #[arg(long, conflicts_with_all = ["path", "plot", "report", "csv", "audit", "family", "layer", "scale"])]
    pub balance: bool,
    /// Move the weights to where eight bits hurt least
    ///
    /// Shows what each step of that brings to the logits in int8, and that it does not depend on where the weights
    /// were. With --json {"rows": [{"weights", "error",
    /// "logit_change", "control_logit_change"}], "moved": [{"seed", "error", "prepared_error", "logit_change"}], ...}.
    #[arg(long, conflicts_with_all = ["path", "plot", "report", "csv", "audit", "balance", "family", "layer", "scale"])]
    pub quantise: bool,
    /// Save the moved weights, folded, as .safetensors
    ///
    /// In float32, with batch norm folded in.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    pub save: Option<PathBuf>,
    /// Save them as PyTorch's state_dict, as .safetensors
    ///
    /// With its names and shapes; depthwise kernels that were shared are written out.
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    pub save_state_dict: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  qlnet symmetry --model qlnet-digits                    each family; no download
  qlnet symmetry --path 40 --report symmetry.html        a page with a slider along the path
  qlnet symmetry --path 20 --plot path.svg               how far weights and logits move
  qlnet symmetry --family stage-rotation --scale 0.5     one family, not far
  qlnet symmetry --audit                                 the list of families is complete
  qlnet symmetry --save-state-dict moved.safetensors     other weights with the same output";

/// Takes the name of a family, with blanks around it: after a comma they are easily written.
#[derive(Clone)]
struct FamilyName(PossibleValuesParser);

impl FamilyName {
    fn parser() -> Self {
        Self(PossibleValuesParser::new(FAMILIES.map(|family| family.name())))
    }
}

impl TypedValueParser for FamilyName {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        self.0.parse_ref(command, arg, value.to_str().map_or(value, |name| name.trim().as_ref()))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}
