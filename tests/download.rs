//! Downloads by the program as a user runs it: messages, TLS, proxies.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "some tests are for Linux alone"))]

#[path = "support/hub_server.rs"]
mod hub_server;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use hub_server::{COMMIT, ContentResponse, HubResponse, HubServer, ServedFile};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};
use support::fixture;
use support::program::{DIGITS, Qlnet, assert_error, records, stderr};

/// Puts TLS before a server that has none: `https://localhost:PORT`, with a certificate of
/// `tests/fixtures/tls`.
fn tls_front(certificate: &str, server: &HubServer) -> String {
    let pem = |name: &str| std::fs::read(fixture(&format!("tls/{name}.pem"))).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&pem(certificate)).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&pem("key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let behind = server.endpoint.strip_prefix("http://").unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            let mut request = vec![0; 8192];
            // The client may refuse the certificate.
            let Ok(count) = tls.read(&mut request) else { continue };
            let mut server = TcpStream::connect(&behind).unwrap();
            server.write_all(&request[..count]).unwrap();
            let _ = std::io::copy(&mut server, &mut tls);
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    });
    address
}

/// A server with a file of the right size that is not the published one, so that a download that
/// works ends in that being told.
fn server() -> HubServer {
    HubServer::new(vec![0; 40_668_469], "593cd748", &[])
}

/// `qlnet classify`, with a cache of the hub in the home directory that the test made: `HOME` alone is not enough
/// where the system knows the user's home directory by other means, as Windows does.
fn classify(qlnet: &Qlnet) -> Command {
    let mut command = qlnet.command();
    command.args(["classify", "samples/digits/1-21.png"]).env("HF_HOME", qlnet.home.path().join("hf"));
    command
}

fn download(qlnet: &Qlnet, endpoint: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = classify(qlnet);
    command.args(["--model", "qlnet-10m"]).env("HF_ENDPOINT", endpoint);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env_remove("SSL_CERT_DIR").env("SSL_CERT_FILE", fixture("tls/authority.pem"));
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Asserts that a run failed with these words in its message.
fn assert_fails_with(output: &Output, part: &str) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(part), "{message}");
}

const ARRIVED: &str = "delivered something other than the pinned file";

// rustls asks the system's own verifier elsewhere, which does not look at SSL_CERT_FILE.
#[cfg(target_os = "linux")]
#[test]
fn certificates_are_checked_and_a_wrong_clock_is_told() {
    let server = server();
    let qlnet = Qlnet::new();
    for (certificate, part) in [
        ("good", ARRIVED),
        ("expired", "has expired by this machine's clock, which is in the year 2"),
        ("future", "is not valid yet by this machine's clock, which is in the year 2"),
    ] {
        assert_fails_with(&download(&qlnet, &tls_front(certificate, &server), &[]), part);
    }
    let front = tls_front("good", &server);
    for (authorities, part) in [
        // Authorities, but not that of the certificate.
        (fixture("tls/future.pem"), "name its certificate with SSL_CERT_FILE=ca.pem"),
        (fixture("legacy.pth"), "there are no certificates in"),
    ] {
        let output = download(&qlnet, &front, &[("SSL_CERT_FILE", authorities.to_str().unwrap())]);
        assert_fails_with(&output, part);
    }
    let output = download(&qlnet, &front.replace("localhost", "127.0.0.1"), &[]);
    assert_fails_with(&output, "does not prove that it is who it should be");
}

/// A proxy that records what it is asked for, and connects everything to one server.
fn proxy(server: &HubServer, answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let behind = server.endpoint.strip_prefix("http://").unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://me:secret@127.0.0.1:{}", listener.local_addr().unwrap().port());
    let notes = asked.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            notes.lock().unwrap().push(head.join("\n"));
            write!(stream, "HTTP/1.1 {answer}\r\n\r\n").unwrap();
            let request: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            if request.is_empty() {
                continue;
            }
            let mut server = TcpStream::connect(&behind).unwrap();
            write!(server, "{}\r\n\r\n", request.join("\r\n")).unwrap();
            let _ = std::io::copy(&mut server, &mut stream);
        }
    });
    (address, asked)
}

#[test]
fn proxies_are_asked_and_passed_by_as_the_environment_says() {
    let server = server();
    let qlnet = Qlnet::new();
    let (through, asked) = proxy(&server, "200 Connection established");
    // Only the proxy knows this host. The content lies on localhost, to which none is needed.
    let variables = [("HTTP_PROXY", &*through), ("NO_PROXY", "elsewhere.example, localhost")];
    assert_fails_with(&download(&qlnet, "http://hub.invalid", &variables), ARRIVED);
    let seen = asked.lock().unwrap().clone();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].starts_with("CONNECT hub.invalid:80 HTTP/1.1"), "{seen:?}");
    assert!(seen[0].to_lowercase().contains("proxy-authorization: basic"), "{seen:?}");

    let output = download(&qlnet, "https://hub.invalid", &variables);
    assert_fails_with(&output, "cannot reach the Hugging Face hub at https://hub.invalid");
    assert_eq!(asked.lock().unwrap().len(), 1, "a proxy for http is none for https");

    let output = download(&qlnet, "http://hub.invalid", &[("http_proxy", "127.0.0.1:9")]);
    assert_fails_with(
        &output,
        "cannot reach the Hugging Face hub at http://hub.invalid, through the proxy 127.0.0.1:9 (",
    );

    let (refusing, _) = proxy(&server, "407 Proxy Authentication Required");
    let output = download(&qlnet, "http://hub.invalid", &[("ALL_PROXY", &refusing)]);
    assert_fails_with(&output, "hub.invalid, through the proxy http://127.0.0.1:");
    assert!(
        stderr(&output).contains("wants a name and a password") && !stderr(&output).contains("secret"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_log_tells_what_is_downloaded_and_where_it_goes_on() {
    let server = HubServer::new(vec![0; 40_668_469], "593cd748", &[ContentResponse::CutAfter(30_000_000)]);
    let output = download(&Qlnet::new(), &server.endpoint, &[]);
    let text = stderr(&output);
    assert!(text.starts_with("note: downloading qlnet-10m: 40.7 MB\nnote: "), "{text}");
    assert!(text.contains("trying again"), "{text}");
}

/// Asserts that a run failed because it could not download, in three lines: why, and two ways to do without.
fn assert_download_error(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    let lines: Vec<_> = message.trim_end().lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(lines[0].starts_with("error: ") && parts.iter().all(|part| lines[0].contains(part)), "{message}");
    let address = "/liuyao/QLNet/resolve/c388ac008044564d491817aa30658481acfbc177/qlnet-50-v0.pth.tar";
    assert!(lines[1].contains(address) && lines[1].contains("--weights qlnet-50-v0.pth.tar"), "{message}");
    assert!(lines[2].contains("--model qlnet-digits"), "{message}");
}

#[test]
fn without_the_hub_the_ways_on_are_named() {
    let qlnet = Qlnet::new();
    let output = classify(&qlnet).output().unwrap();
    assert_download_error(&output, &["cannot reach the Hugging Face hub at http://127.0.0.1:9", "qlnet-50-v0.pth.tar"]);
    let output = classify(&qlnet).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_download_error(&output, &["HF_HUB_OFFLINE is set"]);
}

/// It would be passed over, and the hub be asked in place of a mirror.
#[cfg(target_os = "linux")]
#[test]
fn an_endpoint_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let qlnet = Qlnet::new();
    for endpoint in [&b"http://127.0.0.1:9/\xff"[..], b"http://\xff.invalid", b"\xff"] {
        let endpoint = std::ffi::OsStr::from_bytes(endpoint);
        let output = classify(&qlnet).env("HF_ENDPOINT", endpoint).output().unwrap();
        assert_download_error(&output, &["is not an address: HF_ENDPOINT has to be UTF-8"]);
    }
}

#[test]
fn what_a_hub_delivers_is_checked_and_the_token_stays_with_it() {
    let qlnet = Qlnet::new();
    // Of the right size, but not the published file.
    let server = HubServer::new(vec![0; 40_668_469], "593cd748", &[]);
    let output = classify(&qlnet)
        .args(["--model", "qlnet-10m"])
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_TOKEN", "hf_secret")
        .output()
        .unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("expected 3ef3de79ee65221496ad99c3e79c50c297a7d1af5a4da11f239f0bf7ac98c0eb"), "{message}");
    let blobs = qlnet.home.path().join("hf").join("hub").join("models--liuyao--QLNet").join("blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
    for request in server.requests() {
        let sent = request.authorization.as_deref() == Some("Bearer hf_secret");
        assert_eq!(sent, request.path != "/blob", "{request:?}");
    }
}

/// What `hf auth login` left, or what is at the path that is named. What is missing, blank or too long is none.
#[test]
fn a_stored_token_is_sent_if_it_is_one() {
    let qlnet = Qlnet::new();
    let server = HubServer::new(Vec::new(), "", &[]);
    let [stored, named] = ["hf/token", "named"].map(|name| qlnet.home.path().join(name));
    std::fs::create_dir_all(stored.parent().unwrap()).unwrap();
    let sent = |named: bool| {
        server.plan_hub([HubResponse::Status(401, "")]);
        let mut command = classify(&qlnet);
        command.args(["--model", "qlnet-10m"]).env("HF_ENDPOINT", &server.endpoint);
        for name in ["HUGGING_FACE_HUB_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_TOKEN_PATH"] {
            command.env_remove(name);
        }
        if named {
            command.env("HF_TOKEN_PATH", qlnet.home.path().join("named"));
        }
        assert_fails_with(&command.output().unwrap(), "401");
        server.requests().pop().unwrap().authorization
    };
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    assert_eq!(sent(false), None);
    for (content, expected) in [(" \n", None), ("hf_stored\n", bearer("hf_stored"))] {
        std::fs::write(&stored, content).unwrap();
        assert_eq!(sent(false), expected);
    }
    // There is one that could be sent in its place.
    assert_eq!(sent(true), None);
    for (content, expected) in [("\thf_named \n", bearer("hf_named")), (&"h".repeat(5000), None)] {
        std::fs::write(&named, content).unwrap();
        assert_eq!(sent(true), expected);
    }
    #[cfg(unix)]
    {
        std::fs::remove_file(&named).unwrap();
        support::pipe::make_pipe(&named);
        // One that was named is waited for: it may be what a shell puts in the place of `<(...)`.
        let writer = std::thread::spawn({
            let named = named.clone();
            move || std::fs::write(named, "hf_piped\n")
        });
        assert_eq!(sent(true), bearer("hf_piped"));
        writer.join().unwrap().unwrap();
        std::fs::remove_file(&stored).unwrap();
        std::os::unix::fs::symlink(&named, &stored).unwrap();
        assert_eq!(sent(false), None);
    }
}

/// `qlnet eval` of a data set on the hub.
fn evaluate(qlnet: &Qlnet, server: &HubServer, name: &str) -> Command {
    let mut command = qlnet.command();
    command.arg("eval").args(DIGITS).args(["--json", "--imagenet-val", name]).env("HF_ENDPOINT", &server.endpoint);
    command.env("HF_HOME", qlnet.home.path().join("hf"));
    command
}

#[test]
fn a_data_set_is_downloaded_and_evaluated() {
    let content = std::fs::read("samples/digits-held-out.tar").unwrap();
    let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = ServedFile { name: "digits-validation-0000.tar".into(), content, hash, is_large: true };
    let server = HubServer::of_dataset(vec![file], &[]);
    let qlnet = Qlnet::new();

    server.plan_hub([HubResponse::Status(401, "X-Error-Code: GatedRepo\r\n")]);
    let output = evaluate(&qlnet, &server, "hf:a/digits").output().unwrap();
    assert_error(&output, &["hf:a/digits", "/datasets/a/digits must be accepted there", "HF_TOKEN"]);
    let output = evaluate(&qlnet, &server, "hf:a/digits:test").output().unwrap();
    assert_error(&output, &["there is no split `test`; there is validation"]);
    assert!(server.contents().is_empty());

    let output = evaluate(&qlnet, &server, "hf:a/digits").output().unwrap();
    let text = stderr(&output);
    assert!(text.contains("note: downloading hf:a/digits: 0.4 MB\n"), "{text}");
    assert!(text.contains("note: hf:a/digits is here now, ") && text.contains(COMMIT), "{text}");
    let mut found = records(&output).remove(0);
    let output = qlnet.run(&["eval", "--model", "qlnet-digits", "--json", "--data", "samples/digits-held-out.tar"]);
    let mut expected = records(&output).remove(0);
    for record in [&mut found, &mut expected] {
        // Which differ from run to run.
        record.as_object_mut().unwrap().retain(|name, _| ["images", "top1", "top5", "errors"].contains(&name.as_str()));
    }
    assert_eq!(found, expected);
    assert_eq!(found["images"], 360);

    let output = evaluate(&qlnet, &server, "hf:a/digits").env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(records(&output)[0]["top1"], expected["top1"]);
    assert_eq!(server.contents().len(), 1);
}
