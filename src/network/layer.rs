//! The steps of the network by name, and what they make of images.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::network::classifier::Classifier;
use crate::weights::config::Config;

/// A step of the network.
struct Layer {
    /// As in PyTorch's module tree.
    name: String,
    /// Blocks that have run after it.
    blocks: usize,
    /// Whether the hardball that follows the last block has.
    act: bool,
}

/// Every step that has a name, in order; a layer comes after its last block, whose output is the layer's.
fn layers(config: &Config) -> Vec<Layer> {
    let mut blocks = 0;
    let mut all = vec![Layer { name: "stem".into(), blocks, act: false }];
    for (i, layer) in config.layers.iter().enumerate() {
        for j in 0..layer.len() {
            blocks += 1;
            all.push(Layer { name: format!("layer{}.{j}", i + 1), blocks, act: false });
        }
        all.push(Layer { name: format!("layer{}", i + 1), blocks, act: false });
    }
    all.push(Layer { name: "act".into(), blocks, act: true });
    all
}

impl Classifier {
    /// The names of the steps whose output [`Self::activations`] gives, in their order: `stem` (after the pool),
    /// `layer1.0` and every other block, `layer1` (the output of its last block), ..., and `act`, the last hardball.
    pub fn layers(&self) -> Vec<String> {
        layers(self.net().config()).into_iter().map(|layer| layer.name).collect()
    }

    /// The output of a step, `[n, channels, height, width]` in float32 on the CPU, for normalised images
    /// `[n, 3, h, w]`: what a hook of PyTorch sees. Later steps are not computed.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`] if [`Self::layers`] has no such name; otherwise as [`Self::logits`].
    pub fn activations(&self, images: &Tensor, layer: &str) -> Result<Tensor> {
        self.step(images, layer, |x| x.permute((0, 3, 1, 2))?.contiguous())
    }

    /// The mean over all places of the output of a step, `[n, channels]` in float32 on the CPU. Of `act` these are
    /// the [features](Self::features).
    ///
    /// ```
    /// let classifier = qlnet::Classifier::from_model("qlnet-digits")?;
    /// let image = qlnet::image::open("samples/digits/3-45.png")?.into_rgb8();
    /// let images = qlnet::input::to_tensor(&[classifier.preprocess().apply(&image)?])?;
    /// assert_eq!(classifier.pooled(&images, "layer3")?.dims(), [1, 32]);
    /// assert_eq!(classifier.activations(&images, "layer3")?.dims(), [1, 32, 4, 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::activations`].
    pub fn pooled(&self, images: &Tensor, layer: &str) -> Result<Tensor> {
        self.step(images, layer, |x| wide(x)?.flatten(1, 2)?.mean(1))
    }

    /// What `then` makes of the output of a step.
    fn step(
        &self,
        images: &Tensor,
        layer: &str,
        then: impl Fn(Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let all = layers(self.net().config());
        let Some(found) = all.iter().find(|known| known.name == layer) else {
            let layers = all.into_iter().map(|layer| layer.name).collect();
            return Err(Error::UnknownLayer { name: layer.into(), layers });
        };
        self.on_device(images, |net, images| net.activation(images, found.blocks, found.act, &then))
    }
}

/// The sum over many places needs more than half precision.
fn wide(x: Tensor) -> candle_core::Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32),
        _ => Ok(x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, tests::test_stream};
    use crate::weights::Config;

    #[test]
    fn every_step_is_as_the_whole_run_shows_it() {
        let classifier = Classifier::from_model("qlnet-digits").unwrap();
        let names = ["stem", "layer1.0", "layer1", "layer2.0", "layer2.1", "layer2", "layer3.0", "layer3.1"];
        assert_eq!(classifier.layers()[..8], names);
        assert_eq!(classifier.layers()[8..], ["layer3", "layer4.0", "layer4", "act"]);
        let images = normal((3, 3, 61, 40), &mut test_stream(1)).unwrap();
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut seen = 0;
        let mut last = None;
        let mut look = |name: &str, x: &Tensor| {
            let expected = x.permute((0, 3, 1, 2)).unwrap();
            let found = classifier.activations(&images, name).unwrap();
            assert_eq!(found.dims(), expected.dims(), "{name}");
            assert!(values(&found) == values(&expected), "{name}");
            let means = classifier.pooled(&images, name).unwrap();
            assert!(values(&means) == values(&x.flatten(1, 2).unwrap().mean(1).unwrap()), "{name}");
            // The last block of a layer gives what the layer gives.
            if let Some(("layer2", "1")) = name.split_once('.') {
                last = Some(values(&found));
            }
            seen += 1;
        };
        classifier.net().forward_observed(&images, &mut look).unwrap();
        assert_eq!(seen, 8);
        assert!(last.unwrap() == values(&classifier.activations(&images, "layer2").unwrap()));
        let features = classifier.features(&images).unwrap();
        assert!(values(&features) == values(&classifier.pooled(&images, "act").unwrap()));
    }

    #[test]
    fn a_layer_that_is_not_there_is_an_error_that_names_the_others() {
        let classifier = Classifier::from_model("qlnet-digits").unwrap();
        let images = normal((1, 3, 32, 32), &mut test_stream(1)).unwrap();
        for name in ["layer5", "layer1.1", "fc", "", "stem "] {
            let error = classifier.pooled(&images, name).unwrap_err();
            assert!(matches!(&error, Error::UnknownLayer { layers, .. } if layers.len() == 12), "{name}");
            assert!(error.to_string().contains("it has stem, layer1.0, layer1, layer2.0"), "{error}");
        }
        assert_eq!(layers(&Config::qlnet_50_v0()).len(), 1 + 16 + 4 + 1);
    }
}
