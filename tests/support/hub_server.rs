//! A stand-in for the Hugging Face hub: `resolve/<revision>/<file>` responds with a redirect and the
//! hub's headers, another address serves the content, with ranges. Of a data set it lists the files too. It can be
//! told to misbehave.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How the content server responds to one GET. To those that are not planned it sends what they ask for.
#[derive(Clone, Copy, Debug)]
pub enum ContentResponse {
    /// Closes the connection after so many bytes.
    CutAfter(usize),
    /// Sends so many bytes, then nothing for longer than anybody waits.
    SilentAfter(usize),
    /// Takes the request and never answers.
    Mute,
    /// An error status without content.
    Status(u16),
    /// All of the file, whatever range was asked for.
    IgnoreRange,
    /// One byte is wrong.
    Corrupt,
    /// A short page instead, as captive portals send.
    Page,
    /// A page that says what it is, but not how long.
    HtmlPage,
    /// Ten thousand bytes at a time, with such a pause after each, in milliseconds.
    Slowly(u64),
    /// Another part of the file than was asked for.
    WrongRange,
    /// The part from 60,000 on, without saying how long it is.
    LateRange,
}

/// How the hub responds to one request, before it redirects as it should.
#[derive(Clone, Debug)]
pub enum HubResponse {
    /// An error, with further headers, each with its line end.
    Status(u16, &'static str),
    /// To another place.
    Redirect(String),
}

/// One request, as the servers saw it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    /// All headers, their names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A file of the data set.
#[derive(Clone, Debug)]
pub struct ServedFile {
    pub name: String,
    pub content: Vec<u8>,
    /// Its SHA-256, or that of Git for a file outside LFS.
    pub hash: String,
    pub is_large: bool,
}

/// The commit of the data set.
pub const COMMIT: &str = "5f2c0d1e9a8b7c6d5e4f30211203f4e5d6c7b8a9";

pub struct HubServer {
    /// What `HF_ENDPOINT` is set to.
    pub endpoint: String,
    state: Arc<State>,
}

struct State {
    content: Vec<u8>,
    sha256: String,
    /// Address of the content.
    location: Mutex<String>,
    plan: Mutex<VecDeque<ContentResponse>>,
    hub_plan: Mutex<VecDeque<HubResponse>>,
    requests: Mutex<Vec<Request>>,
    /// Of the data set, under every name of one.
    files: Mutex<Vec<ServedFile>>,
    /// What is answered to the question for these files, in place of them.
    listing: Mutex<Option<String>>,
}

impl HubServer {
    /// Serves `content`, under every repository, revision and file name, as the blob `sha256`.
    pub fn new(content: Vec<u8>, sha256: &str, plan: &[ContentResponse]) -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let storage = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://127.0.0.1:{}", hub.local_addr().unwrap().port());
        let state = Arc::new(State {
            content,
            sha256: sha256.into(),
            location: Mutex::new(format!("http://localhost:{}/blob", storage.local_addr().unwrap().port())),
            plan: Mutex::new(plan.iter().copied().collect()),
            hub_plan: Mutex::default(),
            requests: Mutex::new(Vec::new()),
            files: Mutex::default(),
            listing: Mutex::default(),
        });
        serve(hub, state.clone(), respond_as_hub);
        serve(storage, state.clone(), respond_as_storage);
        Self { endpoint, state }
    }

    /// Serves the files of a data set.
    pub fn of_dataset(files: Vec<ServedFile>, plan: &[ContentResponse]) -> Self {
        let server = Self::new(Vec::new(), "", plan);
        *server.state.files.lock().unwrap() = files;
        server
    }

    /// Answers this to the question for a data set's files from now on.
    pub fn list(&self, text: &str) {
        *self.state.listing.lock().unwrap() = Some(text.into());
    }

    /// The answer to the question for a data set's files.
    pub fn listing(&self) -> String {
        self.state.listing()
    }

    /// The files of the data set whose content was asked for, with the range, in order.
    pub fn contents(&self) -> Vec<(String, Option<String>)> {
        let files = self.state.files.lock().unwrap();
        let name = |path: &str| {
            let hash = path.strip_prefix("/blob/")?;
            Some(files.iter().find(|file| file.hash == hash)?.name.clone())
        };
        self.requests().into_iter().filter_map(|request| Some((name(&request.path)?, request.range))).collect()
    }

    /// Plans the responses of the hub to its next requests.
    pub fn plan_hub(&self, responses: impl IntoIterator<Item = HubResponse>) {
        self.state.hub_plan.lock().unwrap().extend(responses);
    }

    /// Sends requests for the content elsewhere from now on.
    pub fn move_content(&self, location: &str) {
        *self.state.location.lock().unwrap() = location.into();
    }

    /// All requests so far, to both addresses.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The `Range` of every GET for the content.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let gets = self.requests().into_iter().filter(|r| r.method == "GET" && r.path == "/blob");
        gets.map(|r| r.range).collect()
    }
}

fn serve(
    listener: TcpListener,
    state: Arc<State>,
    respond: fn(&State, &Request, &mut TcpStream) -> std::io::Result<()>,
) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, state) = (stream.unwrap(), state.clone());
            thread::spawn(move || {
                if let Some(request) = read_request(&stream) {
                    state.requests.lock().unwrap().push(request.clone());
                    // The client may hang up before the end.
                    let _ = respond(&state, &request, &mut stream);
                }
            });
        }
    });
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let [method, path] = [words.next()?.into(), words.next()?.into()];
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        headers.push((name.to_lowercase(), value.to_string()));
    }
    let header = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    Some(Request { method, path, range: header("range"), authorization: header("authorization"), headers })
}

fn respond_as_hub(state: &State, request: &Request, out: &mut TcpStream) -> std::io::Result<()> {
    let planned = state.hub_plan.lock().unwrap().pop_front();
    match planned {
        Some(HubResponse::Status(status, headers)) => {
            return write!(out, "HTTP/1.1 {status} Error\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Some(HubResponse::Redirect(location)) => {
            return write!(
                out,
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\
                 Connection: close\r\n\r\n"
            );
        }
        None => {}
    }
    if let Some(asked) = request.path.strip_prefix("/api/datasets/") {
        return respond_with_listing(state, asked, out);
    }
    if let Some(asked) = request.path.strip_prefix("/datasets/") {
        return respond_for_dataset(state, asked, out);
    }
    let parts: Vec<_> = request.path.trim_start_matches('/').split('/').collect();
    let [_owner, _name, "resolve", revision, _file] = parts[..] else {
        return write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if revision.contains("missing") {
        return write!(
            out,
            "HTTP/1.1 404 Not Found\r\nX-Error-Code: RevisionNotFound\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    write!(
        out,
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nX-Repo-Commit: {revision}\r\nX-Linked-Etag: \"{}\"\r\n\
         X-Linked-Size: {}\r\nETag: \"{}\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        state.location.lock().unwrap(),
        state.sha256,
        state.content.len(),
        state.sha256
    )
}

impl State {
    fn listing(&self) -> String {
        if let Some(text) = &*self.listing.lock().unwrap() {
            return text.clone();
        }
        let files = self.files.lock().unwrap();
        let files: Vec<String> = files.iter().map(ServedFile::listed).collect();
        format!("{{\"id\": \"a/b\", \"sha\": \"{COMMIT}\", \"gated\": \"auto\", \"siblings\": [{}]}}", files.join(", "))
    }
}

impl ServedFile {
    fn listed(&self) -> String {
        let Self { name, content, hash, is_large } = self;
        let size = content.len();
        // The pointer that Git has in the place of a large file has a hash too.
        let id = &hash[..40];
        let lfs = match is_large {
            true => format!(", \"lfs\": {{\"sha256\": \"{hash}\", \"size\": {size}, \"pointerSize\": 134}}"),
            false => String::new(),
        };
        format!("{{\"rfilename\": \"{name}\", \"size\": {size}, \"blobId\": \"{id}\"{lfs}}}")
    }
}

fn respond_with_error(status: u16, code: &str, out: &mut TcpStream) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {status} Error\r\nX-Error-Code: {code}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn respond_with_listing(state: &State, asked: &str, out: &mut TcpStream) -> std::io::Result<()> {
    let (name, revision) = asked.split_once("/revision/").unwrap_or((asked, ""));
    if name.contains("missing") {
        return respond_with_error(401, "RepoNotFound", out);
    } else if revision.contains("missing") {
        return respond_with_error(404, "RevisionNotFound", out);
    }
    let text = state.listing();
    write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
}

fn respond_for_dataset(state: &State, asked: &str, out: &mut TcpStream) -> std::io::Result<()> {
    let file = asked.split_once("/resolve/").and_then(|(_, asked)| asked.split_once('/')).map(|(_, file)| file);
    let files = state.files.lock().unwrap();
    match files.iter().find(|served| Some(served.name.as_str()) == file) {
        Some(ServedFile { content, hash, .. }) => write!(
            out,
            "HTTP/1.1 302 Found\r\nLocation: {}/{hash}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{hash}\"\r\n\
             X-Linked-Size: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            state.location.lock().unwrap(),
            content.len()
        ),
        None => respond_with_error(404, "EntryNotFound", out),
    }
}

fn respond_as_storage(state: &State, request: &Request, out: &mut TcpStream) -> std::io::Result<()> {
    let files = state.files.lock().unwrap().clone();
    let hash = request.path.strip_prefix("/blob/");
    let served = files.iter().find(|file| Some(file.hash.as_str()) == hash);
    let all = served.map_or(&state.content, |file| &file.content);
    let total = all.len();
    if request.method == "HEAD" {
        return write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\nAccept-Ranges: bytes\r\nConnection: close\r\n\r\n"
        );
    }
    let response = state.plan.lock().unwrap().pop_front();
    let start: usize = match (response, &request.range) {
        (Some(ContentResponse::IgnoreRange), _) | (_, None) => 0,
        (_, Some(range)) => range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap(),
    };
    match response {
        Some(ContentResponse::Status(status)) => {
            write!(out, "HTTP/1.1 {status} Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        Some(ContentResponse::Page) => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nConnection: close\r\n\r\n<html>log in</html>  ")
        }
        Some(ContentResponse::HtmlPage) => write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n\r\n<html>log in</html>"
        ),
        Some(ContentResponse::Mute) => {
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Some(ContentResponse::LateRange) => {
            write!(
                out,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 60000-{}/{total}\r\nConnection: close\r\n\r\n",
                total - 1
            )?;
            out.write_all(&all[60_000..])
        }
        response => {
            send_content_head(response, start, total, out)?;
            send_content(response, &all[start..], out)
        }
    }
}

/// Status and headers of a response with the content from `start` on.
fn send_content_head(
    response: Option<ContentResponse>,
    start: usize,
    total: usize,
    out: &mut TcpStream,
) -> std::io::Result<()> {
    let length = total - start;
    let (end, claimed_total) = match response {
        Some(ContentResponse::WrongRange) => (total + 9, total + 10),
        _ => (total - 1, total),
    };
    if start == 0 && claimed_total == total {
        return write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\nConnection: close\r\n\r\n");
    }
    write!(
        out,
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{end}/{claimed_total}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

/// The content, or what is planned to come of it.
fn send_content(response: Option<ContentResponse>, content: &[u8], out: &mut TcpStream) -> std::io::Result<()> {
    match response {
        Some(ContentResponse::CutAfter(n)) => out.write_all(&content[..n.min(content.len())]),
        Some(ContentResponse::SilentAfter(n)) => {
            out.write_all(&content[..n])?;
            out.flush()?;
            thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Some(ContentResponse::Slowly(pause)) => {
            for chunk in content.chunks(10_000) {
                out.write_all(chunk)?;
                out.flush()?;
                thread::sleep(Duration::from_millis(pause));
            }
            Ok(())
        }
        Some(ContentResponse::Corrupt) => {
            let mut content = content.to_vec();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            out.write_all(&content)
        }
        _ => out.write_all(content),
    }
}
