//! Finds image files in directories, and reads files.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use walkdir::WalkDir;

use crate::bounded::read_at_most;
use crate::error::{Error, Result};

/// File name extensions of the formats that can be decoded.
const EXTENSIONS: [&str; 25] = [
    "bmp", "cur", "dds", "dib", "exr", "ff", "gif", "hdr", "ico", "jfif", "jpe", "jpeg", "jpg", "mpo", "pam", "pbm",
    "pgm", "png", "pnm", "ppm", "qoi", "tga", "tif", "tiff", "webp",
];

/// Whether a file's name is that of an image in a format that can be decoded, by its extension.
///
/// Names such as `._photo.jpg` are not: macOS writes such a file beside `photo.jpg`, with what else it knows of it,
/// where a file system or an archive cannot hold that.
pub fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
        && !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"._"))
}

/// What a search does with links to directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It passes over them: they may lead in a circle.
    NotFollowed,
    /// It searches the directories that they lead to. A link that leads in a circle is an error.
    Followed,
}

/// Searches a directory and all directories below it for images, by their names, and returns their paths in
/// order. A directory that cannot be read is an [`Error::Io`] in its place, and the search continues.
///
/// Whatever has an image's name counts as an image, also a link that leads nowhere, a pipe, or, where links are
/// followed, a directory: the caller must check that it is a file.
pub fn images_below(directory: &Path, links: Links) -> impl Iterator<Item = Result<PathBuf>> {
    let mut walk = WalkDir::new(directory).follow_links(links == Links::Followed).sort_by_file_name().into_iter();
    let is_image = |depth, path: &Path| depth > 0 && is_image_name(path);
    std::iter::from_fn(move || {
        loop {
            match walk.next()? {
                Ok(entry) if is_image(entry.depth(), entry.path()) => {
                    if !entry.file_type().is_dir() {
                        return Some(Ok(entry.into_path()));
                    }
                    if links == Links::Followed {
                        walk.skip_current_dir();
                        return Some(Ok(entry.into_path()));
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    // Where links are followed, an image's name is enough.
                    let image = error.path().filter(|path| links == Links::Followed && is_image(error.depth(), path));
                    let image = image.map(Path::to_path_buf);
                    return Some(image.map_or_else(|| Err(search_error(error, directory)), Ok));
                }
            }
        }
    })
}

/// Some errors do not say where they happened: somewhere below `directory`.
fn search_error(error: walkdir::Error, directory: &Path) -> Error {
    let path = error.path().unwrap_or(directory).to_path_buf();
    // The error is that of a link in a circle, or one of the system.
    let circle = error.loop_ancestor().map(|to| format!("this link leads in a circle, to {}", to.display()));
    let cause = error.into_io_error().unwrap_or_else(|| io::Error::other(circle.unwrap_or_default()));
    Error::Io { action: "read", path, cause }
}

/// How an image is named in results for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageName {
    /// Its path, as far as that is UTF-8.
    pub image: String,
    /// The very bytes of a path that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_base64: Option<String>,
}

impl From<&Path> for ImageName {
    fn from(path: &Path) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        let image_base64 = path.to_str().is_none().then(|| BASE64_STANDARD.encode(bytes));
        Self { image: path.display().to_string(), image_base64 }
    }
}

/// The largest number of bytes that an image file may have.
pub const LARGEST_FILE: u64 = 1 << 28;

/// Reads a whole image file, or what else holds one, such as standard input. The limit is for devices and pipes,
/// which may have no end. Room is made for `expected` bytes, where the size is known.
///
/// # Errors
/// If it cannot be read, or has more than 256 MiB. The error does not name the file.
pub fn read_bounded(file: impl Read, expected: u64) -> io::Result<Vec<u8>> {
    let bytes = read_at_most(LARGEST_FILE, file, expected)?;
    bytes.ok_or_else(|| io::Error::other("larger than 256 MiB, which no image should be"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What a search finds, below the directory: paths with `/` between their parts, or `error` and where it is.
    fn found(directory: &Path, links: Links) -> Vec<String> {
        let below = |path: &Path| {
            let parts = path.strip_prefix(directory).unwrap().iter().map(|part| part.to_str().unwrap());
            parts.collect::<Vec<_>>().join("/")
        };
        let images = images_below(directory, links).map(|image| match image {
            Ok(path) => below(&path),
            Err(Error::Io { path, .. }) => format!("error {}", below(&path)),
            Err(error) => panic!("{error}"),
        });
        images.collect()
    }

    /// A directory with empty files at these paths.
    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        directory
    }

    #[test]
    fn images_are_known_by_their_extension() {
        for image in ["a.png", "a.JPEG", "b/c.d.Tiff", ".hidden.jpg", "_.jpg", "..jpg", "ä.webp"] {
            assert!(is_image_name(image.as_ref()), "{image}");
        }
        for other in ["png", ".png", "a.txt", "a.png.txt", "a", "", "._a.png", "b/._a.JPG", "a.png/b", ".."] {
            assert!(!is_image_name(other.as_ref()), "{other}");
        }
    }

    #[test]
    fn images_come_in_the_order_of_their_paths() {
        let directory = directory(&[
            "b.png",
            "a/z.jpg",
            "a/B/1.gif",
            "a/b.txt",
            "a.png",
            "c/._x.jpg",
            "c/x.jpg",
            "10.png",
            "9.png",
            "notes",
        ]);
        let expected = ["10.png", "9.png", "a/B/1.gif", "a/z.jpg", "a.png", "b.png", "c/x.jpg"];
        for links in [Links::NotFollowed, Links::Followed] {
            assert_eq!(found(directory.path(), links), expected, "{links:?}");
            let paths: Vec<_> = images_below(directory.path(), links).map(Result::unwrap).collect();
            assert!(paths.is_sorted());
        }
    }

    #[test]
    fn a_directory_with_the_name_of_an_image_is_left_to_the_reader() {
        let directory = directory(&["a.png", "b.png/inside.png", "c.png"]);
        assert_eq!(found(directory.path(), Links::Followed), ["a.png", "b.png", "c.png"]);
        assert_eq!(found(directory.path(), Links::NotFollowed), ["a.png", "b.png/inside.png", "c.png"]);
        // Not so the one that is searched.
        assert_eq!(found(&directory.path().join("b.png"), Links::NotFollowed), ["inside.png"]);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let directory = directory(&[]);
        assert_eq!(found(directory.path(), Links::NotFollowed), [""; 0]);
        let nowhere = directory.path().join("nowhere.png");
        let mut images = images_below(&nowhere, Links::NotFollowed);
        let Some(Err(Error::Io { cause, .. })) = images.next() else { panic!("no error") };
        assert_eq!((cause.kind(), images.next().is_none()), (io::ErrorKind::NotFound, true));
    }

    #[cfg(unix)]
    #[test]
    fn links_to_directories_are_followed_or_not() {
        use std::os::unix::fs::symlink;

        let elsewhere = directory(&["x.png"]);
        let directory = directory(&["a/1.png", "c/2.png"]);
        symlink(elsewhere.path(), directory.path().join("b")).unwrap();
        assert_eq!(found(directory.path(), Links::NotFollowed), ["a/1.png", "c/2.png"]);
        assert_eq!(found(directory.path(), Links::Followed), ["a/1.png", "b/x.png", "c/2.png"]);
        // The link that is to be searched is followed either way, also where it has the name of an image.
        let link = directory.path().join("link.png");
        symlink(elsewhere.path(), &link).unwrap();
        assert_eq!(found(&link, Links::NotFollowed), ["x.png"]);
        assert_eq!(found(&link, Links::Followed), ["x.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_circle_is_an_error_and_the_search_goes_on() {
        let directory = directory(&["a/1.png", "c/2.png"]);
        std::os::unix::fs::symlink(directory.path(), directory.path().join("a/b")).unwrap();
        assert_eq!(found(directory.path(), Links::NotFollowed), ["a/1.png", "c/2.png"]);
        assert_eq!(found(directory.path(), Links::Followed), ["a/1.png", "error a/b", "c/2.png"]);
        let error = images_below(directory.path(), Links::Followed).find_map(Result::err).unwrap().to_string();
        assert!(error.contains("a/b: this link leads in a circle, to "), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_with_the_name_of_an_image_are_found_wherever_they_lead() {
        use std::os::unix::fs::symlink;

        let directory = directory(&["a/1.png"]);
        let link = |to: &str, name: &str| symlink(to, directory.path().join(name)).unwrap();
        link("a/1.png", "b.png");
        link("nowhere", "c.png");
        link("nowhere", "d");
        link(".", "e.png");
        link("f.png", "f.png");
        link("/dev/zero", "g.png");
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("h.png")).unwrap();
        let images = ["a/1.png", "b.png", "c.png", "e.png", "f.png", "g.png", "h.png"];
        assert_eq!(found(directory.path(), Links::NotFollowed), images);
        // Of a link that leads nowhere, nobody knows whether it led to a directory.
        let [first, second, third, others @ ..] = images;
        let expected = [&[first, second, third, "error d"][..], &others].concat();
        assert_eq!(found(directory.path(), Links::Followed), expected);
    }

    /// The superuser may read every directory, so that it is not one without permissions: its path is longer than
    /// the system takes.
    #[cfg(unix)]
    #[test]
    fn a_directory_that_cannot_be_read_is_an_error_and_the_others_are_searched() {
        let directory = directory(&["a/1.png", "z/2.png"]);
        let long = |name: &str| {
            let path = (0..10).fold(directory.path().join(name), |path, _| path.join("x".repeat(250)));
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (upper, _) = (long("b"), long("c"));
        fs::rename(directory.path().join("c"), upper.join("c")).unwrap();
        for links in [Links::NotFollowed, Links::Followed] {
            let found = found(directory.path(), links);
            assert_eq!((found.len(), &*found[0], &*found[2]), (3, "a/1.png", "z/2.png"), "{found:?}");
            assert!(found[1].starts_with("error b/xxx"), "{found:?}");
        }
    }

    #[test]
    fn endless_files_are_not_read_to_the_end() {
        assert_eq!(read_bounded(&b"abc"[..], 0).unwrap(), b"abc");
        let error = read_bounded(io::repeat(0), 0).unwrap_err().to_string();
        assert_eq!(error, "larger than 256 MiB, which no image should be");
    }
}
