//! Files that appear whole or not at all, and never over another.

use crate::error::Error;
use std::io::Write;
use std::path::Path;

/// Writes a file that must not exist yet: beside it first, then renamed into place.
///
/// # Errors
/// * `Exists`: there is such a file
/// * `Io`: the folder does not take it; nothing is left behind
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if path.exists() {
        return Err(Error::Exists {
            path: path.to_owned(),
        });
    }
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

/// Writes a file, in place of an older one of its own if there is one; the older one stays until the new one is whole.
///
/// # Errors
/// `Io`: the folder does not take it; nothing is left behind
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    beside(path, bytes)?
        .persist(path)
        .map_err(|error| Error::io("cannot be written", path)(error.error))?;
    Ok(())
}

fn beside(path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, Error> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".partial");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let write = || {
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
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
