//! `qlnet devices`: what computes.

use std::process::ExitCode;

use anyhow::Result;
use candle_core::Device;
use clap::Args;
use serde::Serialize;

use super::machine;
use super::print::{one_line, print, strong, to_json};
use crate::network::gpu::cards::{Card, card};
#[cfg(feature = "cuda")]
use crate::network::gpu::libraries;
use crate::network::{DeviceChoice, Precision, device};
use crate::simd;
use crate::text::{bytes, printable};

/// Show what can compute: CPU, instruction sets, GPUs
///
/// Lists what this build has and what this machine has, which instruction set is used for each element type, and
/// which device --device auto takes. GPUs that this build supports are opened, and what is wrong with one is said.
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Devices {
    /// Print one JSON object
    ///
    /// {"version", "features", "cpu": {"name", "cores", "threads", "memory_bytes", "instruction_sets", "chosen",
    /// "used": {"f32", "bf16", "int8"}}, "devices": [{"device", "usable", "reason", "card": {"name",
    /// "compute_capability", "memory_bytes", "free_bytes"}}], "cuda": {"driver", "built_with", "libraries": {"cublas",
    /// "curand", "driver"}}, "auto"}: "reason" where a device is not usable, "cuda" where its libraries are open
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  qlnet devices                       what computes here
  QLNET_SIMD=avx2 qlnet devices       what would, with these instructions
  qlnet bench --dtype int8            how fast";

/// What computes.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    features: Vec<&'static str>,
    cpu: Cpu,
    devices: Vec<Found>,
    /// What CUDA runs on, where it does.
    #[cfg(feature = "cuda")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cuda: Option<libraries::Found>,
    /// The device that is taken unless another is named.
    auto: String,
}

#[derive(Serialize)]
struct Cpu {
    name: Option<String>,
    arch: &'static str,
    /// Processors that this process may use.
    cores: usize,
    /// Threads that compute.
    threads: usize,
    memory_bytes: Option<u64>,
    instruction_sets: Vec<&'static str>,
    /// The highest that is used.
    chosen: &'static str,
    used: Used,
}

/// What computes 1x1 convolutions in each element type.
#[derive(Serialize)]
struct Used {
    f32: Option<String>,
    bf16: Option<String>,
    int8: Option<String>,
}

/// A device, and whether it can be used.
#[derive(Serialize)]
struct Found {
    device: String,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<Card>,
}

impl Found {
    fn new(name: String, choice: DeviceChoice) -> Self {
        let (reason, card) = match choice.open() {
            Ok(device) => (None, card(&device)),
            Err(error) => (Some(one_line(&error.into())), None),
        };
        Self { device: name, usable: reason.is_none(), reason, card }
    }
}

/// Shows what there is.
pub fn run(args: &Devices) -> Result<ExitCode> {
    let used = |precision: Precision| precision.instructions(&Device::Cpu);
    let cpu = Cpu {
        name: machine::cpu_name(),
        arch: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        threads: rayon::current_num_threads(),
        memory_bytes: machine::memory(),
        instruction_sets: simd::available(),
        chosen: simd::level().name(),
        used: Used { f32: used(Precision::F32), bf16: used(Precision::Bf16), int8: used(Precision::Int8) },
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        features: machine::features(),
        cpu,
        devices: devices(),
        #[cfg(feature = "cuda")]
        cuda: libraries::open().ok(),
        auto: device::name(&DeviceChoice::Auto.open()?),
    };
    print(&if args.json { to_json(&report)? } else { table(&report) })?;
    Ok(ExitCode::SUCCESS)
}

/// Every device that may be: of CUDA's as many as can be opened, but at least the first.
fn devices() -> Vec<Found> {
    let mut found = vec![Found::new("cpu".into(), DeviceChoice::Cpu)];
    for number in 0.. {
        let cuda = Found::new(format!("cuda:{number}"), DeviceChoice::Cuda(number));
        let usable = cuda.usable;
        if usable || number == 0 {
            found.push(cuda);
        }
        if !usable {
            break;
        }
    }
    found.push(Found::new("metal".into(), DeviceChoice::Metal));
    found
}

/// The report for people.
fn table(report: &Report) -> String {
    let Report { version, features, cpu, devices, auto, .. } = report;
    let features = if features.is_empty() { "none".into() } else { features.join(", ") };
    let name = cpu.name.as_deref().unwrap_or("unknown CPU");
    let memory = cpu.memory_bytes.map_or(String::new(), |memory| format!(", {} of memory", bytes(memory)));
    let mut lines = vec![
        row("build", &format!("qlnet {version}, {}, features: {features}", cpu.arch)),
        row("cpu", name),
        row("", &format!("{} cores for this process, {} threads{memory}", cpu.cores, cpu.threads)),
        row("instructions", &format!("{}; up to {} is used", cpu.instruction_sets.join(", "), cpu.chosen)),
    ];
    let Used { f32, bf16, int8 } = &cpu.used;
    for (precision, used) in [("f32", f32), ("bf16", bf16), ("int8", int8)] {
        lines.extend(used.as_ref().map(|used| row("", &format!("{precision:8}  {used}"))));
    }
    lines.push(row("", "f16, f64  candle's operations, much slower"));
    for Found { device, reason, card, .. } in devices.iter().skip(1) {
        let card = || card.as_ref().map_or(String::new(), |card| format!(": {}", about(card)));
        lines.push(row(device, &reason.clone().unwrap_or_else(|| format!("ready{}", card()))));
    }
    #[cfg(feature = "cuda")]
    if let Some(libraries::Found { driver, built_with, libraries }) = &report.cuda {
        lines.push(row("cuda", &format!("{driver} is the driver's, {built_with} that of this build")));
        lines.extend(libraries.iter().map(|(name, file)| row("", &format!("{name:8}  {}", printable(file)))));
    }
    lines.push(row("auto", auto));
    lines.join("\n")
}

/// A card in a line.
fn about(card: &Card) -> String {
    let Card { name, compute_capability, memory_bytes, free_bytes } = card;
    let capability =
        compute_capability.as_ref().map_or(String::new(), |number| format!(", compute capability {number}"));
    let [memory, free] = [memory_bytes, free_bytes].map(|memory| bytes(*memory as u64));
    format!("{}{capability}, {memory} of memory, {free} free", printable(name))
}

fn row(name: &str, text: &str) -> String {
    // Padded before it is made to stand out.
    let name = if name.is_empty() { " ".repeat(12) } else { strong(&format!("{name:12}")) };
    format!("{name}  {text}")
}
