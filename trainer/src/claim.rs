//! A folder that one process at a time writes into.
//!
//! The claim is the system's lock of a file in the folder, so it ends with the process that holds it, however that ends;
//! a lock file that a killed process left behind claims nothing.

use crate::error::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The lock file's name.
pub const NAME: &str = ".lock";

/// A claim to a folder, given up when it is dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Claims a folder that is there.
    ///
    /// # Errors
    /// * `InUse`: another process has claimed it
    /// * `Io`: the folder takes no file
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        loop {
            let open = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let mut file = open.map_err(Error::io("cannot be created", &path))?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let mut process = String::new();
                    // Only for the message; where locks keep others from reading, too, it goes without.
                    let _ = file.read_to_string(&mut process);
                    return Err(Error::InUse {
                        path: folder.to_owned(),
                        process: process.trim().parse().ok(),
                    });
                }
                // A file system without locks. A new folder is still made by one process only.
                Err(TryLockError::Error(_)) => return Ok(Self { path, file }),
                // The holder before may have removed the file after it was opened here.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => {
                    // As above.
                    let _ = file.set_len(0);
                    let _ = writeln!(file, "{}", std::process::id());
                    return Ok(Self { path, file });
                }
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Removed while the lock is held, so that it is nobody else's file. One that stays does no harm.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Whether the open file is still the one of that name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |file: std::fs::Metadata| (file.dev(), file.ino());
    let named = std::fs::metadata(path).map(identity).ok();
    named.is_some() && named == file.metadata().map(identity).ok()
}

/// Elsewhere an open file is not removed.
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
        // As a killed process leaves it.
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

    /// Claims that come and go at the same time: at no moment do two have the folder.
    #[test]
    fn many_at_once_have_it_one_after_another() {
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
