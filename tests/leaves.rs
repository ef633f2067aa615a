//! What leaves the machine, and what is left on it: every command runs under strace, which sees each connection, each
//! file that is changed and each program that is started. Where there is no strace, the tests say so and pass.
//!
//! A program with CUDA opens NVIDIA's devices, and what its libraries do is theirs: it is not looked at here.
#![cfg(all(target_os = "linux", not(feature = "cuda")))]

#[path = "leaves/cases.rs"]
mod cases;
#[path = "support/hub_server.rs"]
mod hub_server;
#[path = "leaves/place.rs"]
mod place;
mod support;
#[path = "support/tracer.rs"]
mod tracer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cases::{CASES, Case};
use hub_server::{COMMIT, HubServer, Request, ServedFile};
use place::place;
use sha2::{Digest, Sha256};
use support::fixture;
use support::program::{DIGITS, Qlnet, stderr, stdout};
use tracer::Trace;

/// What no line and no file may have.
const SECRETS: [(&str, &str); 5] = [
    ("HF_TOKEN", "hf_tokenThatMustNotBeSeen"),
    ("HUGGING_FACE_HUB_TOKEN", "hf_otherThatMustNotBeSeen"),
    ("GITHUB_TOKEN", "ghp_thirdThatMustNotBeSeen"),
    ("AWS_SECRET_ACCESS_KEY", "fourthThatMustNotBeSeen"),
    ("HTTPS_PROXY", "http://me:passwordThatMustNotBeSeen@127.0.0.1:9"),
];

/// The part of the secrets by which they are known.
const SECRET: &str = "ThatMustNotBeSeen";

/// The program in that folder, with secrets in its environment.
fn command(qlnet: &Qlnet, args: &[&str]) -> Command {
    let root = qlnet.home.path();
    let mut command = qlnet.command();
    command.args(args).current_dir(root).env("HOME", root.join("home")).env("TMPDIR", root.join("tmp")).envs(SECRETS);
    command
}

/// Runs a command with what `given/3.png` has on standard input, and returns what it did.
fn run(qlnet: &Qlnet, command: &Command) -> (Output, Trace) {
    let notes = tempfile::tempdir().unwrap();
    let picture = fs::File::open(qlnet.home.path().join("given/3.png")).unwrap();
    let output = tracer::traced(command, notes.path()).stdin(Stdio::from(picture)).output().unwrap();
    (output, Trace::read(notes.path(), command.get_current_dir().unwrap()))
}

/// Whether a case may change a file: an output, as much of it as there is (`.partial`), the folder that outputs are in, a
/// temporary file beside an output, or a file of the cache.
fn may_change(case: &Case, root: &Path, path: &Path) -> bool {
    let Ok(path) = path.strip_prefix(root) else { return false };
    let path = path.to_str().unwrap();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_cache = |path: &str| path == "cache" || path.starts_with("cache/");
    let of = |output: &&str| match output.strip_suffix('/') {
        Some(whole) => path.starts_with(*output) || format!("{whole}/").starts_with(&format!("{path}/")),
        None => {
            path.strip_suffix(".partial").unwrap_or(path) == *output
                || (folder == output.rsplit_once('/').unwrap().0 && name.starts_with(".qlnet-"))
        }
    };
    let caches = !case.variables.iter().any(|(name, _)| *name == "QLNET_CACHE");
    (caches && is_cache(path)) || case.outputs.iter().any(of)
}

/// All files below a folder.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(Result::unwrap);
    entries.filter(|entry| !entry.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn no_command_opens_a_connection_starts_a_program_or_writes_elsewhere() {
    if !tracer::is_there() {
        return;
    }
    let qlnet = place();
    let root = qlnet.home.path();
    for case in CASES {
        let before = files(root);
        let args: Vec<&str> = case.line.split(' ').collect();
        let mut command = command(&qlnet, &args);
        for (name, value) in case.variables {
            match value {
                // A folder, such as that of caches, has to be absolute to be heeded.
                Some(value) if name.ends_with("HOME") => command.env(name, root.join(value)),
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (output, trace) = run(&qlnet, &command);
        assert_eq!(output.status.code(), Some(case.code), "{}: {}", case.line, stderr(&output));
        assert!(trace.network.is_empty(), "{}: {:?}", case.line, trace.network);
        assert!(trace.other.is_empty(), "{}: {:?}", case.line, trace.other);
        for path in &trace.changed {
            assert!(may_change(case, root, path), "{} changes {}", case.line, path.display());
        }
        let new: Vec<_> = files(root).difference(&before).cloned().collect();
        if case.code == 0 {
            for written in case.outputs {
                let is_it = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().starts_with(written);
                assert!(
                    trace.changed.iter().any(is_it) && files(root).iter().any(is_it),
                    "{}: no {written}",
                    case.line
                );
            }
        }
        for path in new {
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_kept = path.starts_with(root.join("cache"));
            assert!(case.code == 0 || is_kept, "{} fails and leaves {}", case.line, path.display());
            assert!(!name.starts_with('.'), "{} leaves {}", case.line, path.display());
        }
        let said = stdout(&output) + &stderr(&output);
        assert!(!said.contains(SECRET), "{}: {said}", case.line);
    }
    assert_no_secret(root);
}

/// Asserts that no secret is in a file.
fn assert_no_secret(root: &Path) {
    for path in files(root) {
        let content = fs::read(&path).unwrap();
        assert!(!content.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{}", path.display());
    }
}

/// The list is complete: a command or an option without a case fails here, with or without strace.
#[test]
fn every_option_of_every_command_has_a_case() {
    let all = qlnet::internals::command();
    let lines: Vec<Vec<&str>> = CASES.iter().map(|case| case.line.split(' ').collect()).collect();
    for command in std::iter::once(&all).chain(all.get_subcommands()) {
        let name = command.get_name();
        // What belongs to no command may stand in any line.
        let is_of = |line: &&Vec<&str>| name == all.get_name() || line[0] == name;
        let of: Vec<_> = lines.iter().filter(is_of).flatten().copied().collect();
        assert!(!of.is_empty(), "qlnet {name} has no case");
        for option in command.get_arguments().filter(|option| !option.is_positional()) {
            let long = option.get_long().map(|long| format!("--{long}"));
            let short = option.get_short().map(|short| format!("-{short}"));
            let has = of.iter().any(|word| [&long, &short].iter().any(|name| name.as_deref() == Some(word)));
            assert!(has, "qlnet {name}: {long:?} has no case");
        }
        if let Some(shells) = command.get_arguments().find(|option| option.get_id() == "shell") {
            for shell in shells.get_possible_values() {
                assert!(of.contains(&shell.get_name()), "qlnet {name}: {} has no case", shell.get_name());
            }
        }
    }
}

#[test]
fn help_is_read_from_the_program_alone() {
    if !tracer::is_there() {
        return;
    }
    let qlnet = place();
    for subcommand in qlnet::internals::command().get_subcommands() {
        let name = subcommand.get_name();
        for args in [&["help", name][..], &[name, "-h"], &[name, "--help"]] {
            let (output, trace) = run(&qlnet, &command(&qlnet, args));
            assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
            assert!(trace.network.is_empty() && trace.other.is_empty() && trace.changed.is_empty(), "{args:?}");
        }
    }
}

/// Without `HOME` the system is asked where a user's home is. The C library asks a service of this machine for it, if
/// there is one, through a socket that is a file.
#[test]
fn no_home_is_no_reason_to_ask_another_machine() {
    if !tracer::is_there() {
        return;
    }
    let qlnet = place();
    let (output, trace) = run(&qlnet, command(&qlnet, &["models"]).env_remove("HOME"));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(trace.network.iter().all(|call| call.contains("UNIX")), "{:?}", trace.network);
    assert!(trace.other.is_empty() && trace.changed.is_empty(), "{:?} {:?}", trace.other, trace.changed);
}

/// The value of a header of a request, whose name is in lower case.
fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    &request.headers.iter().find(|(found, _)| found == name).unwrap().1
}

/// Asserts that a request has these headers and no others: the token for the hub alone, and of this program its name
/// and version.
fn assert_says_nothing_else(request: &Request, server: &HubServer) {
    let said: BTreeMap<_, _> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let agent = concat!("qlnet/", env!("CARGO_PKG_VERSION"));
    let mut expected = BTreeMap::from([("accept", "*/*"), ("accept-encoding", "identity"), ("user-agent", agent)]);
    expected.insert("host", header(request, "host"));
    let token = format!("Bearer {}", SECRETS[0].1);
    if !request.path.starts_with("/blob/") {
        assert_eq!(header(request, "host"), server.endpoint.strip_prefix("http://").unwrap());
        expected.insert("authorization", &token);
    }
    assert_eq!(said, expected, "{}", request.path);
}

/// A data set that is downloaded, and the weights of a model: who is asked, for what, and what is said.
#[test]
fn a_download_asks_the_hub_for_files_and_says_nothing_else() {
    if !tracer::is_there() {
        return;
    }
    let content = fs::read(fixture("sets/parquet-hf/data/validation-00001-of-00003.parquet")).unwrap();
    let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = "data/validation-00000-of-00001.parquet".to_string();
    let file = ServedFile { name: name.clone(), content, hash: hash.clone(), is_large: true };
    let server = HubServer::of_dataset(vec![file], &[]);
    let qlnet = place();
    let root = qlnet.home.path();
    let download = |args: &[&str]| {
        let mut command = command(&qlnet, args);
        command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", root.join("hf")).env_remove("HTTPS_PROXY");
        run(&qlnet, &command)
    };
    let (output, trace) = download(&["eval", "hf:owner/name", DIGITS[0], DIGITS[1], "-v"]);
    assert!(output.status.success(), "{}", stderr(&output));

    let asked: Vec<_> =
        server.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    let expected = [
        "GET /api/datasets/owner/name/revision/main?blobs=true".to_string(),
        format!("GET /datasets/owner/name/resolve/{COMMIT}/{name}"),
        format!("GET /blob/{hash}"),
    ];
    assert_eq!(asked, expected);
    for request in server.requests() {
        assert_says_nothing_else(&request, &server);
    }

    // Every connection is to the servers of this test; the address of the second is known by name.
    let port = |request: &Request| header(request, "host").rsplit(':').next().unwrap().to_string();
    let ports: Vec<_> = server.requests().iter().map(port).collect();
    for call in trace.network.iter().filter(|call| call.contains("sa_family=AF_INET")) {
        let is_here = call.contains("\"127.0.0.1\"") || call.contains("\"::1\"");
        let is_asked = ports.iter().any(|port| call.contains(&format!("htons({port})")));
        assert!(is_here && is_asked, "{call}");
    }
    for call in trace.network.iter().filter(|call| call.starts_with("socket(")) {
        assert!(["AF_INET", "AF_UNIX", "AF_NETLINK"].iter().any(|family| call.contains(family)), "{call}");
    }
    assert!(trace.other.is_empty(), "{:?}", trace.other);
    for path in &trace.changed {
        assert!(["hf", "cache"].iter().any(|place| path.starts_with(root.join(place))), "{}", path.display());
    }
    let said = stdout(&output) + &stderr(&output);
    assert!(!said.contains(SECRET), "{said}");
    assert_no_secret(root);
}
