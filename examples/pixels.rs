//! Decodes image files and writes their pixels, to compare them with another decoder's:
//! `cargo run --release --example pixels -- DIR FILE...` writes `DIR/0.ppm` for the first file, and so on, and
//! prints a line of JSON for each.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use qlnet::input::{Options, decode};

fn main() -> anyhow::Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (dir, files) = paths.split_first().context("usage: pixels DIR FILE...")?;
    for (number, file) in files.iter().enumerate() {
        let start = Instant::now();
        let pixels = || anyhow::Ok(decode(&std::fs::read(file)?, Path::new(file), Options::default())?);
        let result = pixels();
        let seconds = start.elapsed().as_secs_f64();
        let error = match result {
            Ok(image) => {
                let mut ppm = format!("P6 {} {} 255\n", image.width(), image.height()).into_bytes();
                ppm.extend_from_slice(image.as_raw());
                std::fs::write(dir.join(format!("{number}.ppm")), ppm)?;
                None
            }
            Err(error) => Some(format!("{error:#}")),
        };
        println!("{}", serde_json::json!({"file": file, "seconds": seconds, "error": error}));
    }
    Ok(())
}
