//! What is in the cache before, during and after a download.

use qlnet::Error;

use crate::hub_server::ContentResponse;
use crate::hub_setting::setting;

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
fn wrong_content_is_refused_and_removed() {
    let s = setting(100_000, &[ContentResponse::Corrupt]);
    let (result, _) = s.fetch();
    let error = result.unwrap_err();
    assert!(error.contains("SHA-256") && error.contains(s.file.hash.digits()) && error.contains("removed"), "{error}");
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
        std::fs::write(s.blobs().join(s.file.hash.digits()), content).unwrap();
        let (again, notices) = s.fetch();
        assert!(notices[0].contains("damaged"), "{notices:?}");
        assert_eq!(again.unwrap(), path);
        s.assert_complete(&path);
    }
    #[cfg(unix)]
    {
        // Nobody writes to the pipe, and it is not waited for; nor is one beside it.
        let blob = s.blobs().join(s.file.hash.digits());
        let beside = s.blobs().join(format!("{}.12345678.incomplete", s.file.hash.digits()));
        std::fs::remove_file(&blob).unwrap();
        for pipe in [&blob, &beside] {
            crate::pipe::make_pipe(pipe);
        }
        assert_eq!(s.fetch().0.unwrap(), path);
        assert!(std::fs::read(&path).unwrap() == s.content);
    }
}

#[cfg(unix)]
#[test]
fn pipes_that_would_be_written_to_are_not_waited_for() {
    let s = setting(1000, &[]);
    let path = s.fetch().0.unwrap();
    let blob = s.blobs().join(s.file.hash.digits());
    let locks = s.hub.cache_dir.join(".locks").join(s.blobs().parent().unwrap().file_name().unwrap());
    for pipe in [blob.with_extension("incomplete"), locks.join(s.file.hash.digits()).with_extension("lock")] {
        std::fs::remove_file(&blob).unwrap();
        let _ = std::fs::remove_file(&pipe);
        crate::pipe::make_pipe(&pipe);
        let error = s.fetch().0.unwrap_err();
        assert!(error.contains(&*pipe.to_string_lossy()) && error.contains("remove it"), "{error}");
        std::fs::remove_file(&pipe).unwrap();
        assert_eq!(s.fetch().0.unwrap(), path);
    }
}

#[test]
fn wrong_left_overs_do_not_spoil_a_download() {
    let s = setting(100_000, &[]);
    std::fs::create_dir_all(s.blobs()).unwrap();
    for left_over in [vec![1; 70_000], vec![1; 100_000], vec![1; 200_000]] {
        let _ = std::fs::remove_file(s.blobs().join(s.file.hash.digits()));
        let pointer = s.snapshot().join(s.file.file);
        if !pointer.is_symlink() {
            // It is the content under another name.
            let _ = std::fs::remove_file(pointer);
        }
        std::fs::write(s.blobs().join(format!("{}.incomplete", s.file.hash.digits())), left_over).unwrap();
        s.assert_complete(&s.fetch().0.unwrap());
    }
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
fn what_a_killed_python_left_is_taken_over() {
    let s = setting(100_000, &[]);
    std::fs::create_dir_all(s.blobs()).unwrap();
    let left_over = s.blobs().join(format!("{}.0a1b2c3d.incomplete", s.file.hash.digits()));
    std::fs::write(&left_over, &s.content[..70_000]).unwrap();
    let path = s.fetch().0.unwrap();
    assert!(std::fs::read(path).unwrap() == s.content);
    assert_eq!(s.server.ranges(), [Some("bytes=70000-99999".to_string())]);
    assert!(left_over.exists(), "the process may be alive");
}

#[test]
fn temporary_names_of_killed_runs_are_no_obstacle() {
    let s = setting(1000, &[]);
    // The name of earlier versions, which a container's only process has each time.
    std::fs::create_dir_all(s.snapshot().join(format!(".{}.new", std::process::id()))).unwrap();
    std::fs::create_dir_all(s.blobs().join(format!("{}.copy", s.file.hash.digits()))).unwrap();
    let abandoned = format!(".qlnet-{:.16}-a1B2c3", s.file.hash.digits());
    for dir in [s.snapshot(), s.blobs()] {
        std::fs::write(dir.join(&abandoned), "left").unwrap();
        std::fs::write(dir.join(".tmpa1B2c3"), "of another program").unwrap();
    }
    let path = s.fetch().0.unwrap();
    assert!(std::fs::read(path).unwrap() == s.content);
    for dir in [s.snapshot(), s.blobs()] {
        assert!(!dir.join(&abandoned).exists() && dir.join(".tmpa1B2c3").exists());
    }
}

#[test]
fn errors_say_what_kind_they_are() {
    let mut s = setting(1000, &[ContentResponse::Status(403)]);
    let fetch = |s: &crate::hub_setting::Setting| s.hub.fetch(&s.file, &mut |_| {}).unwrap_err();
    for offline in [false, true] {
        s.hub.offline = offline;
        let error = fetch(&s);
        let Error::Download { file, url, reason } = &error else { panic!("{error:?}") };
        assert_eq!((file.as_str(), url), (s.file.file, &s.hub.url(&s.file)));
        assert_eq!(error.to_string(), reason.to_string());
    }
    // A cache that cannot be written, because a file is in its place.
    s.hub.offline = false;
    s.hub.cache_dir = s.cache.path().join("file");
    std::fs::write(&s.hub.cache_dir, "").unwrap();
    let error = fetch(&s);
    assert!(matches!(&error, Error::Io { action: "write", .. }), "{error:?}");
    assert!(error.to_string().starts_with("cannot write "), "{error}");
}
