//! What is in a picture: `cargo run --release --example classify -- FILE...`

use std::error::Error;

use qlnet::Classifier;

fn main() -> Result<(), Box<dyn Error>> {
    // Built in. "qlnet-50-v0" knows ImageNet's thousand classes, and is downloaded once.
    let classifier = Classifier::from_model("qlnet-digits")?;
    for file in std::env::args().skip(1) {
        match classifier.classify(&std::fs::read(&file)?) {
            // The most likely class comes first.
            Ok(predictions) => {
                println!("{file}: {} ({:.1} %)", predictions[0].label, 100.0 * predictions[0].probability);
            }
            Err(qlnet::Error::Image(reason)) => println!("{file}: no picture, {reason}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
