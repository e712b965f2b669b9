//! Writes files atomically: a file appears complete or not at all. Only `replace` overwrites a file.

use crate::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Checks that a path does not exist yet. A program that writes several files checks all of them before it writes the first, so
/// that it writes all or none.
///
/// # Errors
/// `Exists`: the path already exists
pub fn check_new(path: &Path) -> Result<(), Error> {
    match path.exists() {
        true => Err(Error::Exists {
            path: path.to_owned(),
        }),
        false => Ok(()),
    }
}

/// A folder for output. When dropped, it is removed if it is still empty, and so are the folders above it that were created with
/// it.
#[derive(Debug, Default)]
pub struct Folder {
    /// The folders that were created, the outermost first.
    created: Vec<PathBuf>,
}

impl Folder {
    /// Creates a folder, and those above it. The folder may exist already.
    ///
    /// # Errors
    /// * `Exists`: the path is a file
    /// * `Io`: the folder cannot be created; nothing is left behind
    pub fn create(path: &Path) -> Result<Self, Error> {
        let mut folder = Self {
            created: Vec::new(),
        };
        let mut wanted: Vec<&Path> = path.ancestors().collect();
        wanted.reverse();
        for part in wanted
            .into_iter()
            .filter(|part| !part.as_os_str().is_empty())
        {
            match folder.add(part) {
                Ok(()) => {}
                Err(_) if part.is_dir() => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    // If a folder above is a file, the next call says so.
                    if part == path {
                        return Err(Error::Exists {
                            path: path.to_owned(),
                        });
                    }
                }
                Err(error) => return Err(Error::io("cannot be created", path)(error)),
            }
        }
        Ok(folder)
    }

    /// Creates one more folder, which is removed in the same way.
    ///
    /// # Errors
    /// Those of [`std::fs::create_dir`]
    pub fn add(&mut self, path: &Path) -> std::io::Result<()> {
        std::fs::create_dir(path)?;
        self.created.push(path.to_owned());
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for folder in self.created.iter().rev() {
            // This succeeds only if the folder is empty.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Writes a file that must not exist yet: first to a temporary file beside it, which is then renamed.
///
/// # Errors
/// * `Exists`: the file already exists
/// * `Io`: the file cannot be written; nothing is left behind
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    check_new(path)?;
    beside(path, bytes)?
        .persist_noclobber(path)
        .map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists {
                path: path.to_owned(),
            },
            _ => Error::io("cannot be written", path)(error.error),
        })?;
    Ok(())
}

/// Writes a file, and replaces an older one if there is one. The older one stays until the new one is complete, even if the
/// power fails.
///
/// # Errors
/// `Io`: the file cannot be written; nothing is left behind
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    persist(beside(path, bytes)?, path)?;
    // Make sure that the new name is on the disk, too.
    #[cfg(unix)]
    std::fs::File::open(folder_of(path))
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("cannot be written", path))?;
    Ok(())
}

/// Does the same as [`replace`] without waiting for the disk: for files that can be made again after a power failure.
///
/// # Errors
/// Those of [`replace`]
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    persist(unsynced_beside(path, bytes)?, path)
}

fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<(), Error> {
    file.persist(path)
        .map_err(|error| Error::io("cannot be written", path)(error.error))?;
    Ok(())
}

/// Removes the temporary files that killed processes have left in a folder.
///
/// # Errors
/// `Io`
pub fn remove_partial(folder: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("cannot be read", folder))? {
        let path = entry.map_err(Error::io("cannot be read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            std::fs::remove_file(&path).map_err(Error::io("cannot be removed", &path))?;
        }
    }
    Ok(())
}

const PREFIX: &str = ".";
const SUFFIX: &str = ".partial";

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn beside(path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, Error> {
    let file = unsynced_beside(path, bytes)?;
    file.as_file()
        .sync_all()
        .map_err(Error::io("cannot be written", path))?;
    Ok(file)
}

fn unsynced_beside(path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, Error> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let write = || {
        let mut file = builder.tempfile_in(folder)?;
        file.as_file_mut().write_all(bytes)?;
        Ok(file)
    };
    write().map_err(Error::io("cannot be written", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_stays_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_new(&path, b"first").unwrap();
        assert!(matches!(
            write_new(&path, b"second"),
            Err(Error::Exists { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"third");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_new_and_empty_folders_are_removed() {
        let top = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "old/a/b/c"].map(|name| top.path().join(name));
        std::fs::create_dir(&old).unwrap();
        drop(Folder::create(&old).unwrap());
        drop(Folder::create(&new).unwrap());
        assert_eq!(std::fs::read_dir(&old).unwrap().count(), 0);

        let folder = Folder::create(&new).unwrap();
        std::fs::write(old.join("a/file"), "").unwrap();
        drop(folder);
        assert!(old.join("a/file").exists() && !old.join("a/b").exists());

        // A part of the path is a file.
        let error = Folder::create(&old.join("x/y/../../a/file/z")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("cannot be created: Not a directory"),
            "{error}"
        );
        assert!(!old.join("x").exists());
        let error = Folder::create(&old.join("a/file")).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write_new(Path::new("/no/such/folder/file"), b"")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/no/such/folder/file: cannot be written: "),
            "{error}"
        );
    }
}
