//! What a program asks of the system, seen by strace.

use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

/// Calls that open no connection, change no file and start no program.
const HARMLESS: [&str; 24] = [
    "access",
    "arch_prctl",
    "chdir",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fstatat64",
    "getcwd",
    "getxattr",
    "lgetxattr",
    "listxattr",
    "lstat",
    "lstat64",
    "newfstatat",
    "readlink",
    "readlinkat",
    "stat",
    "stat64",
    "statfs",
    "statfs64",
    "statx",
    "wait4",
    "waitid",
];

/// Calls for the network, by strace's class and by name, which some versions of it know by one alone.
const NETWORK: [&str; 16] = [
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "socket",
];

/// What a run did.
#[derive(Default)]
pub struct Trace {
    /// Files that it wrote, created, renamed, removed or changed otherwise, or tried to.
    pub changed: Vec<PathBuf>,
    /// Calls for the network.
    pub network: Vec<String>,
    /// Programs and processes that it started, and calls that none of these lists knows.
    pub other: Vec<String>,
}

/// Whether there is a strace that may trace. If not, that is said past the test harness.
pub fn is_there() -> bool {
    let probe = Command::new("strace")
        .args(["-ff", "--seccomp-bpf", "-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    let there = probe.is_ok_and(|status| status.success());
    if !there {
        std::io::stderr().write_all(b"skipped: no strace that may trace\n").unwrap();
    }
    there
}

/// The command that runs `command` and notes what it does in files in `notes`.
pub fn traced(command: &Command, notes: &Path) -> Command {
    fs::create_dir_all(notes).unwrap();
    let mut traced = Command::new("strace");
    // A file for each thread, so that no line is torn by another's.
    traced.args(["-ff", "--seccomp-bpf", "-qq", "-y", "-e", "signal=none", "-o"]).arg(notes.join("thread"));
    let calls = "%network,%file,%process,ftruncate,fchmod,fchown,fsetxattr,io_uring_setup,memfd_create";
    traced.args(["-e", &format!("trace={calls}"), "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced.current_dir(command.get_current_dir().unwrap());
    traced
}

impl Trace {
    /// Reads the notes of a run that began in `cwd`.
    pub fn read(notes: &Path, cwd: &Path) -> Self {
        let (mut trace, mut programs) = (Self::default(), 0);
        for file in fs::read_dir(notes).unwrap() {
            let text = fs::read(file.unwrap().path()).unwrap();
            for line in String::from_utf8_lossy(&text).lines() {
                let Some((name, rest)) = line.split_once('(') else { panic!("not a call: {line}") };
                match name {
                    "execve" | "vfork" | "clone" | "clone3" if is_question_for_caches(name, rest) => {}
                    // A thread that the end of the process found on its way into a call.
                    "???" => {}
                    "execve" if programs == 0 => programs += 1,
                    "clone" | "clone3" if rest.contains("CLONE_THREAD") => {}
                    "open" | "openat" | "creat" if !is_for_writing(name, rest) => {}
                    name if HARMLESS.contains(&name) => {}
                    name if NETWORK.contains(&name) => trace.network.push(line.into()),
                    _ => match changed(name, rest, cwd) {
                        paths if paths.is_empty() => trace.other.push(line.into()),
                        paths => trace.changed.extend(paths),
                    },
                }
            }
        }
        assert_eq!(programs, 1, "strace saw the program start");
        trace
    }
}

/// Where `/sys` does not tell how large the CPU's caches are, as in some containers, the crate `gemm` asks `lscpu`.
fn is_question_for_caches(name: &str, arguments: &str) -> bool {
    let told = Path::new("/sys/devices/system/cpu/cpu0/cache/index0").exists();
    let is_it = match name {
        "execve" => arguments.contains("/lscpu\", [\"lscpu\", \"-B\""),
        _ => name == "vfork" || arguments.contains("CLONE_VFORK"),
    };
    !told && is_it
}

fn is_for_writing(name: &str, arguments: &str) -> bool {
    let flags = arguments.rsplit_once('"').map_or(arguments, |(_, flags)| flags);
    name == "creat" || ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_TMPFILE"].iter().any(|flag| flags.contains(flag))
}

/// The files that a call changes: its arguments in quotes, below the folders in angle brackets before them; of a call
/// without any, what is open.
fn changed(name: &str, arguments: &str, cwd: &Path) -> Vec<PathBuf> {
    let known = ["open", "openat", "creat", "rename", "unlink", "mkdir", "rmdir", "chmod", "fchmod", "chown", "lchown"];
    let more = ["fchown", "link", "symlink", "utime", "truncate", "ftruncate", "mknod", "setxattr", "fsetxattr"];
    if !known.iter().chain(&more).any(|known| name.trim_start_matches('f').starts_with(known.trim_start_matches('f'))) {
        return Vec::new();
    }
    let arguments = arguments.rsplit_once(") = ").map_or(arguments, |(arguments, _)| arguments);
    let (mut paths, mut folder) = (Vec::new(), cwd.to_path_buf());
    let mut rest = arguments;
    while let Some(start) = rest.find(['"', '<']) {
        let end = if rest[start..].starts_with('"') { '"' } else { '>' };
        let (inner, after) = rest[start + 1..].split_once(end).unwrap();
        match end {
            '"' => paths.push(plain(&folder.join(inner))),
            _ => folder = inner.into(),
        }
        rest = after;
    }
    // What a link leads to is not changed.
    if name.starts_with("symlink") || name.starts_with("link") {
        paths.drain(..paths.len().saturating_sub(1));
    }
    if paths.is_empty() { vec![folder] } else { paths }
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
        plain
    })
}
