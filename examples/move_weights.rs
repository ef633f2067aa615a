//! Moves the weights of the built-in model along its symmetry and saves them; the logits stay where they are:
//! `cargo run --release --example move_weights -- FILE.safetensors`

use std::error::Error;

use qlnet::candle_core::{DType, Device, Tensor};
use qlnet::network::QLNet;
use qlnet::symmetry::{FAMILIES, Side, draw};
use qlnet::weights::Weights;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("usage: move_weights FILE.safetensors")?;
    let weights = Weights::from_model("qlnet-digits")?;
    // Elements are applied in double precision, so that rounding does not add up.
    let mut moved = weights.to_dtype(DType::F64)?;
    for family in FAMILIES.into_iter().filter(|family| family.keeps_architecture()) {
        draw(family, &moved, None, None, 3)?.apply(&mut moved, Side::Both)?;
    }
    std::fs::write(&file, moved.to_safetensors()?)?;

    let images = Tensor::ones((1, 3, 64, 64), DType::F32, &Device::Cpu)?;
    let logits = |weights: &Weights| QLNet::from_weights(weights, DType::F32, &Device::Cpu)?.forward(&images);
    let change = (logits(&weights)? - logits(&Weights::from_file(&file)?)?)?.abs()?.max_all()?;
    println!("largest change of a logit: {:e}", change.to_scalar::<f32>()?);
    Ok(())
}
