//! The folder that a training run leaves: settings, metrics, weights.

use crate::dataset::{Dataset, hex};
use crate::error::Error;
use crate::output;
use crate::train::Epoch;
use crate::weights_file::WeightsFile;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The settings that were in force, as `config.toml` keeps them.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// Version of the program.
    pub version: &'static str,
    /// Times that each image was to be seen.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: usize,
    /// Learning rate, per step.
    pub lr: f64,
    /// Of the initial parameters and the order of images.
    pub seed: u64,
    /// `shuffled` or `sequential`.
    pub order: String,
    /// The limit of steps, if there was one.
    pub max_steps: Option<u64>,
    /// File of the initial parameters, if they came from one.
    pub init: Option<PathBuf>,
    /// What computed.
    pub device: String,
    /// The data.
    pub data: DataConfig,
}

/// The data set that was used.
#[derive(Clone, Debug, Serialize)]
pub struct DataConfig {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// See [`crate::dataset::ReadOptions::test_split`].
    pub test_split: Option<f64>,
    /// Whether image files were scaled.
    pub resize: bool,
    /// Whether image files were inverted.
    pub invert: bool,
    /// See [`Dataset::sha256`].
    pub sha256: String,
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
}

impl From<&Dataset> for DataConfig {
    fn from(data: &Dataset) -> Self {
        Self {
            name: data.name.clone(),
            folder: data.folder.clone(),
            test_split: data.options.test_split,
            resize: data.options.images.resize,
            invert: data.options.images.invert,
            sha256: hex(&data.sha256),
            train: data.train.len(),
            test: data.test.len(),
        }
    }
}

/// The folder of a run. Removed again if nothing was put into it.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder, which must be new or empty.
    ///
    /// # Errors
    /// * `Exists`: something is there already
    /// * `Io`: it cannot be made
    pub fn create(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(Error::io("cannot be made", path))?;
        let mut entries = std::fs::read_dir(path).map_err(Error::io("cannot be read", path))?;
        if entries.next().is_some() {
            return Err(Error::Exists {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The default name: `runs/<date>-<time>-seed<N>`.
    pub fn default_path(seed: u64) -> PathBuf {
        let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S");
        Path::new("runs").join(format!("{now}-seed{seed}"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `config.toml`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_config(&self, config: &Config) -> Result<(), Error> {
        let text = toml::to_string(config).expect("a flat struct with text keys");
        output::replace(&self.path.join("config.toml"), text.as_bytes())
    }

    /// Writes `metrics.csv`, a row an epoch, and `steps.csv`, a row a step.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_metrics(&self, epochs: &[Epoch], losses: &[f32]) -> Result<(), Error> {
        let mut metrics = "epoch,train_loss,train_acc,test_acc,seconds\n".to_owned();
        for Epoch {
            epoch,
            train_loss,
            train_acc,
            test_acc,
            seconds,
        } in epochs
        {
            metrics +=
                &format!("{epoch},{train_loss:.6},{train_acc:.6},{test_acc:.6},{seconds:.3}\n");
        }
        output::replace(&self.path.join("metrics.csv"), metrics.as_bytes())?;

        let mut steps = "step,loss\n".to_owned();
        for (step, loss) in (1..).zip(losses) {
            // Nine significant digits give back every f32.
            steps += &format!("{step},{loss:.8e}\n");
        }
        output::replace(&self.path.join("steps.csv"), steps.as_bytes())
    }

    /// Writes `lenet.weights` and returns its path.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_weights(&self, file: &WeightsFile) -> Result<PathBuf, Error> {
        let path = self.path.join("lenet.weights");
        file.save(&path)?;
        Ok(path)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Succeeds only on an empty folder.
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_not_taken() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/run");
        let run = RunFolder::create(&path).unwrap();
        let epoch = Epoch {
            epoch: 1,
            train_loss: 1.5,
            train_acc: 0.25,
            test_acc: 0.5,
            seconds: 2.0,
        };
        run.write_metrics(&[epoch], &[1.861_200_1]).unwrap();
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
    }

    #[test]
    fn an_unused_folder_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        drop(RunFolder::create(&path).unwrap());
        assert!(!path.exists());
    }
}
