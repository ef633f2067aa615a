//! Addresses of files that a page names.

use std::path::{Component, Path, Prefix};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::output::directory;

/// What a path's parts may hold in an address as they are.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The address of a file from a page that lies at `page`, relative, so that it holds wherever both are moved
/// together; of a file on another drive, or with nothing in common but the root, with `file:`. Nothing if the file is
/// not there.
pub fn address(file: &Path, page: &Path) -> Option<String> {
    let file = file.canonicalize().ok().filter(|file| file.is_file())?;
    let from = directory(page).canonicalize().ok()?;
    Some(between(&file, &from))
}

/// The address of a file from a directory, both absolute.
fn between(file: &Path, from: &Path) -> String {
    let (to, from): (Vec<_>, Vec<_>) = (file.components().collect(), from.components().collect());
    let common = to.iter().zip(&from).take_while(|(a, b)| a == b).count();
    let named = |part: &&Component| matches!(part, Component::Normal(_));
    if to[..common].iter().any(|part| named(&part)) {
        let up = std::iter::repeat_n("..".to_string(), from.len() - common);
        let parts: Vec<_> = up.chain(to[common..].iter().map(encoded)).collect();
        // Without this, a name with a colon would be one of a protocol.
        return if common == from.len() { format!("./{}", parts.join("/")) } else { parts.join("/") };
    }
    let parts: Vec<_> = to.iter().filter(|part| !matches!(part, Component::RootDir)).map(encoded).collect();
    format!("file:///{}", parts.join("/"))
}

fn encoded(part: &Component) -> String {
    match part {
        // A drive of Windows, such as `C:`, or what canonical paths have there, `\\?\C:`.
        // So have shares: `\\?\UNC\server\share`, which after `file:///` is `//server/share`.
        Component::Prefix(prefix) => match prefix.kind() {
            Prefix::UNC(server, share) | Prefix::VerbatimUNC(server, share) => {
                format!("//{}/{}", server.to_string_lossy(), share.to_string_lossy())
            }
            _ => prefix.as_os_str().to_string_lossy().trim_start_matches(r"\\?\").to_string(),
        },
        part => percent_encode(part.as_os_str().as_encoded_bytes(), KEPT).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn addresses_lead_from_the_page_to_the_file() {
        let between = |file: &str, from: &str| between(file.as_ref(), from.as_ref());
        assert_eq!(between("/data/val/a b.png", "/data"), "./val/a%20b.png");
        assert_eq!(between("/data/c:d?#%.png", "/data"), "./c%3Ad%3F%23%25.png");
        assert_eq!(between("/data/val/é.png", "/data/out/new"), "../../val/%C3%A9.png");
        assert_eq!(between("/mnt/a.png", "/home/me"), "file:///mnt/a.png");
        assert_eq!(between("/a.png", "/"), "file:///a.png");
    }

    #[cfg(windows)]
    #[test]
    fn addresses_on_windows_have_slashes_and_drives() {
        let between = |file: &str, from: &str| between(file.as_ref(), from.as_ref());
        assert_eq!(between(r"\\?\C:\data\val\a b.png", r"\\?\C:\data"), "./val/a%20b.png");
        assert_eq!(between(r"\\?\C:\data\é.png", r"\\?\C:\data\out"), "../%C3%A9.png");
        assert_eq!(between(r"\\?\D:\a.png", r"\\?\C:\data"), "file:///D:/a.png");
        assert_eq!(between(r"\\?\UNC\server\share\a.png", r"\\?\C:\data"), "file://///server/share/a.png");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_has_an_address_whatever_its_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(std::ffi::OsStr::from_bytes(b"\xe9\n.png"));
        std::fs::write(&file, "").unwrap();
        assert_eq!(address(&file, &dir.path().join("page.html")).unwrap(), "./%E9%0A.png");
        assert_eq!(address(dir.path(), &dir.path().join("page.html")), None);
        assert_eq!(address(Path::new("-"), &dir.path().join("page.html")), None);
    }
}
