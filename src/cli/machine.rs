//! What this build and this machine are, as far as they tell.

/// The features of Cargo that this program was built with.
pub fn features() -> Vec<&'static str> {
    [
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("accelerate", cfg!(feature = "accelerate")),
        ("mkl", cfg!(feature = "mkl")),
    ]
    .into_iter()
    .filter_map(|(name, built_in)| built_in.then_some(name))
    .collect()
}

/// The version with the commit, if `QLNET_COMMIT` named it to the compiler, and what it was built for.
pub fn version() -> String {
    let commit = option_env!("QLNET_COMMIT").map(|commit| format!(" ({commit})")).unwrap_or_default();
    let features = match features().as_slice() {
        [] => "none".to_string(),
        features => features.join(", "),
    };
    let (version, arch, os) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    format!("{version}{commit}\nbuilt for {arch}, {os}; features: {features}")
}

/// What the CPU calls itself.
pub fn cpu_name() -> Option<String> {
    let name = brand().or_else(|| match std::env::consts::OS {
        "macos" => sysctl("machdep.cpu.brand_string"),
        "windows" => std::env::var("PROCESSOR_IDENTIFIER").ok(),
        _ => {
            let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
            ["model name", "Model", "Hardware"].into_iter().find_map(|key| field(&text, key))
        }
    })?;
    let words: Vec<_> = name.split_whitespace().collect();
    Some(words.join(" ")).filter(|name| !name.is_empty())
}

/// Bytes of memory that a process may have.
pub fn memory() -> Option<u64> {
    if cfg!(target_os = "macos") {
        return sysctl("hw.memsize")?.trim().parse().ok();
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: u64 = field(&text, "MemTotal")?.trim_end_matches("kB").trim().parse().ok()?;
    // Of a container; outside of one there is no number, or none that is less.
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some((1024 * kibibytes).min(limit.unwrap_or(u64::MAX)))
}

/// The value of a line `key : value`.
fn field(text: &str, key: &str) -> Option<String> {
    let value = |line: &str| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == key).then(|| value.trim().to_string())
    };
    text.lines().find_map(value)
}

/// What macOS answers to a question.
fn sysctl(name: &str) -> Option<String> {
    let output = std::process::Command::new("/usr/sbin/sysctl").args(["-n", name]).output().ok()?;
    String::from_utf8(output.stdout).ok().filter(|_| output.status.success())
}

/// What is written on an x86 CPU, 48 characters in three leaves of CPUID.
#[cfg(target_arch = "x86_64")]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    const FIRST: u32 = 0x8000_0002;
    const LAST: u32 = 0x8000_0004;
    if __cpuid(0x8000_0000).eax < LAST {
        return None;
    }
    let words = (FIRST..=LAST).flat_map(|leaf| {
        let leaf = __cpuid(leaf);
        [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
    });
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(not(target_arch = "x86_64"))]
fn brand() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nMemTotal:       16384 kB\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "MemTotal").as_deref(), Some("16384 kB"));
        assert_eq!(field(text, "Model"), None);
    }
}
