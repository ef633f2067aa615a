//! Connections that are slow, break off or fall silent.

use std::time::{Duration, Instant};

use qlnet::internals::Event;

use crate::hub_server::{ContentResponse, HubServer};
use crate::hub_setting::setting;

#[test]
fn the_real_size_survives_cuts() {
    let size = 80_405_585;
    let s = setting(size, &[ContentResponse::CutAfter(30_000_000), ContentResponse::CutAfter(20_000_000)]);
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
    let mut s = setting(100_000, &[ContentResponse::SilentAfter(40_000), ContentResponse::Mute]);
    s.hub.read_timeout = Duration::from_millis(700);
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
    let mut plan = vec![ContentResponse::CutAfter(50_000)];
    plan.extend([ContentResponse::CutAfter(0); 12]);
    let s = setting(100_000, &plan);
    let (result, notices) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("3 times in a row") && error.contains("50000 bytes"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    assert!(!notices.is_empty());
    assert_eq!(s.blob_names(), [format!("{}.incomplete", s.file.hash.digits())]);

    // The next run goes on from there.
    let mut s = s;
    s.server = HubServer::new(s.content.clone(), s.file.hash.digits(), &[]);
    s.hub.endpoint = s.server.endpoint.clone();
    let (path, _) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert_eq!(s.server.ranges(), [Some("bytes=50000-99999".to_string())]);
}

#[test]
fn tiny_cuts_in_turn_end_the_retries() {
    let plan: Vec<_> = (0..100).map(|turn| ContentResponse::CutAfter(if turn % 2 == 0 { 10 } else { 20 })).collect();
    let s = setting(100_000, &plan);
    let error = s.fetch().0.unwrap_err();
    assert!(error.contains("3 times in a row"), "{error}");
    assert_eq!(s.server.ranges().len(), 3);
}

#[test]
fn a_second_start_that_breaks_ends_too() {
    // What an earlier run left is wrong, and nothing but drops come after it is removed.
    let mut plan = vec![ContentResponse::CutAfter(100_000)];
    plan.extend((0..100).map(|turn| ContentResponse::CutAfter(10 + turn % 2)));
    let s = setting(100_000, &plan);
    std::fs::create_dir_all(s.blobs()).unwrap();
    std::fs::write(s.blobs().join(format!("{}.incomplete", s.file.hash.digits())), [1; 70_000]).unwrap();
    let (result, notices) = s.fetch();
    assert!(notices[0].contains("starting anew"), "{notices:?}");
    assert!(result.unwrap_err().contains("3 times in a row"));
    assert_eq!(s.server.ranges().len(), 4);

    // A server that cuts once and then sends something else is not asked for a third time.
    let s = setting(100_000, &[[ContentResponse::CutAfter(70_000), ContentResponse::Corrupt]; 4].concat());
    let (result, notices) = s.fetch();
    assert!(notices.iter().filter(|notice| notice.contains("starting anew")).count() == 1, "{notices:?}");
    assert!(result.unwrap_err().contains("something other than the pinned file"));
    assert_eq!(s.server.ranges().len(), 4);
}

#[test]
fn a_link_that_breaks_again_and_again_finishes() {
    let s = setting(2_000_000, &[ContentResponse::CutAfter(100_000); 19]);
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert_eq!((s.server.ranges().len(), notices.len()), (20, 19));
    // Three attempts together bring enough.
    let s = setting(300_000, &[ContentResponse::CutAfter(30_000); 9]);
    let (path, _) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert_eq!(s.server.ranges().len(), 10);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let s = setting(100_000, &[ContentResponse::CutAfter(60_000), ContentResponse::IgnoreRange]);
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(notices.iter().any(|n| n.contains("only sends the whole file")), "{notices:?}");
    assert_eq!(s.server.ranges(), [None, Some("bytes=60000-99999".to_string())]);
}

#[test]
fn a_slow_link_is_no_fault() {
    let mut s = setting(150_000, &[ContentResponse::Slowly(100)]);
    // As long as something comes, no matter how long all of it takes.
    s.hub.read_timeout = Duration::from_millis(700);
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
    let mut s = setting(20_000, &[ContentResponse::Slowly(1500)]);
    s.hub.read_timeout = Duration::from_secs(20);
    let (path, notices) = s.fetch();
    s.assert_complete(&path.unwrap());
    assert!(notices.is_empty(), "{notices:?}");
    assert_eq!(s.server.ranges(), [None]);
}
