//! The address of a file, from where a page lies.

use std::path::{Component, Path, Prefix};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// What an address need not encode. A colon is not among it: `a:b.png` is no scheme.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a browser finds `file` from a page in `directory`, both absolute: relative, if they have a folder in common,
/// so that both may be moved together; else a `file:` address. `None` if no address says it, as for a share of Windows.
pub fn link(directory: &Path, file: &Path) -> Option<String> {
    let [from, to] = [directory, file].map(|path| path.components().collect::<Vec<_>>());
    let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    if from[..shared].iter().any(|part| matches!(part, Component::Normal(_))) {
        let up = from[shared..].iter().map(|_| "..".to_string());
        let down = to[shared..].iter().map(|part| encoded(*part));
        return Some(up.chain(down).collect::<Vec<_>>().join("/"));
    }
    let mut address = "file://".to_string();
    for part in to {
        match part {
            Component::Prefix(prefix) => match prefix.kind() {
                Prefix::Disk(disk) | Prefix::VerbatimDisk(disk) => address += &format!("/{}:", char::from(disk)),
                _ => return None,
            },
            Component::Normal(_) => address += &format!("/{}", encoded(part)),
            _ => {}
        }
    }
    Some(address)
}

fn encoded(part: Component) -> String {
    percent_encode(part.as_os_str().as_encoded_bytes(), PLAIN).to_string()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_from_the_page() {
        let link = |directory: &str, file: &str| link(directory.as_ref(), file.as_ref()).unwrap();
        assert_eq!(link("/data", "/data/val/n01440764/a b.JPEG"), "val/n01440764/a%20b.JPEG");
        assert_eq!(link("/data/out/today", "/data/val/x#1?.png"), "../../val/x%231%3F.png");
        assert_eq!(link("/home/me", "/data/é&'\".png"), "file:///data/%C3%A9%26%27%22.png");
        assert_eq!(link("/data", "/data/javascript:alert(1)"), "javascript%3Aalert%281%29");
        assert_eq!(link("/", "/a.png"), "file:///a.png");
    }
}
