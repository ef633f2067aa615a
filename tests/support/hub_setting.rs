//! A hub, an empty cache and a client between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qlnet::internals::{Event, Hub, Proxies};
use qlnet::weights::{ContentHash, HubFile, Repository};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::hub_server::{ContentResponse, HubServer};

/// Bytes that do not repeat.
pub fn content(size: usize) -> Vec<u8> {
    let mut state = 7u64;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

/// A pin of `content` that lives as long as the test process.
fn pin(content: &[u8]) -> HubFile<'static> {
    let sha256: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
    HubFile {
        repository: Repository::Model("liuyao/QLNet"),
        revision: "c388ac008044564d491817aa30658481acfbc177",
        file: "qlnet-50-v0.pth.tar",
        size: content.len() as u64,
        hash: ContentHash::Sha256(sha256.leak()),
    }
}

/// A server, and a client of it with a cache of its own.
pub struct Setting {
    pub server: HubServer,
    pub cache: TempDir,
    pub hub: Hub,
    pub file: HubFile<'static>,
    pub content: Vec<u8>,
}

/// A client of a server, with a cache in a directory.
pub fn hub(server: &HubServer, cache: &Path) -> Hub {
    Hub {
        endpoint: server.endpoint.clone(),
        token: None,
        proxies: Proxies::default(),
        cache_dir: cache.into(),
        hashes: None,
        offline: false,
        read_timeout: Duration::from_secs(20),
        attempts: 3,
        backoff: Duration::from_millis(10),
    }
}

/// A server with so many bytes that answers as planned, and a client of it with an empty cache.
pub fn setting(size: usize, plan: &[ContentResponse]) -> Setting {
    let content = content(size);
    let file = pin(&content);
    let server = HubServer::new(content.clone(), file.hash.digits(), plan);
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server, cache.path());
    Setting { server, cache, hub, file, content }
}

impl Setting {
    /// Fetches, and returns the path or the words of the error, and the notices on the way.
    pub fn fetch(&self) -> (Result<PathBuf, String>, Vec<String>) {
        let (mut notices, mut last) = (Vec::new(), 0);
        let result = self.hub.fetch(&self.file, &mut |event| match event {
            Event::Notice(text) => notices.push(text.to_string()),
            Event::Progress(bytes) => last = bytes,
            Event::Stored(path) => assert!(path.exists()),
        });
        assert!(result.is_err() || [0, self.file.size].contains(&last), "{last} bytes were reported at the end");
        (result.map_err(|error| error.to_string()), notices)
    }

    /// The folder of the repository in the cache.
    fn repository(&self) -> PathBuf {
        self.cache.path().join("models--liuyao--QLNet")
    }

    /// The folder of the content in the cache.
    pub fn blobs(&self) -> PathBuf {
        self.repository().join("blobs")
    }

    /// The folder of the revision in the cache.
    pub fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(self.file.revision)
    }

    /// The names in the folder of the content, sorted.
    pub fn blob_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.blobs()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Asserts that a file lies where it belongs, with nothing besides.
    pub fn assert_complete(&self, path: &Path) {
        assert_eq!(path, self.snapshot().join(self.file.file));
        assert!(std::fs::read(path).unwrap() == self.content);
        assert_eq!(self.blob_names(), [self.file.hash.digits()]);
        #[cfg(unix)]
        assert_eq!(
            std::fs::read_link(path).unwrap(),
            Path::new("../../blobs").join(self.file.hash.digits()),
            "linked as huggingface_hub links"
        );
    }
}
