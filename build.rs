//! Makes what GPUs need besides Rust: kernels for CUDA as PTX, the functions that open NVIDIA's libraries at run time,
//! and the source of the kernels for Metal. Nothing without the features `cuda` and `metal`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(opens_cuda)");
    #[cfg(feature = "cuda")]
    cuda::build();
    #[cfg(feature = "metal")]
    metal::build();
}

/// The folder of the kernels and of the C files beside it.
#[cfg(any(feature = "cuda", feature = "metal"))]
const KERNELS: &str = "src/network/gpu/kernels";

/// The folder that the results are written to.
#[cfg(any(feature = "cuda", feature = "metal"))]
fn out_dir() -> std::path::PathBuf {
    std::env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR").into()
}

/// Stops the build with a message.
#[cfg(any(feature = "cuda", feature = "metal"))]
fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::env;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::{KERNELS, fail, out_dir};

    /// Element types, the macro that chooses each, and the oldest architecture that its kernels run on: 7.5 is the
    /// oldest that the compiler of CUDA 13 knows, and bfloat16 comes with 8.0.
    const TYPES: [(&str, &str, &str); 3] =
        [("f32", "QLNET_F32", "compute_75"), ("f16", "QLNET_F16", "compute_75"), ("bf16", "QLNET_BF16", "compute_80")];

    /// Everything that a build with CUDA needs.
    pub fn build() {
        for name in ["NVCC", "NVCC_CCBIN", "CUDA_HOME", "CUDA_PATH"] {
            println!("cargo::rerun-if-env-changed={name}");
        }
        let nvcc = nvcc();
        kernels(&nvcc);
        let (major, minor) = version(&nvcc);
        println!("cargo::rustc-env=QLNET_CUDA_VERSION={major}.{minor}");
        libraries(major);
    }

    /// The compiler: `NVCC`, that of the search path, or that of the toolkit's folder.
    fn nvcc() -> PathBuf {
        if let Some(nvcc) = env::var_os("NVCC") {
            return nvcc.into();
        }
        let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
        let path = env::var_os("PATH").unwrap_or_default();
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
        let toolkits = toolkits.chain(["/usr/local/cuda".into()]).map(|toolkit| toolkit.join("bin"));
        let found = env::split_paths(&path).chain(toolkits).map(|dir| dir.join(&name)).find(|file| file.is_file());
        found.unwrap_or_else(|| {
            fail(
                "the feature `cuda` needs NVIDIA's compiler, and there is no nvcc in PATH, $CUDA_HOME/bin or \
                 /usr/local/cuda/bin: install the CUDA toolkit, or name nvcc in NVCC; scripts/build-cuda.sh fetches \
                 what is needed",
            )
        })
    }

    /// The compiler's output.
    fn run(command: &mut Command) -> String {
        match command.output() {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            Ok(output) => {
                let words =
                    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
                for line in words.lines() {
                    println!("cargo::error={line}");
                }
                fail(&format!("{command:?} failed"))
            }
            Err(error) => fail(&format!("{command:?} cannot be run: {error}")),
        }
    }

    /// The version of CUDA.
    fn version(nvcc: &Path) -> (u32, u32) {
        let text = run(Command::new(nvcc).arg("--version"));
        let version = text.split_once("release ").and_then(|(_, rest)| {
            let (major, rest) = rest.split_once('.')?;
            let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        version.unwrap_or_else(|| fail(&format!("{} --version names no release: {text}", nvcc.display())))
    }

    /// PTX for each element type, which the driver compiles for the card that there is.
    fn kernels(nvcc: &Path) {
        println!("cargo::rerun-if-changed={KERNELS}");
        for (name, choice, architecture) in TYPES {
            let mut command = Command::new(nvcc);
            command.args(["--ptx", "-O3", "-std=c++17", "-arch", architecture]).arg(format!("-D{choice}"));
            if let Some(compiler) = env::var_os("NVCC_CCBIN") {
                command.arg("-ccbin").arg(compiler);
            }
            command.arg("-o").arg(out_dir().join(format!("kernels_{name}.ptx"))).arg(format!("{KERNELS}/kernels.cu"));
            run(&mut command);
        }
    }

    /// What opens NVIDIA's libraries at run time, and what stands for candle's kernels of quantised models.
    fn libraries(major: u32) {
        // Elsewhere the program is linked with them, as candle has it.
        let target = |name| env::var(name).unwrap_or_default();
        let [os, environment, architecture] =
            ["CARGO_CFG_TARGET_OS", "CARGO_CFG_TARGET_ENV", "CARGO_CFG_TARGET_ARCH"].map(target);
        if os != "linux" || environment != "gnu" || !["x86_64", "aarch64"].contains(&architecture.as_str()) {
            return;
        }
        println!("cargo::rustc-cfg=opens_cuda");
        for name in ["libraries", "quantised"] {
            let file = format!("src/network/gpu/{name}.c");
            println!("cargo::rerun-if-changed={file}");
            let mut build = cc::Build::new();
            build.file(file).define("QLNET_CUDA_MAJOR", major.to_string().as_str()).warnings(true);
            build.cargo_metadata(false).compile(&format!("qlnet_{name}"));
        }
        println!("cargo::rustc-link-search=native={}", out_dir().display());
        link_with_lld(&architecture);
    }

    /// LLVM's linker leaves out the libraries that only unused functions refer to, and GNU's does not: with that, the
    /// program would need cuBLAS to start, for what cudarc has and candle does not call. On x86-64 it is Rust's usual
    /// linker; elsewhere it comes with Rust, for us to ask for.
    fn link_with_lld(architecture: &str) {
        let rustc = env::var_os("RUSTC").expect("Cargo sets RUSTC");
        let host = env::var("HOST").expect("Cargo sets HOST");
        let sysroot = run(Command::new(rustc).args(["--print", "sysroot"]));
        let linkers = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/gcc-ld");
        let other = other_linker();
        if other.is_none() && linkers.join("ld.lld").is_file() {
            if architecture != "x86_64" {
                println!("cargo::rustc-link-arg-bins=-fuse-ld=lld");
                println!("cargo::rustc-link-arg-bins=-B{}", linkers.display());
            }
            return;
        }
        let found = other.unwrap_or_else(|| format!("no {}", linkers.join("ld.lld").display()));
        println!(
            "cargo::warning=LLVM's linker is not used ({found}): another may keep cuBLAS and others, without which the \
             program then does not start; `readelf -d` shows them as NEEDED"
        );
    }

    /// What in the flags for Rust's compiler names another linker than LLVM's. Those are from RUSTFLAGS or Cargo's
    /// configuration.
    fn other_linker() -> Option<String> {
        const OTHERS: [&str; 4] =
            ["linker-features=-lld", "link-self-contained=no", "link-self-contained=-linker", "linker-flavor="];
        println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
        println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
        let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
        let is_other = |flag: &&str| match flag.split_once("-fuse-ld=") {
            Some((_, linker)) => !linker.contains("lld"),
            None => OTHERS.iter().any(|other| flag.contains(other)),
        };
        let linker = env::var("RUSTC_LINKER").ok().filter(|linker| {
            let name = Path::new(linker).file_name().unwrap_or_default().to_string_lossy();
            ["ld", "ld.bfd", "ld.gold", "ld.mold", "mold", "wild"].contains(&&*name)
        });
        flags.split('\u{1f}').find(is_other).map(str::to_string).or(linker)
    }
}

#[cfg(feature = "metal")]
mod metal {
    use std::fs;
    use std::path::Path;

    use super::{KERNELS, fail, out_dir};

    /// One source without files to include: what a Mac compiles when a device is opened.
    pub fn build() {
        println!("cargo::rerun-if-changed={KERNELS}");
        let mut source = String::new();
        paste(&Path::new(KERNELS).join("kernels.metal"), &mut source, &mut Vec::new());
        let file = out_dir().join("kernels.metal");
        fs::write(&file, source).unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", file.display())));
    }

    /// Adds a file to the source, with those that it includes by `#include "..."` in their places, each once.
    fn paste(file: &Path, source: &mut String, pasted: &mut Vec<std::path::PathBuf>) {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| fail(&format!("cannot read {}: {error}", file.display())));
        for line in text.lines() {
            match line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')) {
                Some(name) => {
                    let included = file.with_file_name(name);
                    if !pasted.contains(&included) {
                        pasted.push(included.clone());
                        paste(&included, source, pasted);
                    }
                }
                None if line.trim() == "#pragma once" => {}
                None => {
                    source.push_str(line);
                    source.push('\n');
                }
            }
        }
    }
}
