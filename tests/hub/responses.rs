//! Responses of the hub and of the server that has the content, and what is sent to whom.

use std::time::{Duration, Instant};

use crate::hub_server::{ContentResponse, HubResponse, HubServer};
use crate::hub_setting::setting;

#[test]
fn a_page_instead_of_the_file_ends_the_download() {
    let mut s = setting(100_000, &[ContentResponse::CutAfter(30_000), ContentResponse::Page]);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("answers with 20 bytes"), "{error}");
    // What came before it is kept, and good.
    s.server = HubServer::new(s.content.clone(), s.file.hash.digits(), &[]);
    s.hub.endpoint = s.server.endpoint.clone();
    s.assert_complete(&s.fetch().0.unwrap());
    assert_eq!(s.server.ranges(), [Some("bytes=30000-99999".to_string())]);
}

#[test]
fn passing_errors_of_the_server_are_retried_and_lasting_ones_told() {
    let s = setting(1000, &[ContentResponse::Status(503), ContentResponse::Status(503)]);
    s.assert_complete(&s.fetch().0.unwrap());

    let mut s = setting(1000, &[]);
    s.file.revision = "missing";
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("refuses"), "{error}");
}

#[test]
fn no_connection_is_one_clear_line() {
    let mut s = setting(1000, &[]);
    s.hub.endpoint = "http://127.0.0.1:9".into();
    s.hub.read_timeout = Duration::from_secs(30);
    let (result, notices) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("cannot reach the Hugging Face hub at http://127.0.0.1:9"), "{error}");
    assert!(error.contains("refused"), "{error}");
    assert!(!error.contains('\n') && notices.is_empty());
}

#[test]
fn where_the_content_lies_is_named_if_it_cannot_be_reached() {
    let s = setting(1000, &[]);
    s.server.move_content("http://127.0.0.1:9/blob");
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("cannot reach 127.0.0.1:9, where") && error.contains("refused"), "{error}");
    s.server.move_content("https://no-such-host.invalid/blob");
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("cannot reach no-such-host.invalid, where"), "{error}");
}

#[test]
fn where_the_content_lies_is_named_if_it_forbids_or_fails() {
    let s = setting(1000, &[ContentResponse::Status(403)]);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("localhost:") && error.contains("403"), "{error}");
    assert!(!error.contains("HF_TOKEN"), "a token is of no use there: {error}");
    assert_eq!(s.server.ranges().len(), 1, "nor is another attempt");

    let s = setting(1000, &[ContentResponse::Status(503); 3]);
    let (result, notices) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("localhost:") && error.contains("503") && error.contains("3 times in a row"), "{error}");
    assert!(notices[0].contains("503") && notices[0].contains("trying again"), "{notices:?}");
}

#[test]
fn a_hub_that_is_busy_says_how_long() {
    let s = setting(1000, &[]);
    s.server.plan_hub([HubResponse::Status(429, "Retry-After: 1\r\n"), HubResponse::Status(500, "")]);
    let start = Instant::now();
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(notices[0].contains("429") && notices[1].contains("500"), "{notices:?}");

    let s = setting(1000, &[]);
    s.server.plan_hub([HubResponse::Status(429, "Retry-After: 3600\r\n")]);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("come back in 3600 s"), "{error}");
}

#[test]
fn who_may_not_is_told_how_to_be_allowed() {
    for (token, status, headers, part) in [
        (None, 401, "X-Error-Code: RepoNotFound\r\n", "set HF_TOKEN to a token of"),
        (Some("hf_old"), 401, "", "the token in HF_TOKEN"),
        (Some("hf_good"), 403, "X-Error-Message: Access is restricted\r\n", "terms of the repository must be accepted"),
        (Some("two\nlines"), 401, "", "HF_TOKEN"),
    ] {
        let mut s = setting(1000, &[]);
        s.hub.token = token.map(Into::into);
        s.server.plan_hub([HubResponse::Status(status, headers)]);
        let error = s.fetch().0.unwrap_err();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains("hf_") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let mut s = setting(1000, &[]);
    s.hub.token = Some("hf_secret".into());
    s.server.plan_hub([HubResponse::Redirect("/liuyao/Renamed/resolve/main/file".into())]);
    s.assert_complete(&s.fetch().0.unwrap());
    let sent: Vec<_> = s.server.requests().into_iter().map(|r| (r.path, r.authorization)).collect();
    let token = || Some("Bearer hf_secret".to_string());
    assert_eq!(sent.len(), 3, "{sent:?}");
    assert_eq!(sent[0].1, token());
    assert_eq!(sent[1], ("/liuyao/Renamed/resolve/main/file".into(), token()));
    assert_eq!(sent[2], ("/blob".into(), None));
}

#[test]
fn redirects_in_a_circle_end() {
    let s = setting(1000, &[]);
    s.server.plan_hub((0..20).map(|_| HubResponse::Redirect("/around".into())));
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("redirects in a circle"), "{error}");
    let s = setting(1000, &[]);
    s.server.plan_hub([HubResponse::Redirect("http://[".into())]);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("which is no address"), "{error}");
}

#[test]
fn what_is_not_the_file_ends_the_download() {
    for (response, part) in [
        (ContentResponse::HtmlPage, "a web page in place of the file"),
        (ContentResponse::WrongRange, "another part"),
        (ContentResponse::LateRange, "bytes from 60000 on, not from 30000"),
    ] {
        let s = setting(100_000, &[ContentResponse::CutAfter(30_000), response]);
        let error = s.fetch().0.unwrap_err();
        assert!(error.contains(part), "{error}");
        let kept = std::fs::read(s.blobs().join(format!("{}.incomplete", s.file.hash.digits()))).unwrap();
        assert!(kept == s.content[..30_000]);
        s.assert_complete(&s.fetch().0.unwrap());
    }
}

#[test]
fn a_name_and_password_in_the_endpoint_are_for_the_hub_and_in_no_message() {
    let mut s = setting(1000, &[]);
    s.hub.endpoint = s.server.endpoint.replace("http://", "http://me:p%40ss@");
    s.server.plan_hub([HubResponse::Status(401, "")]);
    let error = s.fetch().0.unwrap_err();
    assert!(!error.contains("ss@") && error.contains("not valid"), "{error}");
    s.assert_complete(&s.fetch().0.unwrap());
    let sent: Vec<_> = s.server.requests().into_iter().map(|request| request.authorization).collect();
    // me:p@ss
    let basic = Some("Basic bWU6cEBzcw==".to_string());
    assert_eq!(sent, [basic.clone(), basic, None]);
    assert!(!s.hub.url(&s.file).contains("ss@"));
}
