//! Moves the weights of the built-in model along its symmetry and saves them; the logits stay where they are:
//! `cargo run --release --example move_weights -- FILE.safetensors`

use std::error::Error;

use qlnet::Classifier;
use qlnet::candle_core::{DType, Device, Tensor};
use qlnet::symmetry::{FAMILIES, Side, draw};
use qlnet::weights::Weights;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("usage: move_weights FILE.safetensors")?;
    // Elements are applied in double precision, so that rounding does not add up.
    let mut moved = Weights::from_model("qlnet-digits")?.to_dtype(DType::F64)?;
    for family in FAMILIES.into_iter().filter(|family| family.keeps_architecture()) {
        draw(family, &moved, None, None, 3)?.apply(&mut moved, Side::Both)?;
    }
    std::fs::write(&file, moved.to_safetensors()?)?;

    let images = Tensor::ones((1, 3, 64, 64), DType::F32, &Device::Cpu)?;
    let before = Classifier::from_model("qlnet-digits")?.logits(&images)?;
    let after = Classifier::from_file(&file, "qlnet-digits")?.logits(&images)?;
    let change = (after - before)?.abs()?.max_all()?.to_scalar::<f32>()?;
    println!("largest change of a logit: {change:e}");
    Ok(())
}
