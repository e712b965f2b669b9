//! Ensures that only one process at a time writes into a folder.
//!
//! A claim is the operating system's lock on a file in the folder. The system releases the lock when the process ends, however
//! it ends, so a lock file that a killed process left behind has no effect.

use crate::error::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The lock file's name.
pub const NAME: &str = ".lock";

/// A claim to a folder, which is released when it is dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Claims an existing folder.
    ///
    /// # Errors
    /// * `InUse`: another process has claimed the folder
    /// * `Exists`: the folder has a file of the lock's name that is not a lock file; it is left as it is
    /// * `Io`: the lock file cannot be created
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let foreign = || Error::Exists { path: path.clone() };
        loop {
            // Opening would follow a symbolic link, and could create or truncate its target.
            if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                return Err(foreign());
            }
            let open = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let mut file = open.map_err(Error::io("cannot be created", &path))?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(in_use(folder, &file)),
                // The previous holder may have removed the file after it was opened here; try again.
                Ok(()) if !is_at(&file, &path) => {}
                _ if !is_lock(&file) => return Err(foreign()),
                // The file system does not support locks. Even so, only one process can create a new folder.
                Err(TryLockError::Error(_)) => return Ok(Self { path, file }),
                Ok(()) => {
                    // Errors are ignored, because the process id is only for messages.
                    let _ = file.rewind();
                    let _ = file.set_len(0);
                    let _ = writeln!(file, "{}", std::process::id());
                    return Ok(Self { path, file });
                }
            }
        }
    }
}

/// Checks that no process has claimed a folder, as far as the file system can tell. Locks the lock file for a moment, and changes
/// nothing in the folder.
///
/// # Errors
/// `InUse`: a process has claimed the folder
pub fn check(folder: &Path) -> Result<(), Error> {
    let path = folder.join(NAME);
    // To open a named pipe would wait for its writer.
    if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_file())
        && let Ok(file) = File::open(path)
        && let Err(TryLockError::WouldBlock) = file.try_lock()
    {
        return Err(in_use(folder, &file));
    }
    Ok(())
}

fn in_use(folder: &Path, mut file: &File) -> Error {
    let mut process = String::new();
    // The process id is only for the message, which omits it on systems where a lock prevents reading.
    let _ = file.read_to_string(&mut process);
    Error::InUse {
        path: folder.to_owned(),
        process: process.trim().parse().ok(),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Remove the file while the lock is held, so that it cannot be another process's file. If that fails, the file does no
        // harm.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Returns whether an open file has the content of a lock file: a process id or, just after its creation, nothing.
fn is_lock(file: &File) -> bool {
    let mut text = String::new();
    // A line with a process id has at most 11 bytes.
    let read = file.take(16).read_to_string(&mut text);
    read.is_ok() && (text.is_empty() || text.trim_end().parse::<u32>().is_ok())
}

/// Returns whether the path still refers to the open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |file: std::fs::Metadata| (file.dev(), file.ino());
    let named = std::fs::symlink_metadata(path).map(identity).ok();
    named.is_some() && named == file.metadata().map(identity).ok()
}

/// On other systems, a file cannot be removed while it is open.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        // A lock file that a killed process left behind.
        std::fs::write(folder.path().join(NAME), "1\n").unwrap();
        let first = Claim::take(folder.path()).unwrap();
        let own = std::process::id();
        for _ in 0..2 {
            assert!(matches!(
                Claim::take(folder.path()),
                Err(Error::InUse { process: Some(process), .. }) if process == own
            ));
        }
        drop(first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        Claim::take(folder.path()).unwrap();
    }

    #[test]
    fn a_file_that_is_not_a_lock_file_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let refused = || {
            let error = Claim::take(folder.path()).unwrap_err();
            assert!(
                matches!(&error, Error::Exists { path: named } if *named == path),
                "{error}"
            );
        };
        for content in [
            &b"precious\n"[..],
            b"1\nprecious\n",
            b"123456789012345678",
            b"\xff",
        ] {
            std::fs::write(&path, content).unwrap();
            refused();
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        refused();
        std::fs::remove_dir(&path).unwrap();
        // The target could be taken for a lock file, or be created.
        #[cfg(unix)]
        for content in ["1\n", ""] {
            let target = folder.path().join("target");
            if !content.is_empty() {
                std::fs::write(&target, content).unwrap();
            }
            std::os::unix::fs::symlink(&target, &path).unwrap();
            refused();
            assert!(path.is_symlink());
            assert_eq!(
                std::fs::read_to_string(&target).unwrap_or_default(),
                content
            );
            assert_eq!(target.exists(), !content.is_empty());
            std::fs::remove_file(&path).unwrap();
            let _ = std::fs::remove_file(&target);
        }
    }

    /// Eight threads claim and release the folder at the same time.
    #[test]
    fn concurrent_claims_never_overlap() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let (holders, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(claim) = Claim::take(folder.path()) {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                            taken.fetch_add(1, Ordering::SeqCst);
                            holders.fetch_sub(1, Ordering::SeqCst);
                            drop(claim);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 8);
    }
}
