//! What the network makes of every picture in a folder, before it decides on a class, as rows of a NumPy file:
//! `cargo run --release --example features -- DIR FILE.npy`
//! (For more pictures than memory holds there is `qlnet features`.)

use std::error::Error;
use std::path::PathBuf;

use qlnet::Classifier;
use qlnet::input::{Options, to_tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, output] = &arguments[..] else { return Err("usage: features DIR FILE.npy".into()) };
    let classifier = Classifier::from_model("qlnet-digits")?;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let mut crops = Vec::new();
    for file in &files {
        match classifier.preprocess().crop_of(&std::fs::read(file)?, file, Options::default()) {
            Ok(crop) => crops.push(crop.pixels),
            Err(error) => eprintln!("{} is passed over: {error}", file.display()),
        }
    }
    // A row for each picture: `[n, num_features]`.
    let features = classifier.features(&to_tensor(&crops)?)?;
    features.write_npy(output)?;
    println!("{:?} in {}", features.dims(), output.display());
    Ok(())
}
