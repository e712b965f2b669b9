//! Lists a folder: its folders and regular files, and separately what cannot belong to a data set.

use crate::error::Error;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::FileType;
use std::path::{Path, PathBuf};

/// The entries of a folder, each kind sorted by name, without hidden ones.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Folders, also through links.
    pub folders: Vec<PathBuf>,
    /// Regular files, also through links.
    pub files: Vec<PathBuf>,
    /// Files that operating systems create, and entries that are neither files nor folders.
    pub left_out: LeftOut,
}

/// Files and folders that operating systems and archivers add.
const JUNK: [&str; 8] = [
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
];

impl Listing {
    /// Lists a folder.
    ///
    /// # Errors
    /// `Io`
    pub fn new(folder: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::io("cannot be read", folder)(source);
        let mut listing = Self::default();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            listing.add(entry.path())?;
        }
        listing.folders.sort();
        listing.files.sort();
        Ok(listing)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), Error> {
        let name = name(&path);
        if JUNK.contains(&name.to_lowercase().as_str()) || name == "Icon\r" {
            self.left_out.add(name.trim_end().to_owned(), path);
            return Ok(());
        }
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.folders.push(path),
            Ok(metadata) if metadata.is_file() => self.files.push(path),
            Ok(metadata) => self
                .left_out
                .add(special(metadata.file_type()).to_owned(), path),
            Err(_) if path.is_symlink() => self.left_out.add("dangling link".to_owned(), path),
            Err(error) => return Err(Error::io("cannot be read", &path)(error)),
        }
        Ok(())
    }
}

/// Describes the folder's content: `2 folders (a, b), 1 file (readme.md)`, or `nothing`.
impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 5;
        let mut there = Vec::new();
        for (what, paths) in [("folder", &self.folders), ("file", &self.files)] {
            let plural = if paths.len() == 1 { "" } else { "s" };
            let mut names: Vec<String> = paths.iter().take(MOST).map(|path| name(path)).collect();
            if paths.len() > MOST {
                names.push("…".to_owned());
            }
            if !paths.is_empty() {
                there.push(format!(
                    "{} {what}{plural} ({})",
                    paths.len(),
                    names.join(", ")
                ));
            }
        }
        if !self.left_out.is_empty() {
            there.push(self.left_out.counts());
        }
        match there.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&there.join(", ")),
        }
    }
}

/// Returns the name of a kind of entry that is neither a regular file nor a folder.
fn special(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "named pipe";
        }
        if kind.is_socket() {
            return "socket";
        }
        if kind.is_block_device() || kind.is_char_device() {
            return "device";
        }
    }
    let _ = kind;
    "special file"
}

/// Returns the last part of a path, as text.
pub(super) fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// What was left out, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut(BTreeMap<String, Vec<PathBuf>>);

impl LeftOut {
    /// Adds an entry.
    pub fn add(&mut self, kind: String, path: PathBuf) {
        self.0.entry(kind).or_default().push(path);
    }

    /// Adds a regular file, whose kind is its extension.
    pub fn add_file(&mut self, path: PathBuf) {
        let kind = match path.extension() {
            Some(extension) => format!(".{} file", extension.to_string_lossy()),
            None => "file".to_owned(),
        };
        self.add(kind, path);
    }

    /// Adds all that `other` contains.
    pub fn extend(&mut self, other: Self) {
        for (kind, paths) in other.0 {
            self.0.entry(kind).or_default().extend(paths);
        }
    }

    /// Returns whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Describes the number of each kind: `3 .txt files, 1 named pipe, 1 Thumbs.db`.
    pub fn counts(&self) -> String {
        let kinds: Vec<String> = self
            .0
            .iter()
            .map(|(kind, paths)| {
                let plural = match kind.as_str() {
                    _ if paths.len() == 1 => "",
                    kind if kind.ends_with("file") || kind.ends_with("link") => "s",
                    "named pipe" | "socket" | "device" | "folder" | "run" => "s",
                    _ => "",
                };
                format!("{} {kind}{plural}", paths.len())
            })
            .collect();
        kinds.join(", ")
    }

    /// Returns the first of all paths in sorted order.
    pub fn first(&self) -> Option<&Path> {
        self.0.values().flatten().min().map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_by_kind() {
        let mut left_out = LeftOut::default();
        for name in ["b/x.txt", "a/y.txt", "c/z"] {
            left_out.add_file(name.into());
        }
        left_out.add("Thumbs.db".to_owned(), "b/Thumbs.db".into());
        left_out.add("named pipe".to_owned(), "b/p".into());
        left_out.add("named pipe".to_owned(), "b/q".into());
        assert_eq!(
            left_out.counts(),
            "2 .txt files, 1 Thumbs.db, 1 file, 2 named pipes"
        );
        assert_eq!(left_out.first(), Some(Path::new("a/y.txt")));
    }
}
