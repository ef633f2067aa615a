//! Inputs that the fuzz targets found to break a promise, and those that they begin with, through the same checks and
//! with the same limit of memory.

#[path = "support/meter.rs"]
mod meter;

use std::path::{Path, PathBuf};

use qlnet::internals::checks::{TARGETS, check};

#[global_allocator]
static ALLOCATOR: meter::Counted = meter::Counted;

/// The files of a folder in their order; none if it is not there.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}

#[test]
fn promises_hold_for_what_broke_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let pictures = files(root.join("tests/fixtures/decode"));
    let mut found = 0;
    for target in TARGETS {
        // A package has no seeds.
        let seeds = files(root.join("fuzz/seeds").join(target));
        let pictures = pictures.iter().filter(|file| file.extension().is_some_and(|extension| extension == target));
        let seeds: Vec<PathBuf> = seeds.into_iter().chain(pictures.cloned()).collect();
        let broke = files(root.join("tests/fixtures/found").join(target));
        found += broke.len();
        let mut taken = 0;
        for file in broke.iter().chain(&seeds) {
            let bytes = std::fs::read(file).unwrap();
            eprintln!("{}", file.display());
            let (outcome, most) = meter::measured(|| check(target, &bytes, scratch.path()));
            taken += usize::from(outcome.is_ok());
            let allowed = meter::most(bytes.len());
            assert!(most <= allowed, "{}: {most} bytes of memory, {allowed} are allowed", file.display());
        }
        assert!(seeds.is_empty() || taken > 0, "no seed of {target} is taken, so that the check says nothing");
    }
    assert!(found > 0);
}
