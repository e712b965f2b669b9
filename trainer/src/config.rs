//! The settings of a run, as in `config.toml` and the checkpoint, and which of them must not change when a run continues.

use crate::adam::{Adam, Schedule};
use crate::dataset::{Dataset, hex};
use crate::train::Plan;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The order in which an epoch sees the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageOrder {
    /// A new random order in each epoch
    Shuffled,
    /// The order of the data set
    Sequential,
}

/// How the learning rate changes over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// The same for all steps
    Constant,
    /// Half a cosine, from --lr to zero after the last step
    Cosine,
}

/// The settings from the command line. With the data and the kind of device, they determine every bit of the result.
///
/// If a run is older than an option, the option has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The number of times that each image is used.
    pub epochs: u32,
    /// Images per step.
    pub batch_size: u32,
    /// Learning rate, per step.
    pub lr: f64,
    /// The seed for the initial parameters and the order of images.
    pub seed: u64,
    /// The order of images.
    pub order: ImageOrder,
    /// The limit of steps, if there is one.
    pub max_steps: Option<u64>,
    /// The file of the initial parameters, if they come from one.
    pub init: Option<String>,
    /// How the learning rate changes.
    pub lr_schedule: LrSchedule,
    /// See [`Adam::weight_decay`].
    pub weight_decay: f64,
    /// See [`Augment`](crate::dataset::Augment).
    pub augment: bool,
    /// See [`Adam::average`].
    pub average: Option<u64>,
    /// Share of the training images held out for validation, if any are.
    pub val_split: Option<f64>,
    /// The number of epochs without progress on the validation split after which the training ends, if any.
    pub patience: Option<u32>,
    /// The number of GPUs that share a batch; 1 on other devices.
    pub devices: u32,
}

impl Default for Settings {
    /// Returns the settings of the Dive into Deep Learning course.
    fn default() -> Self {
        Self {
            epochs: 5,
            batch_size: 256,
            lr: Adam::default().lr,
            seed: 0,
            order: ImageOrder::Shuffled,
            max_steps: None,
            init: None,
            lr_schedule: LrSchedule::Constant,
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
    /// Returns the split on which an epoch's accuracy is measured: `val` if images are held out for validation, else `test`.
    pub fn held_out(&self) -> &'static str {
        match self.val_split {
            Some(_) => "val",
            None => "test",
        }
    }

    /// Returns for how long to train, and in which order.
    pub fn plan(&self) -> Plan {
        Plan {
            epochs: self.epochs,
            batch_size: self.batch_size as usize,
            seed: self.seed,
            shuffle: self.order == ImageOrder::Shuffled,
            max_steps: self.max_steps,
            augment: self.augment,
            patience: self.patience,
        }
    }

    /// Returns the optimizer for a training of so many steps.
    pub fn adam(&self, steps: u64) -> Adam {
        Adam {
            lr: self.lr,
            weight_decay: self.weight_decay,
            schedule: match self.lr_schedule {
                LrSchedule::Constant => Schedule::Constant,
                LrSchedule::Cosine => Schedule::Cosine { steps },
            },
            average: self.average,
            ..Adam::default()
        }
    }

    /// Describes how parameters were trained on so many images, for [`Provenance::recipe`](lenet_core::weights::Provenance).
    pub fn recipe(&self, images: usize) -> String {
        let order = match self.order {
            ImageOrder::Shuffled => "shuffled",
            ImageOrder::Sequential => "sequential",
        };
        let mut recipe = format!("adam, {order}, {images} images");
        if let Some(steps) = self.max_steps {
            recipe += &format!(", at most {steps} steps");
        }
        if self.init.is_some() {
            recipe += ", from given parameters";
        }
        if self.lr_schedule == LrSchedule::Cosine {
            recipe += &format!(", cosine learning rate over {} epochs", self.epochs);
        }
        if self.weight_decay != 0.0 {
            recipe += &format!(", weight decay {}", self.weight_decay);
        }
        if self.augment {
            recipe += ", shifted and mirrored images";
        }
        if let Some(steps) = self.average {
            recipe += &format!(", mean over about the last {steps} steps");
        }
        if let Some(share) = self.val_split {
            recipe += &format!(", best epoch on {share} held out for validation");
        }
        if self.devices > 1 {
            recipe += &format!(", on {} GPUs", self.devices);
        }
        recipe
    }
}

/// The settings of a run, as stored in `config.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Version of the program.
    pub version: String,
    /// The settings from the command line.
    #[serde(flatten)]
    pub settings: Settings,
    /// The backend: its kind, then details that change no bit of the result.
    pub device: String,
    /// The data.
    pub data: DataConfig,
}

impl Config {
    /// Returns the text of `config.toml`.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("text keys, and numbers of 63 bits")
    }

    /// Parses the text of `config.toml`.
    ///
    /// # Errors
    /// A description of what is wrong.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| format!("settings: {}", error.message()))
    }

    /// Returns the kind of the device, such as `cpu` for `cpu (avx2, 2 threads)`.
    pub fn device_kind(&self) -> &str {
        self.device.split(' ').next().unwrap_or_default()
    }

    /// Lists the settings that prevent a run from continuing with the same bits as if it had never stopped, one line each with
    /// both values. `epochs`, `max_steps` and `patience` may differ, because they only say when the run ends. But a falling
    /// learning rate depends on the number of steps.
    pub fn differences(&self, run: &Self) -> Vec<String> {
        let may_differ: &[&str] = match run.settings.lr_schedule {
            LrSchedule::Constant => &["epochs", "max_steps", "patience"],
            LrSchedule::Cosine => &["patience"],
        };
        let table = |config: &Self| {
            let settings = toml::Table::try_from(&config.settings);
            let mut table = settings.expect("text keys, and numbers of 63 bits");
            table.retain(|key, _| !may_differ.contains(&key));
            table.insert("device".to_owned(), config.device_kind().into());
            let DataConfig {
                sha256,
                test_sha256,
                classes,
                train,
                test,
                ..
            } = &config.data;
            let data = format!("{train} training images, SHA-256 {sha256}");
            table.insert("data".to_owned(), data.into());
            let data = format!("{test} test images, SHA-256 {test_sha256}");
            table.insert("test data".to_owned(), data.into());
            table.insert("classes".to_owned(), classes.clone().into());
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
    /// Its folder, as given or found.
    #[serde(with = "path")]
    pub folder: PathBuf,
    /// The working directory, from which a relative `folder` starts.
    #[serde(with = "path", default)]
    pub working_directory: PathBuf,
    /// Names of the classes, in the order of the labels; empty for a class without a name.
    #[serde(default)]
    pub classes: Vec<String>,
    /// See [`crate::dataset::ReadOptions::test_split`].
    pub test_split: Option<f64>,
    /// See [`crate::dataset::ReadOptions::allow_modified`].
    #[serde(default)]
    pub allow_modified: bool,
    /// Whether image files were scaled.
    pub resize: bool,
    /// Whether image files were inverted.
    pub invert: bool,
    /// See [`Dataset::sha256`].
    pub sha256: String,
    /// See [`Dataset::test_sha256`].
    #[serde(default)]
    pub test_sha256: String,
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
            // Without one, a relative folder is looked for from the next working directory.
            working_directory: std::env::current_dir().unwrap_or_default(),
            classes: data.classes.to_vec(),
            test_split: data.options.test_split,
            allow_modified: data.options.allow_modified,
            resize: data.options.images.resize,
            invert: data.options.images.invert,
            sha256: hex(&data.sha256),
            test_sha256: hex(&data.test_sha256()),
            train: data.train.len(),
            test: data.test.len(),
        }
    }
}

impl DataConfig {
    /// Returns the folder of the data, seen from the run's working directory, or, if that was moved together with the data,
    /// from the current one.
    pub fn place(&self) -> PathBuf {
        let then = self.working_directory.join(&self.folder);
        match then.is_dir() || !self.folder.is_dir() {
            true => then,
            false => self.folder.clone(),
        }
    }

    /// Describes the folder as an earlier run did, if it is the same one.
    pub fn keep_place(&mut self, earlier: &Self) {
        let place = earlier.place();
        if place == self.folder {
            if place != earlier.folder {
                self.working_directory = earlier.working_directory.clone();
            }
            self.folder = earlier.folder.clone();
        }
    }
}

/// Stores a path as text or, if it is not valid text, as bytes, so that a run with any path can continue.
mod path {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::path::{Path, PathBuf};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match path.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(path.as_os_str().as_encoded_bytes().to_owned()),
        };
        form.serialize(serializer)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into(),
            #[cfg(unix)]
            Form::Bytes(bytes) => {
                <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes).into()
            }
            #[cfg(not(unix))]
            Form::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
                working_directory: PathBuf::from("/home"),
                classes: vec!["a".to_owned(), "b".to_owned()],
                test_split: None,
                allow_modified: false,
                resize: false,
                invert: false,
                sha256: "ab".repeat(32),
                test_sha256: "cd".repeat(32),
                train: 96,
                test: 30,
            },
        }
    }

    #[test]
    fn settings_that_change_the_result_are_differences() {
        let run = config();
        let mut here = config();
        here.device = "cpu (avx2, 1 threads)".to_owned();
        here.settings.epochs = 70;
        here.settings.max_steps = Some(7);
        here.data.folder = PathBuf::from("elsewhere");
        assert_eq!(here.differences(&run), [""; 0]);
        here.device = "reference (plain loops, 1 thread)".to_owned();
        here.settings.lr = 0.1;
        here.settings.init = None;
        here.data.test = 29;
        here.data.classes.reverse();
        let sha256 = "cd".repeat(32);
        assert_eq!(
            here.differences(&run),
            [
                "classes: [\"a\", \"b\"] in the run, [\"b\", \"a\"] here".to_owned(),
                "device: \"cpu\" in the run, \"reference\" here".to_owned(),
                "init: \"start.weights\" in the run, none here".to_owned(),
                "lr: 0.001 in the run, 0.1 here".to_owned(),
                format!(
                    "test data: \"30 test images, SHA-256 {sha256}\" in the run, \"29 test images, SHA-256 {sha256}\" here"
                ),
            ]
        );
        // The steps of a falling learning rate are part of it.
        let mut falling = config();
        falling.settings.lr_schedule = LrSchedule::Cosine;
        let mut longer = falling.clone();
        longer.settings.max_steps = Some(7);
        assert_eq!(
            longer.differences(&falling),
            ["max_steps: none in the run, 7 here"]
        );
    }

    /// A file from a release that did not write these settings yet.
    #[test]
    fn an_older_file_lacks_some_settings() {
        let text = config().to_toml();
        let older: String = text
            .split_inclusive('\n')
            .filter(|line| {
                let new = [
                    "working_directory",
                    "classes",
                    "allow_modified",
                    "test_sha256",
                ];
                !new.iter().any(|key| line.starts_with(key))
            })
            .collect();
        let read = Config::from_toml(&older).unwrap();
        assert_eq!(read.data.place(), PathBuf::from("some/letters"));
        assert!(read.data.classes.is_empty() && read.data.test_sha256.is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_valid_text_survives_a_round_trip() {
        use std::os::unix::ffi::OsStrExt;
        let mut config = config();
        for bytes in [&b"o\xff"[..], b"plain", "M\u{fc}tze".as_bytes()] {
            config.data.folder = std::ffi::OsStr::from_bytes(bytes).into();
            assert_eq!(Config::from_toml(&config.to_toml()), Ok(config.clone()));
        }
    }
}
