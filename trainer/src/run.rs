//! The folder of a training run, with its settings, metrics and weights, and the checkpoint from which it can continue.

use crate::backend::State;
use crate::checkpoint::{self, Checkpoint};
use crate::claim::{self, Claim};
use crate::config::Config;
use crate::error::Error;
use crate::output;
use crate::train::{Epoch, Progress};
use crate::weights_file::WeightsFile;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The folder of a run. No other training writes into it at the same time. If it was created and is still empty when dropped, it is
/// removed.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    // The fields are dropped in this order: the folder is empty only without the lock file.
    _claim: Claim,
    _folder: output::Folder,
}

impl RunFolder {
    /// Creates the folder, which must be new or empty.
    ///
    /// # Errors
    /// * `Exists`: the path exists and is not an empty folder
    /// * `InUse`: another training has begun to use the folder
    /// * `Io`: the folder cannot be created
    pub fn create(path: &Path) -> Result<Self, Error> {
        let exists = || Error::Exists {
            path: path.to_owned(),
        };
        let created = output::Folder::create(path)?;
        // A claim writes into the folder, so a folder with other files is not claimed.
        if !is_unused(path)? {
            claim::check(path)?;
            return Err(exists());
        }
        let folder = Self::claim(path, created)?;
        // Another training may have ended between the first check and the claim.
        if !is_unused(path)? {
            return Err(exists());
        }
        Ok(folder)
    }

    /// Creates a new folder with the default name, `runs/<date>-<time>-seed<N>`. If a run that began in the same second has
    /// taken it, the name ends in `-2`, `-3` and so on.
    ///
    /// # Errors
    /// * `Exists`: `runs` is a file
    /// * `Io`: the folder cannot be created
    pub fn create_default(seed: u64) -> Result<Self, Error> {
        let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S");
        Self::create_numbered(Path::new("runs"), &format!("{now}-seed{seed}"))
    }

    fn create_numbered(parent: &Path, name: &str) -> Result<Self, Error> {
        let mut created = output::Folder::create(parent)?;
        let mut path = parent.join(name);
        for number in 2.. {
            match created.add(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                // Another training that wrote nothing has removed the folder above.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // Dropped first, so that it cannot remove what is created now.
                    drop(std::mem::take(&mut created));
                    created = output::Folder::create(parent)?;
                    continue;
                }
                made => {
                    made.map_err(Error::io("cannot be created", &path))?;
                    break;
                }
            }
            path.set_file_name(format!("{name}-{number}"));
        }
        Self::claim(&path, created)
    }

    /// Opens the folder of a run to continue it, and reads its checkpoint.
    ///
    /// # Errors
    /// * `InUse`: another training is using the folder
    /// * `Exists`: the folder has a file of the lock's name that is not a lock file
    /// * those of [`Checkpoint::load`]
    pub fn resume(path: &Path) -> Result<(Self, Checkpoint), Error> {
        let checkpoint = path.join(checkpoint::NAME);
        // Leave folders alone that are not of a run.
        if !checkpoint.is_file() {
            Checkpoint::load(&checkpoint)?;
        }
        let folder = Self::claim(path, output::Folder::default())?;
        let checkpoint = Checkpoint::load(&checkpoint)?;
        output::remove_partial(path)?;
        Ok((folder, checkpoint))
    }

    fn claim(path: &Path, folder: output::Folder) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            _claim: Claim::take(path)?,
            _folder: folder,
        })
    }

    /// Returns the folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the checkpoint's path.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(checkpoint::NAME)
    }

    /// Writes `config.toml`, `metrics.csv` with one row per epoch, and `steps.csv` with one row per step. The checkpoint, with
    /// `resumable`, comes last, so the files that it refers to exist.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(
        &self,
        config: &Config,
        state: &State,
        progress: &Progress,
        resumable: &Progress,
    ) -> Result<(), Error> {
        let write =
            |name, text: String| output::replace_unsynced(&self.path.join(name), text.as_bytes());
        write("config.toml", config.to_toml())?;
        let held_out = config.settings.held_out();
        let mut metrics = format!("epoch,train_loss,train_acc,{held_out}_acc,seconds\n");
        for Epoch {
            epoch,
            train_loss,
            train_acc,
            held_out_acc,
            seconds,
        } in &progress.epochs
        {
            metrics +=
                &format!("{epoch},{train_loss:.6},{train_acc:.6},{held_out_acc:.6},{seconds:.3}\n");
        }
        write("metrics.csv", metrics)?;
        let mut steps = "step,loss\n".to_owned();
        for (step, loss) in (1..).zip(&progress.losses) {
            // Nine significant digits determine every f32.
            steps += &format!("{step},{loss:.8e}\n");
        }
        write("steps.csv", steps)?;
        Checkpoint::save(&self.checkpoint(), config, state, resumable)
    }

    /// Writes a weights file under `name` and returns its path.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_weights(&self, name: &str, file: &WeightsFile) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        output::replace(&path, file.bytes())?;
        Ok(path)
    }
}

/// Returns whether a folder contains nothing, or only a lock file.
fn is_unused(path: &Path) -> Result<bool, Error> {
    for entry in std::fs::read_dir(path).map_err(Error::io("cannot be read", path))? {
        let entry = entry.map_err(Error::io("cannot be read", path))?;
        if entry.file_name() != claim::NAME {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::init::initial_params;

    #[test]
    fn a_folder_with_something_in_it_is_not_taken() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/run");
        let run = RunFolder::create(&path).unwrap();
        let progress = Progress {
            epochs: vec![Epoch {
                epoch: 1,
                train_loss: 1.5,
                train_acc: 0.25,
                held_out_acc: 0.5,
                seconds: 2.0,
            }],
            losses: vec![1.861_200_1],
            ..Progress::default()
        };
        let state = State::new(initial_params(0));
        run.write(&config(), &state, &progress, &progress).unwrap();
        assert!(matches!(RunFolder::create(&path), Err(Error::InUse { .. })));
        drop(run);
        assert!(matches!(
            RunFolder::create(&path),
            Err(Error::Exists { .. })
        ));
        let read = |name| std::fs::read_to_string(path.join(name)).unwrap();
        assert_eq!(
            read("metrics.csv"),
            "epoch,train_loss,train_acc,test_acc,seconds\n1,1.500000,0.250000,0.500000,2.000\n"
        );
        assert_eq!(read("steps.csv"), "step,loss\n1,1.86120009e0\n");
        assert_eq!(Config::from_toml(&read("config.toml")), Ok(config()));
    }

    #[test]
    fn a_file_is_not_taken() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, "text").unwrap();
        let error = RunFolder::create(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Exists { path: named } if *named == path),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), "text");
    }

    /// The modification time of a folder changes if a file is created or removed in it.
    #[cfg(unix)]
    #[test]
    fn a_refused_folder_is_unchanged() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        std::fs::write(path.join("x"), "").unwrap();
        // Besides a file of the user, the lock file of a process that has ended.
        for lock in [None, Some("precious\n"), Some("1\n")] {
            if let Some(text) = lock {
                std::fs::write(path.join(claim::NAME), text).unwrap();
            }
            let folder = std::fs::File::open(path).unwrap();
            folder.set_modified(long_ago).unwrap();
            let error = RunFolder::create(path).unwrap_err();
            assert!(matches!(error, Error::Exists { .. }), "{error}");
            assert_eq!(
                folder.metadata().unwrap().modified().unwrap(),
                long_ago,
                "{lock:?}"
            );
            let left = std::fs::read_to_string(path.join(claim::NAME)).ok();
            assert_eq!(left.as_deref(), lock);
        }
    }

    #[test]
    fn runs_of_the_same_second_have_folders_of_their_own() {
        let parent = tempfile::tempdir().unwrap();
        let make = || RunFolder::create_numbered(&parent.path().join("runs"), "20261126-seed0");
        let runs: Vec<RunFolder> = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(make));
            threads.map(|run| run.join().unwrap().unwrap()).into()
        });
        let mut names: Vec<_> = runs.iter().map(|run| run.path().file_name()).collect();
        names.sort();
        let expected = ["", "-2", "-3", "-4", "-5", "-6", "-7", "-8"];
        let expected = expected.map(|end| format!("20261126-seed0{end}"));
        assert_eq!(names, expected.each_ref().map(|name| Some(name.as_ref())));
    }

    #[test]
    fn an_unused_folder_is_removed_with_those_above_it() {
        let parent = tempfile::tempdir().unwrap();
        drop(RunFolder::create(&parent.path().join("a/b/run")).unwrap());
        drop(RunFolder::create_numbered(&parent.path().join("runs"), "run").unwrap());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
