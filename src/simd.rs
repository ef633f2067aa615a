//! Functions compiled once for each instruction set.

use std::sync::OnceLock;

/// Instruction sets that functions are compiled for. Of one architecture's levels, a higher one has what the
/// lower ones have, but for [`Self::AvxVnni`]: `Avx512` does not need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "other architectures have levels of their own"))]
pub enum Level {
    /// What every CPU of the target has: SSE2, NEON.
    Portable,
    /// NEON's products of bytes.
    Dotprod,
    /// NEON's products of bytes and of bfloat16.
    Bf16,
    /// AVX2 and FMA.
    Avx2,
    /// AVX2 and its products of bytes.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 and its products of bytes.
    Avx512Vnni,
    /// AVX-512, its products of bytes, and those of bfloat16.
    Avx512Bf16,
    /// All of that, and tiles of bytes and of bfloat16.
    Amx,
}

impl Level {
    /// Those of this architecture, from the lowest to the highest.
    #[cfg(target_arch = "x86_64")]
    const ALL: [Self; 7] =
        [Self::Portable, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];
    #[cfg(not(target_arch = "x86_64"))]
    const ALL: [Self; 3] = [Self::Portable, Self::Dotprod, Self::Bf16];

    /// What `QLNET_SIMD` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Dotprod => "dotprod",
            Self::Bf16 => "bf16",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }
}

/// The best level that this CPU has. `QLNET_SIMD`, one of the levels' names, asks for less.
///
/// Intel's `AVX512-BF16` takes twice as long for a product as float32 does (measured on a Xeon of the fifth
/// generation), where AMD's takes half as long: on Intel's CPUs it is used only if it is asked for by name.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let named = std::env::var("QLNET_SIMD").ok();
        let named = named.and_then(|name| Level::ALL.into_iter().find(|level| level.name() == name));
        let usable = |level: &Level| has(*level) && (named == Some(*level) || is_worth_it(*level));
        let most = named.unwrap_or(Level::Amx);
        Level::ALL.into_iter().filter(|level| *level <= most).rfind(usable).unwrap_or(Level::Portable)
    })
}

/// The names of all levels that this CPU has, the lowest first, whatever `QLNET_SIMD` says.
pub fn available() -> Vec<&'static str> {
    Level::ALL.into_iter().filter(|level| has(*level)).map(Level::name).collect()
}

/// What to say if `QLNET_SIMD` asks for something else than what it gets.
pub fn unmet_wish() -> Option<String> {
    let wish = std::env::var("QLNET_SIMD").ok().filter(|wish| !wish.is_empty() && wish != level().name())?;
    let names = Level::ALL.map(Level::name).join(", ");
    Some(format!(
        "QLNET_SIMD={wish} cannot be had on this CPU, which computes with {}; names are {names}",
        level().name()
    ))
}

/// Whether this CPU has the instructions of a level.
#[cfg(target_arch = "x86_64")]
fn has(level: Level) -> bool {
    match level {
        Level::Portable => true,
        Level::Dotprod | Level::Bf16 => false,
        Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        Level::AvxVnni => has(Level::Avx2) && is_x86_feature_detected!("avxvnni"),
        Level::Avx512 => {
            has(Level::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }
        Level::Avx512Vnni => has(Level::Avx512) && is_x86_feature_detected!("avx512vnni"),
        Level::Avx512Bf16 => has(Level::Avx512Vnni) && is_x86_feature_detected!("avx512bf16"),
        Level::Amx => has(Level::Avx512Bf16) && amx::is_permitted(),
    }
}

#[cfg(target_arch = "aarch64")]
fn has(level: Level) -> bool {
    match level {
        Level::Portable => true,
        Level::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
        Level::Bf16 => has(Level::Dotprod) && std::arch::is_aarch64_feature_detected!("bf16"),
        _ => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has(level: Level) -> bool {
    level == Level::Portable
}

/// Whether the best use of a level is faster than what the levels below it offer.
#[cfg(target_arch = "x86_64")]
fn is_worth_it(level: Level) -> bool {
    level != Level::Avx512Bf16 || !is_intel()
}

#[cfg(not(target_arch = "x86_64"))]
fn is_worth_it(_: Level) -> bool {
    true
}

/// Whether Intel made this CPU.
#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// Tiles, which the operating system keeps only for a process that has asked for them.
#[cfg(target_arch = "x86_64")]
mod amx {
    /// Whether the CPU has tiles of bytes and of bfloat16, and this process may use them.
    pub fn is_permitted() -> bool {
        let leaf = std::arch::x86_64::__cpuid(0);
        // AMX-BF16, AMX-TILE and AMX-INT8.
        const WANTED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        leaf.eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx & WANTED == WANTED && ask()
    }

    /// Asks Linux, which answers with zero if all threads of this process may use tiles from now on
    /// (Documentation/arch/x86/xstate.rst).
    #[cfg(target_os = "linux")]
    fn ask() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_ulong = 18;
        // SAFETY: this system call takes two numbers, and changes nothing of the process but the permission.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn ask() -> bool {
        false
    }
}

/// Defines a function whose body is compiled once for each width of vectors; a call runs the version for
/// [`level`]. The body is plain Rust, and the compiler makes vectors of it where it can.
macro_rules! vectorised {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$T:ident: $Bound:path>)? ($($arg:ident: $Type:ty),* $(,)?) $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name $(<$T: $Bound>)? ($($arg: $Type),*) {
            #[inline(always)]
            fn body $(<$T: $Bound>)? ($($arg: $Type),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$T: $Bound>)? ($($arg: $Type),*) {
                body($($arg),*);
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512 $(<$T: $Bound>)? ($($arg: $Type),*) {
                body($($arg),*);
            }

            #[cfg(target_arch = "x86_64")]
            {
                let level = $crate::simd::level();
                if level >= $crate::simd::Level::Avx512 {
                    // SAFETY: `level` has found the instructions that this version is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if level >= $crate::simd::Level::Avx2 {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use vectorised;
