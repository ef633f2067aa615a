//! Where the cases run, and what is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::fixture;
use crate::support::program::{DIGITS, Qlnet, stderr};

/// A folder with what the cases are given.
pub fn place() -> Qlnet {
    let qlnet = Qlnet::new();
    let root = qlnet.home.path();
    let given = root.join("given");
    for folder in ["given/flat", "out", "home", "tmp", "notes"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let source = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let copy = |from: PathBuf, to: &str| fs::copy(from, given.join(to)).map(drop).unwrap();
    copy(source("samples/digits/3-45.png"), "3.png");
    copy(fixture("two-filters.pth.tar"), "weights.pth");
    for digit in 0..10 {
        fs::create_dir_all(given.join(format!("val/{digit}"))).unwrap();
    }
    fs::create_dir_all(given.join("few/3")).unwrap();
    for file in fs::read_dir(source("samples/digits")).unwrap() {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        copy(file.path(), &format!("val/{}/{name}", &name[..1]));
        copy(file.path(), &format!("flat/ILSVRC2012_val_{:08}.png", 1 + name[..1].parse::<u32>().unwrap()));
    }
    copy(source("samples/digits/3-45.png"), "few/3/3.png");
    let mut archive = tar::Builder::new(fs::File::create(given.join("val.tar")).unwrap());
    archive.append_dir_all(".", given.join("val")).unwrap();
    archive.finish().unwrap();
    copy_all(&fixture("sets/parquet-hf"), &given.join("parquet"));
    copy_all(&fixture("sets/wds-clip"), &given.join("shards"));
    let numbers = |line: &dyn Fn(u32) -> String| (0..10).map(line).collect::<String>();
    for (name, text) in [
        ("text.png", "no picture".into()),
        ("list", "given/3.png\0given/val\0".into()),
        ("labels.txt", numbers(&|n| format!("{n}\n"))),
        ("valid.txt", numbers(&|n| format!("{n}\n"))),
        ("map.txt", numbers(&|n| format!("{n} {n}\n"))),
        ("zeros.txt", numbers(&|n| format!("{n} 0\n"))),
        ("real.json", format!("[{}]", (0..10).map(|n| format!("[{n}]")).collect::<Vec<_>>().join(","))),
    ] {
        fs::write(given.join(name), text).unwrap();
    }
    // A run that was complete before, to compare with.
    let output = qlnet.run(&[
        "eval",
        given.join("val").to_str().unwrap(),
        DIGITS[0],
        DIGITS[1],
        "--dtype",
        "bf16",
        "--predictions",
        root.join("out/g.csv").to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    qlnet
}

/// Copies a folder.
fn copy_all(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let path = to.join(entry.path().strip_prefix(from).unwrap());
        match entry.file_type().is_dir() {
            true => fs::create_dir_all(path).unwrap(),
            false => fs::copy(entry.path(), path).map(drop).unwrap(),
        }
    }
}
