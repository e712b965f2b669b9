//! Recognises files that a data set cannot use, for messages that say what they are and what to do.

/// A kind of file: how it begins, its extensions, what it is, and what to do about it.
struct Kind {
    starts: &'static [&'static [u8]],
    extensions: &'static [&'static str],
    name: &'static str,
    remedy: &'static str,
}

const ARRAYS: &str = "write its images and labels as IDX files or as class folders of PNG files";
const PICTURE: &str = "convert it to PNG";
const ARCHIVE: &str = "unpack it";

const KINDS: &[Kind] = &[
    Kind {
        starts: &[b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"],
        extensions: &["html", "htm"],
        name: "a web page",
        remedy: "download the file itself",
    },
    Kind {
        starts: &[b"version https://git-lfs"],
        extensions: &[],
        name: "a Git LFS pointer",
        remedy: "fetch the file with git lfs pull",
    },
    Kind {
        starts: &[b"\x93NUMPY"],
        extensions: &["npy", "npz"],
        name: "a NumPy file",
        remedy: ARRAYS,
    },
    Kind {
        starts: &[b"\x89HDF"],
        extensions: &["h5", "hdf5"],
        name: "an HDF5 file",
        remedy: ARRAYS,
    },
    Kind {
        starts: &[b"PAR1"],
        extensions: &["parquet", "arrow"],
        name: "a Parquet file",
        remedy: ARRAYS,
    },
    Kind {
        starts: &[b"MATLAB"],
        extensions: &["mat"],
        name: "a MATLAB file",
        remedy: ARRAYS,
    },
    Kind {
        starts: &[b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"],
        extensions: &["pt", "pth", "pkl", "pickle"],
        name: "a Python pickle",
        remedy: ARRAYS,
    },
    Kind {
        starts: &[],
        extensions: &["tfrecord", "tfrecords"],
        name: "a TFRecord file",
        remedy: ARRAYS,
    },
    Kind {
        starts: &[b"PK\x03\x04"],
        extensions: &["zip"],
        name: "a ZIP archive",
        remedy: ARCHIVE,
    },
    Kind {
        starts: &[
            b"7z\xbc\xaf",
            b"Rar!",
            b"BZh",
            b"\xfd7zXZ",
            b"\x28\xb5\x2f\xfd",
        ],
        extensions: &["7z", "rar", "bz2", "xz", "zst", "tar", "tgz"],
        name: "an archive",
        remedy: ARCHIVE,
    },
    Kind {
        starts: &[b"GIF8"],
        extensions: &["gif"],
        name: "a GIF picture",
        remedy: PICTURE,
    },
    Kind {
        starts: &[b"RIFF"],
        extensions: &["webp"],
        name: "a WebP picture",
        remedy: PICTURE,
    },
    Kind {
        starts: &[b"II*\0", b"MM\0*"],
        extensions: &["tif", "tiff"],
        name: "a TIFF picture",
        remedy: PICTURE,
    },
    Kind {
        starts: &[
            b"\0\0\0\x18ftyp",
            b"\0\0\0\x1cftyp",
            b"\0\0\0\x20ftyp",
            b"\0\0\0\x24ftyp",
        ],
        extensions: &["heic", "heif", "avif"],
        name: "a HEIF picture",
        remedy: PICTURE,
    },
    Kind {
        starts: &[b"<svg", b"<?xml"],
        extensions: &["svg"],
        name: "an SVG drawing",
        remedy: PICTURE,
    },
    Kind {
        starts: &[b"%PDF"],
        extensions: &["pdf"],
        name: "a PDF file",
        remedy: PICTURE,
    },
];

/// Describes the beginning of a file that a data set cannot use: `starts with "…"`, and for a known kind what it is and
/// what to do.
pub fn beginning(bytes: &[u8]) -> String {
    let start: String = String::from_utf8_lossy(&bytes[..bytes.len().min(16)])
        .escape_debug()
        .collect();
    let known = |kind: &&Kind| kind.starts.iter().any(|start| bytes.starts_with(start));
    match KINDS.iter().find(known) {
        None => format!("starts with \"{start}\""),
        Some(kind) => format!("starts with \"{start}\", {}; {}", kind.name, kind.remedy),
    }
}

/// Returns what a file is, judged by its extension, and what to do about it, if the kind is known.
pub fn by_name(name: &str) -> Option<String> {
    let (_, extension) = name.rsplit_once('.')?;
    let extension = extension.to_ascii_lowercase();
    let kind = KINDS
        .iter()
        .find(|kind| kind.extensions.contains(&extension.as_str()))?;
    Some(format!("{name} is {}: {}", kind.name, kind.remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_kinds_are_named_with_what_to_do() {
        assert_eq!(beginning(b"hello"), "starts with \"hello\"");
        assert_eq!(
            beginning(b"<!DOCTYPE html><html>"),
            "starts with \"<!DOCTYPE html><\", a web page; download the file itself"
        );
        assert_eq!(
            by_name("mnist.NPZ").as_deref(),
            Some(
                "mnist.NPZ is a NumPy file: write its images and labels as IDX files or as class folders of PNG files"
            )
        );
        assert_eq!(by_name("readme.md"), None);
        assert_eq!(by_name("readme"), None);
    }
}
