//! The kernels, compiled for this host in both dialects and launched as operations say, against the plain operations in
//! float64.
//!
//! What this cannot show: that a device's own compiler takes them, how fast they are, and races, of which there can be
//! none without memory that threads share.

mod checks;
mod harness;
mod mistakes;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use candle_core::DType;

use checks::{OPERATIONS, check};
use harness::{Compiler, Dialect, Harness, kernels};
use mistakes::{MISTAKES, Mistake, WRONG_LAUNCHES};

const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Does the work for every item, on two threads.
fn for_each<T: Sync>(items: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((i, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?)))
                {
                    work(i, item);
                }
            });
        }
    });
}

#[test]
fn kernels_compute_what_the_plain_operations_do() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(compiler) = Compiler::find(scratch.path()).unwrap() else { return };
    let builds = TYPES.map(|dtype| [(Dialect::Cuda, dtype), (Dialect::Metal, dtype)]).concat();
    for_each(&builds, |i, &(dialect, dtype)| {
        let program = scratch.path().join(format!("kernels-{i}"));
        compiler.build(dialect, dtype, &kernels(), &program).unwrap();
        let mut harness = Harness::start(&program, dtype).unwrap();
        for operation in OPERATIONS {
            let checked = check(&mut harness, operation);
            checked.with_context(|| format!("{operation} in {dialect:?}'s dialect")).unwrap();
        }
        assert_eq!(harness.not_launched().unwrap(), [""; 0], "{dialect:?} {dtype:?}");
    });
}

/// That the checks find it if an operation asks for something else than it should.
#[test]
fn launches_that_are_wrong_are_found() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(compiler) = Compiler::find(scratch.path()).unwrap() else { return };
    let (program, dtype) = (scratch.path().join("kernels"), DType::F16);
    compiler.build(Dialect::Cuda, dtype, &kernels(), &program).unwrap();
    for &(operation, what, mistake) in WRONG_LAUNCHES {
        let operations = OPERATIONS.into_iter().filter(|one| operation.is_none_or(|operation| operation == *one));
        for operation in operations {
            let mut harness = Harness::start(&program, dtype).unwrap();
            harness.mistake = mistake;
            match check(&mut harness, operation) {
                Err(found) => println!("{operation}, {what}: {found:#}"),
                Ok(()) => panic!("{operation}, {what}: not found"),
            }
        }
    }
}

#[test]
fn each_planted_mistake_has_its_place() {
    for Mistake { file, text, .. } in MISTAKES {
        let source = std::fs::read_to_string(kernels().join(file)).unwrap();
        assert_eq!(source.matches(text).count(), 1, "{text:?} in {file}");
    }
}

#[test]
#[ignore = "compiles the kernels once for every mistake: scripts/check_kernels.sh"]
fn planted_mistakes_are_found() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(compiler) = Compiler::find(scratch.path()).unwrap() else { return };
    let not_found = Mutex::new(Vec::new());
    for_each(MISTAKES, |i, mistake| {
        let folder = scratch.path().join(format!("mistake-{i}"));
        plant(mistake, &folder).unwrap();
        let program = folder.join("kernels");
        compiler.build(mistake.dialect, mistake.dtype, &folder, &program).unwrap();
        let mut harness = Harness::start(&program, mistake.dtype).unwrap();
        match check(&mut harness, mistake.operation) {
            Err(found) => println!("{}, {}: {found:#}", mistake.operation, mistake.what),
            Ok(()) => not_found.lock().unwrap().push(format!("{}, {}", mistake.operation, mistake.what)),
        }
    });
    assert_eq!(*not_found.lock().unwrap(), [""; 0]);
}

/// A copy of the kernels with a mistake.
fn plant(mistake: &Mistake, folder: &Path) -> Result<()> {
    std::fs::create_dir(folder)?;
    for file in std::fs::read_dir(kernels())? {
        let file = file?;
        let mut source = std::fs::read_to_string(file.path())?;
        if file.file_name() == mistake.file {
            source = source.replace(mistake.text, mistake.replacement);
        }
        std::fs::write(folder.join(file.file_name()), source)?;
    }
    Ok(())
}
