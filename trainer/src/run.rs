//! The folder that a training run leaves: settings, metrics, weights, and the checkpoint that it can go on from.

use crate::adam::Adam;
use crate::backend::State;
use crate::checkpoint::{self, Checkpoint};
use crate::dataset::{Dataset, hex};
use crate::error::Error;
use crate::output;
use crate::train::{Epoch, Progress};
use crate::weights_file::WeightsFile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the command line sets of a training. With the data and the kind of device it determines every bit of the result.
///
/// A run from before there was an option is read as if it had the option's default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Times that each image is to be seen.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: u32,
    /// Learning rate, per step.
    pub lr: f64,
    /// Of the initial parameters and the order of images.
    pub seed: u64,
    /// `shuffled` or `sequential`.
    pub order: String,
    /// The limit of steps, if there is one.
    pub max_steps: Option<u64>,
    /// File of the initial parameters, if they come from one.
    pub init: Option<String>,
    /// `constant` or `cosine`.
    pub lr_schedule: String,
    /// See [`Adam::weight_decay`].
    pub weight_decay: f64,
    /// See [`Augment`](crate::dataset::Augment).
    pub augment: bool,
    /// See [`Adam::average`].
    pub average: Option<u64>,
    /// Share of the training images held out for validation, if any are.
    pub val_split: Option<f64>,
    /// Epochs without progress on the validation split after which the training ends, if it does.
    pub patience: Option<u32>,
    /// GPUs that share a batch; 1 on other devices.
    pub devices: u32,
}

impl Default for Settings {
    /// Those of the course.
    fn default() -> Self {
        Self {
            epochs: 5,
            batch_size: 256,
            lr: Adam::default().lr,
            seed: 0,
            order: "shuffled".to_owned(),
            max_steps: None,
            init: None,
            lr_schedule: "constant".to_owned(),
            weight_decay: 0.0,
            augment: false,
            average: None,
            val_split: None,
            patience: None,
            devices: 1,
        }
    }
}

impl Settings {
    /// `val` if images are held out for validation, else `test`: what an epoch's accuracy is of.
    pub fn held_out(&self) -> &'static str {
        match self.val_split {
            Some(_) => "val",
            None => "test",
        }
    }
}

/// The settings that were in force, as `config.toml` keeps them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Version of the program.
    pub version: String,
    /// From the command line.
    #[serde(flatten)]
    pub settings: Settings,
    /// What computed: its kind, then details that change no bit.
    pub device: String,
    /// The data.
    pub data: DataConfig,
}

impl Config {
    /// The text of `config.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("text keys, and numbers of 63 bits")
    }

    /// From the text of `config.toml`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("settings: {}", error.message()))
    }

    /// `cpu` of `cpu (avx2, 2 threads)`.
    pub fn device_kind(&self) -> &str {
        self.device.split(' ').next().unwrap_or_default()
    }

    /// What must be the same for a run to go on as if never stopped, but is not: a line each, with both values.
    /// `epochs` and `patience` may differ: they say when it ends. But a falling learning rate depends on `epochs`.
    pub fn differences(&self, run: &Self) -> Vec<String> {
        let may_differ: &[&str] = match run.settings.lr_schedule.as_str() {
            "constant" => &["epochs", "patience"],
            _ => &["patience"],
        };
        let table = |config: &Self| {
            let settings = toml::Table::try_from(&config.settings);
            let mut table = settings.expect("text keys, and numbers of 63 bits");
            table.retain(|key, _| !may_differ.contains(&key));
            table.insert("device".to_owned(), config.device_kind().into());
            let DataConfig {
                sha256,
                train,
                test,
                ..
            } = &config.data;
            let data = format!("{train} and {test} images, SHA-256 {sha256}");
            table.insert("data".to_owned(), data.into());
            table
        };
        let (here, run) = (table(self), table(run));
        let keys: BTreeSet<&String> = here.keys().chain(run.keys()).collect();
        let show = |value: Option<&toml::Value>| value.map_or("none".to_owned(), |v| v.to_string());
        keys.into_iter()
            .map(|key| (key, here.get(key), run.get(key)))
            .filter(|(_, here, run)| here != run)
            .map(|(key, here, run)| format!("{key}: {} in the run, {} here", show(run), show(here)))
            .collect()
    }
}

/// The data set that was used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

    /// Opens the folder of a run that is to go on, and reads its checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn resume(path: &Path) -> Result<(Self, Checkpoint), Error> {
        let checkpoint = Checkpoint::load(&path.join(checkpoint::NAME))?;
        output::remove_partial(path)?;
        let folder = Self {
            path: path.to_owned(),
        };
        Ok((folder, checkpoint))
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

    /// Where the checkpoint is.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(checkpoint::NAME)
    }

    /// Writes `config.toml`, `metrics.csv`, a row an epoch, and `steps.csv`, a row a step; then the checkpoint, so that
    /// what it tells of is there.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, config: &Config, state: &State, progress: &Progress) -> Result<(), Error> {
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
            // Nine significant digits give back every f32.
            steps += &format!("{step},{loss:.8e}\n");
        }
        write("steps.csv", steps)?;
        Checkpoint::save(&self.checkpoint(), config, state, progress)
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

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Succeeds only on an empty folder.
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::init::initial_params;

    pub(crate) fn config() -> Config {
        Config {
            version: "0.0.0".to_owned(),
            settings: Settings {
                batch_size: 32,
                init: Some("start.weights".to_owned()),
                ..Settings::default()
            },
            device: "cpu (none, 3 threads)".to_owned(),
            data: DataConfig {
                name: "letters".to_owned(),
                folder: PathBuf::from("some/letters"),
                test_split: None,
                resize: false,
                invert: false,
                sha256: "ab".repeat(32),
                train: 96,
                test: 30,
            },
        }
    }

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
        run.write(&config(), &state, &progress).unwrap();
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
    fn an_unused_folder_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        drop(RunFolder::create(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn what_changes_the_result_is_a_difference() {
        let run = config();
        let mut here = config();
        here.device = "cpu (avx2, 1 threads)".to_owned();
        here.settings.epochs = 70;
        here.data.folder = PathBuf::from("elsewhere");
        assert_eq!(here.differences(&run), [""; 0]);
        here.device = "reference (plain loops, 1 thread)".to_owned();
        here.settings.lr = 0.1;
        here.settings.init = None;
        here.data.test = 29;
        let sha256 = "ab".repeat(32);
        assert_eq!(
            here.differences(&run),
            [
                format!(
                    "data: \"96 and 30 images, SHA-256 {sha256}\" in the run, \"96 and 29 images, SHA-256 {sha256}\" here"
                ),
                "device: \"cpu\" in the run, \"reference\" here".to_owned(),
                "init: \"start.weights\" in the run, none here".to_owned(),
                "lr: 0.001 in the run, 0.1 here".to_owned(),
            ]
        );
    }
}
