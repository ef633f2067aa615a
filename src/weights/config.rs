//! What varies between QLNets, read off the shapes of their tensors.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// The dimensions of a network: enough to build it and to say the shape of every parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Channels that the stem makes of the image's three.
    pub stem_channels: usize,
    /// The layers, each a sequence of blocks.
    pub layers: Vec<Vec<BlockConfig>>,
    pub num_classes: usize,
}

/// The dimensions of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub skip: Skip,
}

/// How a block's input gets to its output, besides through the hidden channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// As it is.
    Identity,
    /// By a 1x1 convolution in the identity's place. Checkpoints have none; the symmetry GL(n) makes it,
    /// in folded weights.
    Linear,
    /// By a 1x1 convolution that changes width or stride. The block then ends in a hardball.
    Projection,
}

impl Skip {
    pub fn is_convolution(self) -> bool {
        self != Self::Identity
    }

    pub fn ends_in_hardball(self) -> bool {
        self == Self::Projection
    }
}

/// One convolution (or the final linear map) of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Its name among the folded parameters: `stem`, `layer1.0.conv1`, ..., `fc`.
    pub name: String,
    /// The shape of its weight, in PyTorch's order: output, input per group, height, width.
    pub shape: Vec<usize>,
}

/// The names that a file gives to the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// PyTorch's `state_dict`: convolutions without bias, each followed by a batch norm.
    StateDict,
    /// Ours: `{name}.weight` and `{name}.bias`, batch norm folded in.
    Folded,
}

impl Naming {
    /// The name of the weight of the convolution that we call `conv`.
    pub fn weight(self, conv: &str) -> String {
        match (self, conv.rsplit_once('.')) {
            (Naming::Folded, _) => format!("{conv}.weight"),
            (Naming::StateDict, Some((block, "conv2"))) => format!("{block}.conv2.weight"),
            (Naming::StateDict, Some(_)) => format!("{conv}.conv.weight"),
            (Naming::StateDict, None) if conv == "stem" => "conv1.weight".into(),
            (Naming::StateDict, None) => format!("{conv}.weight"),
        }
    }

    /// The name of its batch norm, if it has one.
    pub fn batch_norm(self, conv: &str) -> Option<String> {
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

    /// Reads the configuration off the tensors of a checkpoint: `names` are all it has, `shape`
    /// answers for one of them.
    ///
    /// # Errors
    /// If the tensors are not those of a QLNet; the message names the first that is missing or has
    /// another shape.
    pub fn infer<'a>(
        naming: Naming,
        names: impl Iterator<Item = &'a str>,
        shape: impl Fn(&str) -> Option<&'a [usize]>,
    ) -> Result<Self> {
        let depths = depths(names);
        let find = |conv: &str, expected: &str| {
            let name = naming.weight(conv);
            shape(&name).with_context(|| {
                format!("not a QLNet checkpoint: tensor `{name}` is missing (expected shape {expected})")
            })
        };
        let misshapen = |conv: &str, expected: &str, found: &[usize]| {
            anyhow::anyhow!("tensor `{}` has shape {found:?}, expected {expected}", naming.weight(conv))
        };

        let expected = "[stem, 3, 7, 7]";
        let stem = match find("stem", expected)? {
            &[stem, 3, 7, 7] if stem > 0 => stem,
            found => bail!(misshapen("stem", expected, found)),
        };
        ensure!(
            !depths.is_empty(),
            "not a QLNet checkpoint: tensor `{}` is missing (expected shape [2w, {stem}, 1, 1])",
            naming.weight("layer1.0.conv1")
        );
        let mut layers = Vec::new();
        let mut input = stem;
        for (i, depth) in depths.iter().enumerate() {
            let mut blocks = Vec::new();
            for j in 0..*depth {
                let name = |part: &str| format!("layer{}.{j}.{part}", i + 1);
                let expected = format!("[2w, {input}, 1, 1]");
                let hidden = match find(&name("conv1"), &expected)? {
                    &[rows, c, 1, 1] if c == input && rows > 0 && rows % 2 == 0 => rows / 2,
                    found => bail!(misshapen(&name("conv1"), &expected, found)),
                };
                let expected = format!("[o, a multiple of {hidden}, 1, 1]");
                let (output, filters) = match find(&name("conv3"), &expected)? {
                    &[output, columns, 1, 1] if output > 0 && columns > 0 && columns % hidden == 0 => {
                        (output, columns / hidden)
                    }
                    found => bail!(misshapen(&name("conv3"), &expected, found)),
                };
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                let linear = naming == Naming::Folded && shape(&naming.weight(&name("skip"))).is_some();
                let skip = match stride != 1 || input != output {
                    true => Skip::Projection,
                    false if linear => Skip::Linear,
                    false => Skip::Identity,
                };
                blocks.push(BlockConfig {
                    in_channels: input,
                    hidden_channels: hidden,
                    filters,
                    out_channels: output,
                    stride,
                    skip,
                });
                input = output;
            }
            layers.push(blocks);
        }
        let expected = format!("[classes, {input}]");
        let classes = match find("fc", &expected)? {
            &[classes, c] if c == input && classes > 0 => classes,
            found => bail!(misshapen("fc", &expected, found)),
        };
        Ok(Self { stem_channels: stem, layers, num_classes: classes })
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

    /// Channels that the last block hands to the head: the number of features of an image.
    pub fn num_features(&self) -> usize {
        self.layers.iter().flatten().last().map_or(self.stem_channels, |block| block.out_channels)
    }
}

/// Blocks per layer: one more than the largest index that a name mentions, up to the first layer
/// that none does.
fn depths<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut depths = std::collections::BTreeMap::<usize, usize>::new();
    for name in names {
        let Some((layer, rest)) = name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) else { continue };
        let Some((block, _)) = rest.split_once('.') else { continue };
        if let (Ok(layer), Ok(block)) = (layer.parse::<usize>(), block.parse::<u32>()) {
            let depth = depths.entry(layer).or_default();
            *depth = (*depth).max(block as usize + 1);
        }
    }
    (1..).map_while(|layer| depths.get(&layer).copied()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn shapes(config: &Config, naming: Naming) -> BTreeMap<String, Vec<usize>> {
        config.convs().into_iter().map(|conv| (naming.weight(&conv.name), conv.shape)).collect()
    }

    fn infer(shapes: &BTreeMap<String, Vec<usize>>, naming: Naming) -> Result<Config> {
        Config::infer(naming, shapes.keys().map(String::as_str), |name| shapes.get(name).map(Vec::as_slice))
    }

    #[test]
    fn a_config_is_read_back_from_its_own_shapes() {
        for naming in [Naming::StateDict, Naming::Folded] {
            assert_eq!(infer(&shapes(&Config::qlnet_50_v0(), naming), naming).unwrap(), Config::qlnet_50_v0());
        }
        // The parameters of the paper: a weight, and of its batch norm two values per channel.
        let parameters = |conv: &Conv| {
            let per_channel = if conv.name == "fc" { 1 } else { 2 };
            conv.shape.iter().product::<usize>() + per_channel * conv.shape[0]
        };
        assert_eq!(Config::qlnet_50_v0().convs().iter().map(parameters).sum::<usize>(), 9_993_640);
        assert_eq!(Config::qlnet_10m().convs().iter().map(parameters).sum::<usize>(), 10_064_296);
    }

    #[test]
    fn the_tensor_at_fault_is_named() {
        let good = shapes(&Config::qlnet_50_v0(), Naming::StateDict);
        type Shapes = BTreeMap<String, Vec<usize>>;
        let message = |change: fn(&mut Shapes)| {
            let mut shapes = good.clone();
            change(&mut shapes);
            format!("{:#}", infer(&shapes, Naming::StateDict).unwrap_err())
        };
        let gone = message(|s| drop(s.remove("layer3.2.conv1.conv.weight")));
        assert!(gone.contains("`layer3.2.conv1.conv.weight` is missing (expected shape [2w, 256, 1, 1])"), "{gone}");
        let odd = message(|s| drop(s.insert("layer1.1.conv1.conv.weight".into(), vec![512, 32, 1, 1])));
        assert!(odd.contains("has shape [512, 32, 1, 1], expected [2w, 64, 1, 1]"), "{odd}");
        let other = message(|s| s.retain(|name, _| !name.starts_with("layer")));
        assert!(other.contains("not a QLNet checkpoint"), "{other}");
    }
}
