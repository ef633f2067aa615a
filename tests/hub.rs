//! Downloads from a server that answers as the hub does, and as it should not.

#[path = "support/hub_server.rs"]
mod hub_server;
#[path = "support/hub_setting.rs"]
mod hub_setting;

use std::time::{Duration, Instant};

use hub_server::{Answer, HubAnswer, HubServer};
use hub_setting::setting;
use qlnet::weights::hub::Event;

#[test]
fn a_file_is_fetched_once() {
    let s = setting(300_000, &[]);
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(notices.is_empty(), "{notices:?}");
    let asked = s.server.requests();
    let resolve = "/liuyao/QLNet/resolve/c388ac008044564d491817aa30658481acfbc177/qlnet-50-v0.pth.tar";
    assert!(asked.iter().any(|r| r.path == resolve), "{asked:?}");

    let (path, _) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert_eq!(s.server.requests().len(), asked.len(), "a file in the cache needs no request");
}

#[test]
fn the_real_size_survives_cuts() {
    let size = 80_405_585;
    let s = setting(size, &[Answer::CutAfter(30_000_000), Answer::CutAfter(20_000_000)]);
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert_eq!(notices.len(), 2, "{notices:?}");
    let ranges = s.server.ranges();
    assert_eq!(ranges.len(), 3);
    assert_eq!(ranges[0], None);
    // What had arrived is not asked for again. How much of it had been delivered is up to the
    // sockets, but each attempt begins later than the one before.
    let starts: Vec<usize> = ranges[1..]
        .iter()
        .map(|range| {
            let range = range.as_ref().unwrap().strip_prefix("bytes=").unwrap();
            let (start, end) = range.split_once('-').unwrap();
            assert_eq!(end.parse::<usize>().unwrap(), size - 1);
            start.parse().unwrap()
        })
        .collect();
    assert!(starts[0] > 20_000_000 && starts[1] > starts[0] + 10_000_000, "{starts:?}");
}

#[test]
fn silence_is_not_waited_out() {
    let mut s = setting(100_000, &[Answer::SilentAfter(40_000), Answer::Mute]);
    s.hub.silence = Duration::from_millis(700);
    let start = Instant::now();
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(start.elapsed() < Duration::from_secs(20), "far from the server's minute");
    assert!(notices[0].contains("no answer for 0.7 s from localhost"), "{notices:?}");
    assert!(notices[1].contains("no answer for 0.7 s from localhost"), "{notices:?}");
    assert_eq!(s.server.ranges()[1].as_deref(), Some("bytes=40000-99999"));
}

#[test]
fn a_connection_that_always_breaks_is_an_error_that_keeps_what_came() {
    let mut plan = vec![Answer::CutAfter(50_000)];
    plan.extend([Answer::CutAfter(0); 12]);
    let s = setting(100_000, &plan);
    let (result, notices) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("3 times in a row") && error.contains("50000 bytes"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    assert!(!notices.is_empty());
    assert_eq!(s.blob_names(), [format!("{}.incomplete", s.file.sha256)]);

    // The next run goes on from there.
    let mut s = s;
    s.server = HubServer::new(s.content.clone(), s.file.sha256, &[]);
    s.hub.endpoint = s.server.endpoint.clone();
    let (path, _) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert_eq!(s.server.ranges(), [Some("bytes=50000-99999".to_string())]);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let s = setting(100_000, &[Answer::CutAfter(60_000), Answer::IgnoreRange]);
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(notices.iter().any(|n| n.contains("only sends the whole file")), "{notices:?}");
    assert_eq!(s.server.ranges(), [None, Some("bytes=60000-99999".to_string())]);
}

#[test]
fn a_page_instead_of_the_file_ends_the_download() {
    let mut s = setting(100_000, &[Answer::CutAfter(30_000), Answer::Page]);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("answers with 20 bytes"), "{error}");
    // What came before it is kept, and good.
    s.server = HubServer::new(s.content.clone(), s.file.sha256, &[]);
    s.hub.endpoint = s.server.endpoint.clone();
    s.assert_complete(&s.fetch().0.unwrap());
    assert_eq!(s.server.ranges(), [Some("bytes=30000-99999".to_string())]);
}

#[test]
fn wrong_content_is_refused_and_removed() {
    let s = setting(100_000, &[Answer::Corrupt]);
    let (result, _) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("SHA-256") && error.contains(s.file.sha256) && error.contains("removed"), "{error}");
    assert!(s.blob_names().is_empty());
    let (path, _) = s.fetch();
    s.assert_complete(&path.unwrap());
}

#[test]
fn a_damaged_copy_in_the_cache_is_replaced() {
    let s = setting(100_000, &[]);
    let path = s.fetch().0.unwrap();
    for damage in [|c: &mut Vec<u8>| c[5] ^= 1, |c: &mut Vec<u8>| c.truncate(99)] {
        let mut content = s.content.clone();
        damage(&mut content);
        std::fs::write(s.blobs().join(s.file.sha256), content).unwrap();
        let (again, notices) = s.fetch();
        assert!(notices[0].contains("damaged"), "{notices:?}");
        assert_eq!(again.unwrap(), path);
        s.assert_complete(&path);
    }
}

#[test]
fn wrong_left_overs_do_not_spoil_a_download() {
    let s = setting(100_000, &[]);
    std::fs::create_dir_all(s.blobs()).unwrap();
    for left_over in [vec![1; 70_000], vec![1; 100_000], vec![1; 200_000]] {
        let _ = std::fs::remove_file(s.blobs().join(s.file.sha256));
        std::fs::write(s.blobs().join(format!("{}.incomplete", s.file.sha256)), left_over).unwrap();
        s.assert_complete(&s.fetch().0.unwrap());
    }
}

#[test]
fn passing_errors_of_the_server_are_retried_and_lasting_ones_told() {
    let s = setting(1000, &[Answer::Status(503), Answer::Status(503)]);
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
    s.hub.silence = Duration::from_secs(30);
    let (result, notices) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("cannot reach the Hugging Face hub at http://127.0.0.1:9"), "{error}");
    assert!(error.contains("refused"), "{error}");
    assert!(!error.contains('\n') && notices.is_empty());
}

#[test]
fn offline_asks_nobody() {
    let mut s = setting(1000, &[]);
    s.hub.offline = true;
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    assert!(s.server.requests().is_empty());

    s.hub.offline = false;
    let path = s.fetch().0.unwrap();
    let asked = s.server.requests().len();
    s.hub.offline = true;
    assert_eq!(s.fetch().0.unwrap(), path);
    assert_eq!(s.server.requests().len(), asked);
}

#[test]
fn two_at_once_download_once() {
    let s = setting(2_000_000, &[]);
    let paths: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| s.hub.fetch(&s.file, &mut |_| {}).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for path in paths {
        s.assert_complete(&path);
    }
    assert_eq!(s.server.ranges().len(), 1);
}

#[test]
fn a_slow_link_is_no_fault() {
    let mut s = setting(150_000, &[Answer::Slowly(100)]);
    // As long as something comes, no matter how long all of it takes.
    s.hub.silence = Duration::from_millis(700);
    let mut events = 0;
    let path = s.hub.fetch(&s.file, &mut |event| match event {
        Event::Notice(text) => panic!("{text}"),
        Event::Progress(_) => events += 1,
        Event::Stored(_) => {}
    });
    s.assert_complete(&path.unwrap());
    assert!(events >= 15, "{events} events: progress is shown as it comes");
    assert_eq!(s.server.ranges(), [None]);
}

#[test]
fn a_stall_heals_on_the_same_connection() {
    let mut s = setting(20_000, &[Answer::Slowly(1500)]);
    s.hub.silence = Duration::from_secs(20);
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(notices.is_empty(), "{notices:?}");
    assert_eq!(s.server.ranges(), [None]);
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
    let s = setting(1000, &[Answer::Status(403)]);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("localhost:") && error.contains("403"), "{error}");
    assert!(!error.contains("HF_TOKEN"), "a token is of no use there: {error}");
    assert_eq!(s.server.ranges().len(), 1, "nor is another attempt");

    let s = setting(1000, &[Answer::Status(503); 3]);
    let (result, notices) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("localhost:") && error.contains("503") && error.contains("3 times in a row"), "{error}");
    assert!(notices[0].contains("503") && notices[0].contains("trying again"), "{notices:?}");
}

#[test]
fn a_hub_that_is_busy_says_how_long() {
    let s = setting(1000, &[]);
    s.server.plan_hub([HubAnswer::Status(429, "Retry-After: 1\r\n"), HubAnswer::Status(500, "")]);
    let start = Instant::now();
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(notices[0].contains("429") && notices[1].contains("500"), "{notices:?}");

    let s = setting(1000, &[]);
    s.server.plan_hub([HubAnswer::Status(429, "Retry-After: 3600\r\n")]);
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
        s.server.plan_hub([HubAnswer::Status(status, headers)]);
        let error = s.fetch().0.unwrap_err();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains("hf_") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let mut s = setting(1000, &[]);
    s.hub.token = Some("hf_secret".into());
    s.server.plan_hub([HubAnswer::Redirect("/liuyao/Renamed/resolve/main/file".into())]);
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
    s.server.plan_hub((0..20).map(|_| HubAnswer::Redirect("/around".into())));
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("redirects in a circle"), "{error}");
    let s = setting(1000, &[]);
    s.server.plan_hub([HubAnswer::Redirect("http://[".into())]);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("which is no address"), "{error}");
}

#[test]
fn what_is_not_the_file_ends_the_download() {
    for (answer, part) in [(Answer::HtmlPage, "a web page in place of the file"), (Answer::WrongRange, "another part")]
    {
        let s = setting(100_000, &[Answer::CutAfter(30_000), answer]);
        let error = s.fetch().0.unwrap_err();
        assert!(error.contains(part), "{error}");
        let kept = std::fs::read(s.blobs().join(format!("{}.incomplete", s.file.sha256))).unwrap();
        assert!(kept == s.content[..30_000]);
        s.assert_complete(&s.fetch().0.unwrap());
    }
}

#[test]
fn what_a_killed_python_left_is_taken_over() {
    let s = setting(100_000, &[]);
    std::fs::create_dir_all(s.blobs()).unwrap();
    let left_over = s.blobs().join(format!("{}.0a1b2c3d.incomplete", s.file.sha256));
    std::fs::write(&left_over, &s.content[..70_000]).unwrap();
    let path = s.fetch().0.unwrap();
    assert!(std::fs::read(path).unwrap() == s.content);
    assert_eq!(s.server.ranges(), [Some("bytes=70000-99999".to_string())]);
    assert!(left_over.exists(), "the process may be alive");
}

#[test]
fn a_name_and_password_in_the_endpoint_are_for_the_hub_and_in_no_message() {
    let mut s = setting(1000, &[]);
    s.hub.endpoint = s.server.endpoint.replace("http://", "http://me:p%40ss@");
    s.server.plan_hub([HubAnswer::Status(401, "")]);
    let error = s.fetch().0.unwrap_err();
    assert!(!error.contains("ss@") && error.contains("not valid"), "{error}");
    s.assert_complete(&s.fetch().0.unwrap());
    let sent: Vec<_> = s.server.requests().into_iter().map(|request| request.authorization).collect();
    // me:p@ss
    let basic = Some("Basic bWU6cEBzcw==".to_string());
    assert_eq!(sent, [basic.clone(), basic, None]);
    assert!(!s.hub.url(&s.file).contains("ss@"));
}
