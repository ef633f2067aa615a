//! Data sets of the hub: which files they have, and how these get here.

use std::path::PathBuf;

use qlnet::internals::{DatasetEvent, DatasetFiles, DatasetName, Hub};
use qlnet::{DatasetProblem, Error};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::hub_server::{COMMIT, ContentResponse, HubResponse, HubServer, ServedFile};
use crate::hub_setting::{content, hub};

/// A hub with a data set, and a client with an empty cache.
struct Setting {
    server: HubServer,
    cache: TempDir,
    hub: Hub,
}

/// As [`ContentResponse`] has it: everything, as it should be.
const WHOLE: ContentResponse = ContentResponse::IgnoreRange;
const SIZE: usize = 100_000;
/// The files of the validation split, and others.
const PARTS: [&str; 3] = [
    "data/validation-00000-of-00003.parquet",
    "data/validation-00001-of-00003.parquet",
    "data/validation-00002-of-00003.parquet",
];
const OTHERS: [&str; 2] = ["README.md", "data/train-00000-of-00001.parquet"];

fn hexadecimal(hasher: impl Digest) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file with content of its own. The first part is not in LFS.
fn served(name: &str) -> ServedFile {
    let mut content = content(SIZE);
    content[..name.len()].copy_from_slice(name.as_bytes());
    let is_large = name != PARTS[0];
    let hash = match is_large {
        true => hexadecimal(Sha256::new_with_prefix(&content)),
        false => {
            let header = format!("blob {SIZE}\0");
            hexadecimal(Sha1::new_with_prefix([header.as_bytes(), &content].concat()))
        }
    };
    ServedFile { name: name.into(), content, hash, is_large }
}

fn files(names: &[&str]) -> Vec<ServedFile> {
    names.iter().map(|name| served(name)).collect()
}

fn setting_of(names: &[&str], plan: &[ContentResponse]) -> Setting {
    let server = HubServer::of_dataset(files(names), plan);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    Setting { server, cache, hub }
}

fn setting(plan: &[ContentResponse]) -> Setting {
    setting_of(&[&OTHERS[..], &PARTS].concat(), plan)
}

impl Setting {
    fn fetch_named(&self, name: &str) -> (Result<DatasetFiles, Error>, Vec<String>) {
        let name: DatasetName = name.parse().unwrap();
        let (mut notices, mut before) = (Vec::new(), 0);
        let found = self.hub.dataset(&name, None, &mut |event| match event {
            DatasetEvent::Notice(text) => notices.push(text.to_string()),
            DatasetEvent::Progress { file, files, bytes, size } => {
                assert!((1..=files).contains(&file) && bytes <= size);
                before = bytes.max(before);
            }
            DatasetEvent::Checking(_) => {}
        });
        (found, notices)
    }

    fn fetch(&self) -> (Result<DatasetFiles, Error>, Vec<String>) {
        self.fetch_named("hf:a/b")
    }

    fn error(&self, name: &str) -> String {
        let error = self.fetch_named(name).0.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Dataset { .. }) && text.starts_with("hf:") && !text.contains('\n'), "{text}");
        text
    }

    fn folder(&self) -> PathBuf {
        self.cache.path().join("datasets--a--b")
    }

    /// Asserts that the validation split is there as it should be.
    fn assert_complete(&self, found: &DatasetFiles) {
        assert_eq!((found.commit.as_str(), found.split.as_deref()), (COMMIT, Some("validation")));
        assert_eq!(found.dir, self.folder().join("snapshots").join(COMMIT));
        assert_eq!(found.files, PARTS.map(|name| found.dir.join(name)));
        for (path, name) in found.files.iter().zip(PARTS) {
            let served = served(name);
            assert!(std::fs::read(path).unwrap() == served.content);
            #[cfg(unix)]
            assert_eq!(std::fs::read_link(path).unwrap(), PathBuf::from("../../../blobs").join(served.hash));
        }
        let blobs = std::fs::read_dir(self.folder().join("blobs")).unwrap();
        assert_eq!(blobs.count(), PARTS.len(), "and nothing else");
    }

    fn asked(&self) -> Vec<String> {
        self.server.requests().into_iter().map(|request| request.path).collect()
    }
}

#[test]
fn a_split_is_fetched_once_and_nothing_else() {
    let s = setting(&[]);
    let (found, notices) = s.fetch();
    s.assert_complete(&found.unwrap());
    assert!(notices.is_empty(), "{notices:?}");
    assert_eq!(s.server.contents(), PARTS.map(|name| (name.to_string(), None)));
    let asked = s.asked();
    assert_eq!(asked[0], "/api/datasets/a/b/revision/main?blobs=true");
    assert_eq!(asked[1], format!("/datasets/a/b/resolve/{COMMIT}/{}", PARTS[0]));

    s.assert_complete(&s.fetch().0.unwrap());
    assert_eq!(s.asked()[asked.len()..], ["/api/datasets/a/b/revision/main?blobs=true"]);
    // Of a commit the list does not change.
    s.assert_complete(&s.fetch_named(&format!("hf:a/b@{COMMIT}")).0.unwrap());
    assert_eq!(s.asked().len(), asked.len() + 1);
}

#[test]
fn splits_and_revisions_are_those_that_are_named() {
    let s = setting(&[]);
    let found = s.fetch_named("hf:a/b@refs/convert/parquet:train").0.unwrap();
    assert_eq!(found.files, [found.dir.join(OTHERS[1])]);
    assert_eq!(s.asked()[0], "/api/datasets/a/b/revision/refs%2Fconvert%2Fparquet?blobs=true");
    assert_eq!(std::fs::read_to_string(s.folder().join("refs/refs/convert/parquet")).unwrap(), COMMIT);
    let error = s.error("hf:a/b:test");
    assert!(error.contains("there is no split `test`; there is train, validation"), "{error}");
    let s = setting_of(&["a.zip", "train.py"], &[]);
    assert!(s.error("hf:a/b").contains("no Parquet files and no .tar archives, only 1 .py, 1 .zip"));
    let s = setting_of(&PARTS[..2], &[]);
    assert!(s.error("hf:a/b").contains("data/validation-00002-of-00003 is missing: 2 of 3 files"));
}

#[test]
fn a_cut_in_the_second_file_is_continued_by_this_run_or_the_next() {
    let cut = ContentResponse::CutAfter(60_000);
    let s = setting(&[WHOLE, cut]);
    let (found, notices) = s.fetch();
    s.assert_complete(&found.unwrap());
    assert!(notices.len() == 1 && notices[0].contains("trying again"), "{notices:?}");

    let s = setting(&[&[WHOLE, cut][..], &[ContentResponse::CutAfter(0); 2]].concat());
    let error = s.error("hf:a/b");
    assert!(error.contains(PARTS[1]) && error.contains("the 60000 bytes that came are kept"), "{error}");
    let asked = s.server.contents().len();
    s.assert_complete(&s.fetch().0.unwrap());
    let range = Some("bytes=60000-99999".to_string());
    assert_eq!(s.server.contents()[asked..], [(PARTS[1].to_string(), range), (PARTS[2].to_string(), None)]);
}

#[test]
fn wrong_bytes_are_refused_whatever_the_hash() {
    for (plan, name) in [(vec![ContentResponse::Corrupt], PARTS[0]), (vec![WHOLE, ContentResponse::Corrupt], PARTS[1])]
    {
        let s = setting(&plan);
        let error = s.error("hf:a/b");
        assert!(error.contains(&format!("{name} has ")) && error.contains("and it was removed"), "{error}");
        assert!(error.contains(if name == PARTS[0] { "Git's SHA-1" } else { "SHA-256" }), "{error}");
        s.assert_complete(&s.fetch().0.unwrap());
    }
}

#[test]
fn who_may_not_is_told_where_to_ask() {
    let page = |s: &Setting| format!("{}/datasets/a/b", s.server.endpoint);
    for (token, status, headers, part) in [
        (None, 401, "X-Error-Code: GatedRepo\r\n", "must be accepted there, and HF_TOKEN be set to a token of"),
        (
            None,
            401,
            "X-Error-Code: RepoNotFound\r\nX-Error-Message: Invalid username or password.\r\n",
            "or it is private; if it is there, set HF_TOKEN to a token of",
        ),
        (Some("hf_good"), 404, "X-Error-Code: RepoNotFound\r\n", "or that of `hf auth login`, may not see it"),
        (
            Some("hf_good"),
            403,
            "X-Error-Code: GatedRepo\r\n",
            "the terms of the repository must be accepted on its page",
        ),
    ] {
        // To the question for the files, and to that for the first of them.
        for before in [0, 1] {
            let mut s = setting(&[]);
            s.hub.token = token.map(Into::into);
            let fine = (0..before).map(|_| HubResponse::Redirect("/api/datasets/a/b/revision/main".into()));
            s.server.plan_hub(fine.chain([HubResponse::Status(status, headers)]));
            let error = s.error("hf:a/b");
            assert!(error.contains(part) && error.contains(&page(&s)) && !error.contains("hf_"), "{error}");
        }
    }
    let s = setting(&[]);
    assert!(s.error("hf:a/missing").contains("cannot list its files"), "{}", s.error("hf:a/missing"));
    assert!(s.error("hf:a/b@missing").contains("has no revision of this name"), "{}", s.error("hf:a/b@missing"));
}

#[test]
fn a_listed_file_that_is_not_there_is_named() {
    let s = setting(&[]);
    let listing = s.server.listing();
    let s = setting_of(&[&OTHERS[..], &PARTS[..2]].concat(), &[]);
    s.server.list(&listing);
    let error = s.error("hf:a/b");
    assert!(error.contains(PARTS[2]) && error.contains("404"), "{error}");
    assert!(error.contains("lists this file in") && error.contains("does not have it"), "{error}");
    let asked = s.server.contents().len();
    assert!(s.error("hf:a/b").contains(PARTS[2]));
    assert_eq!(s.server.contents().len(), asked, "what is here is kept");
}

#[test]
fn lists_that_are_none_are_refused() {
    let s = setting(&[]);
    let good = s.server.listing();
    for (listing, part) in [
        ("<html>log in</html>".to_string(), "that is no list of files"),
        (good.replace("README.md", "../../README.md"), "is not one of a file in a folder"),
        (good.replace("README.md", "/etc/passwd"), "is not one of a file in a folder"),
        (good.replace("\"size\": 100000", "\"size\": -1"), "with a size of -1"),
        (good.replace("\"size\": 100000, \"blobId\"", "\"blobId\""), "without its size"),
        (good[..good.len() / 2].to_string(), "broke off in the list of files, 3 times in a row"),
        (format!("{good}{}", " ".repeat(64 << 20)), "more than 67108864 bytes"),
    ] {
        s.server.list(&listing);
        let error = s.error("hf:a/b");
        assert!(error.contains(part), "{error}");
        assert!(!s.folder().join("blobs").exists(), "nothing is downloaded");
    }
    // Faults that pass are survived.
    s.server.list(&good);
    s.server.plan_hub([HubResponse::Status(503, ""), HubResponse::Status(429, "Retry-After: 0\r\n")]);
    let (found, notices) = s.fetch();
    s.assert_complete(&found.unwrap());
    assert!(notices[0].contains("503") && notices[1].contains("429"), "{notices:?}");
}

#[test]
fn two_at_once_download_once() {
    let s = setting(&[]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| s.assert_complete_at_last());
        }
    });
    assert_eq!(s.server.contents().len(), PARTS.len());
}

impl Setting {
    fn assert_complete_at_last(&self) {
        let found = self.fetch().0.unwrap();
        assert_eq!(found.files, PARTS.map(|name| found.dir.join(name)));
        assert!(found.files.iter().all(|file| file.exists()));
    }
}

#[test]
fn the_cache_is_enough_when_offline() {
    let mut s = setting(&[]);
    s.hub.offline = true;
    assert!(s.error("hf:a/b").contains("is not in the cache"));
    assert!(s.asked().is_empty());
    s.hub.offline = false;
    s.fetch().0.unwrap();
    assert_eq!(std::fs::read_to_string(s.folder().join("refs/main")).unwrap(), COMMIT);
    let asked = s.asked().len();

    s.hub.offline = true;
    let tree = s.folder().join("trees").join(format!("{COMMIT}.json"));
    for with_list in [true, false] {
        if !with_list {
            // As where Python has downloaded.
            std::fs::remove_file(&tree).unwrap();
        }
        s.assert_complete(&s.fetch().0.unwrap());
        s.assert_complete(&s.fetch_named(&format!("hf:a/b@{COMMIT}")).0.unwrap());
        assert!(s.error("hf:a/b@other").contains("is not in the cache"));
    }
    assert!(s.error("hf:a/b:train").contains("there is no split `train`"));
    // A validation split that is not here may be there.
    let dir = s.folder().join("snapshots").join(COMMIT).join("data");
    std::fs::rename(&dir, dir.with_file_name("validation")).unwrap();
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("test-00000-of-00001.parquet"), "").unwrap();
    assert!(s.error("hf:a/b").contains("name it, as in hf:a/b:SPLIT"), "{}", s.error("hf:a/b"));
    s.fetch_named("hf:a/b:test").0.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(dir.with_file_name("validation"), &dir).unwrap();
    let first = s.folder().join("snapshots").join(COMMIT).join(PARTS[0]);
    std::fs::remove_file(&first).unwrap();
    assert!(s.error("hf:a/b").contains("data/validation-00000-of-00003 is missing"));
    assert_eq!(s.asked().len(), asked);
}

#[test]
fn offline_files_that_are_damaged_or_missing_are_told() {
    let mut s = setting(&[]);
    s.fetch().0.unwrap();
    s.hub.offline = true;
    let error = s.error("hf:a/b:train");
    assert!(error.contains("1 of 1 files, data/train-00000-of-00001.parquet first, are not in the cache"), "{error}");
    let blob = s.folder().join("blobs").join(served(PARTS[1]).hash);
    std::fs::write(&blob, vec![0; SIZE]).unwrap();
    assert!(s.error("hf:a/b").contains(&format!("1 of 3 files, {} first", PARTS[1])));
    s.hub.offline = false;
    let (found, notices) = s.fetch();
    s.assert_complete(&found.unwrap());
    assert!(notices[0].contains("damaged"), "{notices:?}");
}

#[test]
fn a_hub_that_cannot_be_reached_is_one_clear_line() {
    let mut s = setting(&[]);
    let endpoint = std::mem::replace(&mut s.hub.endpoint, "http://127.0.0.1:9".into());
    let error = s.error("hf:a/b");
    assert!(error.contains("cannot reach the Hugging Face hub at http://127.0.0.1:9"), "{error}");
    assert!(!error.contains("HF_HUB_OFFLINE"), "{error}");
    s.hub.endpoint = endpoint;
    s.fetch().0.unwrap();
    s.hub.endpoint = "http://127.0.0.1:9".into();
    assert!(s.error("hf:a/b").ends_with("HF_HUB_OFFLINE=1 takes what is in the cache"));
}

/// A hash is remembered of files that were not changed lately; a record that says so makes it needless to read them.
#[test]
fn files_in_the_cache_are_read_once() {
    let mut s = setting(&[]);
    let hashes = tempfile::tempdir().unwrap();
    s.hub.hashes = Some(hashes.path().into());
    let name: DatasetName = "hf:a/b".parse().unwrap();
    let checked = |s: &Setting| {
        let mut checked = 0;
        let mut each = |event: DatasetEvent| match event {
            DatasetEvent::Checking(bytes) => checked += bytes,
            event => panic!("{event:?}"),
        };
        s.hub.dataset(&name, None, &mut each).unwrap();
        checked
    };
    let found = s.fetch().0.unwrap();
    let size = SIZE as u64;
    // Those of Git are small.
    assert_eq!(checked(&s), 3 * size, "they were written just now");
    // Longer than a clock's step.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(checked(&s), 3 * size);
    assert_eq!(checked(&s), size);
    std::fs::write(&found.files[1], vec![0; SIZE]).unwrap();
    let (found, notices) = s.fetch();
    assert!(notices[0].contains("damaged"), "{notices:?}");
    s.assert_complete(&found.unwrap());
}

#[test]
fn errors_say_what_kind_they_are() {
    let s = setting(&[]);
    // Sizes that no disk has.
    let huge = s.server.listing().replace("\"size\": 100000", &format!("\"size\": {}", i64::MAX));
    for (name, problem) in [("hf:a/b:test", DatasetProblem::Split), ("hf:a/b@missing", DatasetProblem::Download)] {
        let error = s.fetch_named(name).0.unwrap_err();
        assert!(matches!(&error, Error::Dataset { problem: found, .. } if *found == problem), "{error:?}");
    }
    s.server.list(&huge);
    let error = s.fetch().0.unwrap_err();
    assert!(matches!(&error, Error::Dataset { problem: DatasetProblem::Space, .. }), "{error:?}");
    assert!(error.to_string().contains("HF_HUB_CACHE") && !s.folder().join("blobs").exists(), "{error}");
}
