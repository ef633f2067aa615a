//! Reads the dimensions of a network off the names and shapes of its tensors.

use std::collections::BTreeMap;

use crate::error::{Context, Reason, ensure};
use crate::weights::config::{BlockConfig, Config, Naming, Skip};

impl Config {
    /// Reads the configuration off the tensors of a checkpoint: `names` are the names of all tensors, and
    /// `shape` gives the shape of the tensor with that name.
    ///
    /// # Errors
    /// If the tensors are not those of a QLNet, and the message names the first that is missing or has another shape; or
    /// if they are those of a network that is [too large](Config::check).
    pub(super) fn infer<'a>(
        naming: Naming,
        names: impl Iterator<Item = &'a str>,
        shape: impl Fn(&str) -> Option<&'a [usize]>,
    ) -> Result<Self, Reason> {
        let depths = depths(names);
        let tensors = Shapes { naming, shape };
        let stem_channels = tensors.read("stem", "[stem, 3, 7, 7]", |shape| match shape {
            &[stem, 3, 7, 7] if stem > 0 => Some(stem),
            _ => None,
        })?;
        ensure!(
            !depths.is_empty(),
            "not a QLNet checkpoint: tensor `{}` is missing (expected shape [2w, {stem_channels}, 1, 1])",
            naming.weight("layer1.0.conv1")
        );
        let mut layers = Vec::new();
        let mut input = stem_channels;
        for (i, depth) in depths.into_iter().enumerate() {
            let mut blocks = Vec::new();
            for j in 0..depth {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                let block = tensors.block(&format!("layer{}.{j}", i + 1), input, stride)?;
                input = block.out_channels;
                blocks.push(block);
            }
            layers.push(blocks);
        }
        let num_classes = tensors.read("fc", &format!("[classes, {input}]"), |shape| match shape {
            &[classes, c] if c == input && classes > 0 => Some(classes),
            _ => None,
        })?;
        let config = Self { stem_channels, layers, num_classes };
        // Before anybody folds weights whose kernels are shared by millions of channels.
        config.check()?;
        Ok(config)
    }
}

/// The shapes of a checkpoint's tensors, by name.
struct Shapes<F> {
    naming: Naming,
    shape: F,
}

impl<'a, F: Fn(&str) -> Option<&'a [usize]>> Shapes<F> {
    /// Reads dimensions off the weight of a convolution. `dimensions` gives none if the shape is not of the
    /// `expected` form.
    fn read<T>(&self, conv: &str, expected: &str, dimensions: impl Fn(&[usize]) -> Option<T>) -> Result<T, Reason> {
        let name = self.naming.weight(conv);
        let shape = (self.shape)(&name).with_context(|| {
            format!("not a QLNet checkpoint: tensor `{name}` is missing (expected shape {expected})")
        })?;
        dimensions(shape).with_context(|| format!("tensor `{name}` has shape {shape:?}, expected {expected}"))
    }

    /// The dimensions of a block that takes so many channels.
    fn block(&self, name: &str, in_channels: usize, stride: usize) -> Result<BlockConfig, Reason> {
        let conv1 = format!("[2w, {in_channels}, 1, 1]");
        let hidden_channels = self.read(&format!("{name}.conv1"), &conv1, |shape| match shape {
            &[rows, c, 1, 1] if c == in_channels && rows > 0 && rows % 2 == 0 => Some(rows / 2),
            _ => None,
        })?;
        let conv3 = format!("[o, a multiple of {hidden_channels}, 1, 1]");
        let (out_channels, filters) = self.read(&format!("{name}.conv3"), &conv3, |shape| match shape {
            &[out, columns, 1, 1] if out > 0 && columns > 0 && columns % hidden_channels == 0 => {
                Some((out, columns / hidden_channels))
            }
            _ => None,
        })?;
        let skip = self.naming.weight(&format!("{name}.skip"));
        let skip = match stride != 1 || in_channels != out_channels {
            true => Skip::Projection,
            false if self.naming == Naming::Folded && (self.shape)(&skip).is_some() => Skip::Linear,
            false => Skip::Identity,
        };
        Ok(BlockConfig { in_channels, hidden_channels, filters, out_channels, stride, skip })
    }
}

/// Blocks per layer: one more than the largest index that a name mentions, up to the first layer
/// that no name mentions.
fn depths<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut depths = BTreeMap::<usize, usize>::new();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::config::Conv;

    fn shapes(config: &Config, naming: Naming) -> BTreeMap<String, Vec<usize>> {
        config.convs().into_iter().map(|conv| (naming.weight(&conv.name), conv.shape)).collect()
    }

    fn infer(shapes: &BTreeMap<String, Vec<usize>>, naming: Naming) -> Result<Config, Reason> {
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
    fn a_network_that_is_too_large_is_none() {
        for naming in [Naming::StateDict, Naming::Folded] {
            let deep = shapes(&Config::new(1, &[(1, 1); 66], 0, 1, 2), naming);
            let error = infer(&deep, naming).unwrap_err().to_string();
            assert_eq!(error, "the network has 66 layers, and at most 16 are allowed");
            let filters = shapes(&Config::new(1, &[(1, 1)], 0, 100, 2), naming);
            let error = infer(&filters, naming).unwrap_err().to_string();
            assert_eq!(error, "layer1.0 has 100 filters for each hidden channel, and at most 16 are allowed");
        }
    }

    #[test]
    fn the_tensor_at_fault_is_named() {
        let good = shapes(&Config::qlnet_50_v0(), Naming::StateDict);
        type Shapes = BTreeMap<String, Vec<usize>>;
        let message = |change: fn(&mut Shapes)| {
            let mut shapes = good.clone();
            change(&mut shapes);
            infer(&shapes, Naming::StateDict).unwrap_err().to_string()
        };
        let gone = message(|s| drop(s.remove("layer3.2.conv1.conv.weight")));
        assert!(gone.contains("`layer3.2.conv1.conv.weight` is missing (expected shape [2w, 256, 1, 1])"), "{gone}");
        let odd = message(|s| drop(s.insert("layer1.1.conv1.conv.weight".into(), vec![512, 32, 1, 1])));
        assert!(odd.contains("has shape [512, 32, 1, 1], expected [2w, 64, 1, 1]"), "{odd}");
        let other = message(|s| s.retain(|name, _| !name.starts_with("layer")));
        assert!(other.contains("not a QLNet checkpoint"), "{other}");
    }
}
