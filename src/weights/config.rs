//! What varies between QLNets: the dimensions of the network, and the names of its parameters.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Reason, ensure};

/// The dimensions of a network: enough to build it and to say the shape of every parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Channels that the stem makes of the image's three.
    pub stem_channels: usize,
    /// The layers, each a sequence of blocks.
    pub layers: Vec<Vec<BlockConfig>>,
    /// Number of outputs.
    pub num_classes: usize,
}

/// The dimensions of one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockConfig {
    /// Channels that enter (`c` in the paper).
    pub in_channels: usize,
    /// Hidden channels (`w`): `conv1` makes `2w` of them, their product `w`.
    pub hidden_channels: usize,
    /// Depthwise filters per hidden channel: 2 in qlnet-50-v0, 1 in qlnet-10m.
    pub filters: usize,
    /// Channels that leave (`o`).
    pub out_channels: usize,
    /// Stride of `conv2` and of the skip: 2 in the first block of every layer but the first.
    pub stride: usize,
    /// How the input gets to the output besides.
    pub skip: Skip,
}

/// How the input of a block gets to its output, besides through the hidden channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Skip {
    /// Unchanged.
    Identity,
    /// Through a 1x1 convolution that keeps width and stride. PyTorch's network has none; the symmetry GL(n)
    /// makes it, in folded weights.
    Linear,
    /// Through a 1x1 convolution that changes width or stride. The block then ends in a hardball.
    Projection,
}

impl Skip {
    /// Whether the skip has parameters.
    pub fn is_convolution(self) -> bool {
        self != Self::Identity
    }

    /// Whether the sum of skip and hidden channels goes through a hardball.
    pub fn ends_in_hardball(self) -> bool {
        self == Self::Projection
    }
}

/// One convolution of the network, or its final linear map, which has weight and bias likewise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Its name among the folded parameters: `stem`, `layer1.0.conv1`, ..., `fc`.
    pub name: String,
    /// The shape of its weight, in PyTorch's order: output, input per group, height, width.
    pub shape: Vec<usize>,
}

/// How the parameters are called in a checkpoint. Both ways of naming begin with the name of the block, such
/// as `layer1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As in PyTorch's `state_dict`: convolutions without bias, each followed by a batch norm.
    /// `layer1.0.conv1.conv.weight`, `layer1.0.conv1.bn.running_mean`, ...
    StateDict,
    /// As in the files that this crate writes: `layer1.0.conv1.weight` and `layer1.0.conv1.bias`, with batch
    /// norm folded in.
    Folded,
}

impl Naming {
    /// The name of the weight of a convolution, given its [`Conv::name`].
    pub(super) fn weight(self, conv: &str) -> String {
        match (self, conv.rsplit_once('.')) {
            (Naming::Folded, _) => format!("{conv}.weight"),
            (Naming::StateDict, Some((block, "conv2"))) => format!("{block}.conv2.weight"),
            (Naming::StateDict, Some(_)) => format!("{conv}.conv.weight"),
            (Naming::StateDict, None) if conv == "stem" => "conv1.weight".into(),
            (Naming::StateDict, None) => format!("{conv}.weight"),
        }
    }

    /// The name of the batch norm that follows a convolution, if one does, given the [`Conv::name`].
    pub(super) fn batch_norm(self, conv: &str) -> Option<String> {
        match (self, conv.rsplit_once('.')) {
            (Naming::Folded, _) => None,
            (Naming::StateDict, Some((block, "conv2"))) => Some(format!("{block}.bn2")),
            (Naming::StateDict, Some(_)) => Some(format!("{conv}.bn")),
            (Naming::StateDict, None) => (conv == "stem").then(|| "bn1".into()),
        }
    }
}

impl Config {
    /// A network of the paper's kind. `layers` has width and number of blocks of each; the first block of
    /// every layer but the first has stride 2, and where a block changes the width or has a stride, its
    /// skip is a projection. A block with `c` input channels has `4c` hidden ones if `c` is at most
    /// `wide_up_to`, and `2c` above.
    pub fn new(stem: usize, layers: &[(usize, usize)], wide_up_to: usize, filters: usize, classes: usize) -> Self {
        let mut input = stem;
        let block = |i: usize, j: usize, output: usize, input: &mut usize| {
            let input = std::mem::replace(input, output);
            let hidden = if input <= wide_up_to { 4 * input } else { 2 * input };
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            let skip = if stride != 1 || input != output { Skip::Projection } else { Skip::Identity };
            BlockConfig { in_channels: input, hidden_channels: hidden, filters, out_channels: output, stride, skip }
        };
        let layers = layers
            .iter()
            .enumerate()
            .map(|(i, (output, depth))| (0..*depth).map(|j| block(i, j, *output, &mut input)).collect());
        Self { stem_channels: stem, layers: layers.collect(), num_classes: classes }
    }

    /// The dimensions of qlnet-50-v0, as the paper has them.
    pub fn qlnet_50_v0() -> Self {
        Self::new(64, &[(64, 3), (128, 4), (256, 6), (512, 3)], 128, 2, 1000)
    }

    /// The dimensions of qlnet-10m and qlnet-10m-ks, as their files have them.
    pub fn qlnet_10m() -> Self {
        Self::new(64, &[(64, 3), (128, 4), (256, 6), (512, 3)], 256, 1, 1000)
    }

    /// The dimensions of the network that is built in.
    pub fn qlnet_digits() -> Self {
        Self::new(16, &[(16, 1), (24, 2), (32, 2), (48, 1)], 24, 2, 10)
    }

    /// Checks that the blocks fit each other: nothing is empty, each block takes what the one before makes, and
    /// only a projection changes width or size. No number is so large that a small file would take the memory or the
    /// time of a large one.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        let mut channels = self.stem_channels;
        for block in self.layers.iter().flatten() {
            let &BlockConfig { in_channels, hidden_channels, filters, out_channels, stride, skip } = block;
            let sizes = [in_channels, hidden_channels, filters, out_channels, stride];
            ensure!(sizes.iter().all(|size| *size > 0), "a block has a size of zero: {block:?}");
            ensure!(in_channels == channels, "a block takes {in_channels} channels, and gets {channels}");
            let keeps = stride == 1 && in_channels == out_channels;
            ensure!(keeps || skip == Skip::Projection, "only a projection changes width or size: {block:?}");
            channels = out_channels;
        }
        ensure!(self.stem_channels > 0 && self.num_classes > 0, "a network without channels or classes");
        self.check_bounds()
    }

    /// Every convolution of the network, in the order in which they run.
    pub fn convs(&self) -> Vec<Conv> {
        let mut convs = vec![Conv { name: "stem".into(), shape: vec![self.stem_channels, 3, 7, 7] }];
        for (i, blocks) in self.layers.iter().enumerate() {
            for (j, b) in blocks.iter().enumerate() {
                let mut add =
                    |part: &str, shape| convs.push(Conv { name: format!("layer{}.{j}.{part}", i + 1), shape });
                let rows = b.filters * b.hidden_channels;
                add("conv1", vec![2 * b.hidden_channels, b.in_channels, 1, 1]);
                add("conv2", vec![rows, 1, 3, 3]);
                add("conv3", vec![b.out_channels, rows, 1, 1]);
                if b.skip.is_convolution() {
                    add("skip", vec![b.out_channels, b.in_channels, 1, 1]);
                }
            }
        }
        convs.push(Conv { name: "fc".into(), shape: vec![self.num_classes, self.num_features()] });
        convs
    }

    /// Whether the symmetry GL(n) has made skips explicit.
    pub fn has_explicit_skips(&self) -> bool {
        self.layers.iter().flatten().any(|block| block.skip == Skip::Linear)
    }

    /// Pixels of the image from one place of the last activation to the next: 32 in every published network.
    pub fn stride(&self) -> usize {
        // The stem's convolution and pool halve the image's sides. What no image reaches is as good as the largest
        // number; a product that wraps may be zero, and places are divided by it.
        self.layers.iter().flatten().fold(4, |stride, block| stride.saturating_mul(block.stride))
    }

    /// Channels that the last block hands to the head: the number of features of an image.
    pub fn num_features(&self) -> usize {
        self.layers.iter().flatten().last().map_or(self.stem_channels, |block| block.out_channels)
    }
}

impl fmt::Display for Config {
    /// `stem 64, layers 3x64 4x128 6x256 3x512, 1000 classes`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stem {}, layers", self.stem_channels)?;
        for blocks in &self.layers {
            write!(f, " {}x{}", blocks.len(), blocks.last().map_or(0, |b| b.out_channels))?;
        }
        write!(f, ", {} classes", self.num_classes)
    }
}
