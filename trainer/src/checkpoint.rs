//! The checkpoint, from which a training can continue: settings, parameters, moments, position, and measurements so far.
//!
//! It is a safetensors file, which other programs can read too:
//!
//! | tensors | content |
//! |---|---|
//! | `params.conv.0.weight`, … | the parameters, under PyTorch's names |
//! | `moment1.…`, `moment2.…` | Adam's moments |
//! | `mean.…` | with `--average`, the running mean of the parameters |
//! | `best.…` | with a validation split, the parameters of the best epoch |
//! | `losses` | the loss of each step |
//!
//! The metadata has the format, the network, the text of `config.toml`, the position with the measurements (also in TOML), and
//! a CRC-32 of everything else.

use crate::backend::State;
use crate::config::Config;
use crate::error::Error;
use crate::output;
use crate::safetensors::{floats, looks_like, named_params, names, view};
use crate::train::{Epoch, Partial, Progress};
use crc::{CRC_32_ISO_HDLC, Crc};
use lenet_core::Network;
use lenet_core::network::{FINGERPRINT, Net, Params, TENSORS};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The file's name in the run's folder.
pub const NAME: &str = "last.checkpoint";

const FORMAT: &str = "lenet checkpoint 4";

/// What to do about a damaged checkpoint.
const REMEDY: &str =
    "copy it again from where it came, or train again: lenet.weights beside it serves as --init";

/// Everything that a training needs to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The settings with which the training was started.
    pub config: Config,
    /// The parameters, the moments, the mean, and the number of steps.
    pub state: State,
    /// The position and the measurements.
    pub progress: Progress,
}

/// What the tensors do not hold of the state and the progress.
#[derive(Serialize, Deserialize)]
struct Position {
    step: u64,
    cut: bool,
    partial: Partial,
    epochs: Vec<Epoch>,
}

impl Checkpoint {
    /// Writes a checkpoint. It replaces an older one, which stays until the new one is complete.
    ///
    /// # Errors
    /// `Io`: the file cannot be written
    pub fn save(
        path: &Path,
        config: &Config,
        state: &State,
        progress: &Progress,
    ) -> Result<(), Error> {
        output::replace(path, &encode(config, state, progress))
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// * `Io`: the file cannot be read
    /// * `Checkpoint`: the file is damaged, not a checkpoint, or that of another network or release
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
        decode(&bytes).map_err(|problem| Error::Checkpoint {
            path: path.to_owned(),
            problem,
        })
    }
}

type Tensors<'a> = BTreeMap<String, TensorView<'a>>;

fn encode(config: &Config, state: &State, progress: &Progress) -> Vec<u8> {
    let position = Position {
        step: state.step,
        cut: progress.cut,
        partial: progress.partial,
        epochs: progress.epochs.clone(),
    };
    let position = toml::to_string(&position).expect("text keys, and numbers of 63 bits");
    let metadata = [
        ("format", FORMAT.to_owned()),
        ("network", Net::NAME.to_owned()),
        ("fingerprint", format!("{FINGERPRINT:016x}")),
        ("config", config.to_toml()),
        ("position", position),
    ];
    let mut tensors = Tensors::new();
    let sets = [
        ("params", Some(&state.params)),
        ("moment1", Some(&state.moment1)),
        ("moment2", Some(&state.moment2)),
        ("mean", state.mean.as_ref()),
        ("best", progress.best.as_ref()),
    ];
    for (set, params) in sets {
        let named = params.into_iter().flat_map(|params| named_params(params));
        tensors.extend(named.map(|(name, tensor)| (format!("{set}.{name}"), tensor)));
    }
    let losses = view(&[progress.losses.len()], &progress.losses);
    tensors.insert("losses".to_owned(), losses);
    seal(
        metadata
            .map(|(key, text)| (key.to_owned(), text))
            .into_iter()
            .collect(),
        &tensors,
    )
}

/// Adds the checksum, and returns the file.
fn seal(mut metadata: HashMap<String, String>, tensors: &Tensors<'_>) -> Vec<u8> {
    let checksum = checksum(&metadata, tensors);
    metadata.insert("crc32".to_owned(), checksum);
    serialize(tensors, Some(metadata)).expect("names and sizes are known to fit")
}

/// Returns the CRC-32 of the metadata, but for the checksum itself, and of the tensors, both in the order of their names.
fn checksum(metadata: &HashMap<String, String>, tensors: &Tensors<'_>) -> String {
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let mut digest = CRC.digest();
    let mut add = |name: &str, content: &[u8]| {
        for part in [name.as_bytes(), content] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    };
    for (key, text) in metadata.iter().collect::<BTreeMap<_, _>>() {
        if key != "crc32" {
            add(key, text.as_bytes());
        }
    }
    for (name, tensor) in tensors {
        add(name, tensor.data());
    }
    format!("{:08x}", digest.finalize())
}

fn decode(bytes: &[u8]) -> Result<Checkpoint, String> {
    let damaged = |what: &str| format!("damaged: {what}; {REMEDY}");

    if bytes.starts_with(b"LNCK") {
        return Err(format!(
            "the checkpoint of an earlier release, this program reads \"{FORMAT}\"; continue with the release that wrote it"
        ));
    }
    if bytes.len() >= 9 && !looks_like(bytes) {
        return Err(format!(
            "not a checkpoint (starts with {:02x?}); expected the folder of a run that has {NAME}",
            &bytes[..4]
        ));
    }
    let (_, header) =
        SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error.to_string()))?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let text = |key: &str| metadata.get(key).map_or("", String::as_str);
    match text("format") {
        FORMAT => {}
        "" => {
            return Err(format!(
                "a safetensors file without the metadata of a checkpoint; expected the folder of a run that has {NAME}"
            ));
        }
        format => {
            return Err(format!(
                "its format is \"{format}\", this program reads \"{FORMAT}\"; continue with the release that wrote it"
            ));
        }
    }
    if text("fingerprint") != format!("{FINGERPRINT:016x}") {
        return Err(format!(
            "of another network, {:?} (this program is built for {:?}); continue with the build that wrote it",
            text("network"),
            Net::NAME
        ));
    }
    let tensors: Tensors<'_> = file.tensors().into_iter().collect();
    let (stored, computed) = (text("crc32"), checksum(&metadata, &tensors));
    if stored != computed {
        return Err(damaged(&format!("checksum {computed}, expected {stored}")));
    }

    // The checksum is right, so the rest fails only if another program wrote the file.
    let config = Config::from_toml(text("config")).map_err(|problem| damaged(&problem))?;
    let position: Position = toml::from_str(text("position"))
        .map_err(|error| damaged(&format!("position: {}", error.message())))?;
    let values = |name: &str, dims: &[usize]| match tensors.get(name) {
        Some(tensor) if tensor.shape() == dims && tensor.dtype() == Dtype::F32 => {
            Ok(floats(tensor.data(), f32::from_le_bytes))
        }
        Some(tensor) => Err(damaged(&format!(
            "{name}: found {:?} {:?}, expected F32 {dims:?}",
            tensor.dtype(),
            tensor.shape()
        ))),
        None => Err(damaged(&format!("{name}: missing, expected F32 {dims:?}"))),
    };
    let params = |set: &str| -> Result<Box<Params>, String> {
        let mut params: Box<Params> = bytemuck::zeroed_box();
        for (name, tensor) in names().iter().zip(TENSORS) {
            params.as_flat_mut()[tensor.offset..][..tensor.len()]
                .copy_from_slice(&values(&format!("{set}.{name}"), tensor.dims())?);
        }
        Ok(params)
    };
    let optional = |set: &str| {
        let prefix = format!("{set}.");
        let is_there = tensors.keys().any(|name| name.starts_with(&prefix));
        is_there.then(|| params(set)).transpose()
    };
    let steps = usize::try_from(position.step).unwrap_or(usize::MAX);
    let checkpoint = Checkpoint {
        state: State {
            params: params("params")?,
            moment1: params("moment1")?,
            moment2: params("moment2")?,
            step: position.step,
            mean: optional("mean")?,
        },
        progress: Progress {
            epochs: position.epochs,
            losses: values("losses", &[steps])?,
            partial: position.partial,
            cut: position.cut,
            best: optional("best")?,
        },
        config,
    };
    match checkpoint.contradiction() {
        None => Ok(checkpoint),
        Some(problem) => Err(damaged(problem)),
    }
}

impl Checkpoint {
    /// Returns why no training can have written this, if so.
    fn contradiction(&self) -> Option<&'static str> {
        let Self {
            config: Config { settings, data, .. },
            state,
            progress: Progress {
                epochs, partial, ..
            },
        } = self;
        let is_share = |share: f64| share > 0.0 && share < 1.0;
        for (is_possible, problem) in [
            (settings.batch_size > 0, "its batch size is 0"),
            (settings.devices > 0, "its number of devices is 0"),
            (
                settings.average != Some(0),
                "its number of steps to average is 0",
            ),
            (
                settings.val_split.is_none_or(is_share),
                "its share of validation images is not between 0 and 1",
            ),
        ] {
            if !is_possible {
                return Some(problem);
            }
        }
        let per_epoch = data.train.div_ceil(settings.batch_size as usize);
        let before = (epochs.len() as u64).saturating_mul(per_epoch as u64);
        let is_consistent = partial.steps <= per_epoch
            && partial.correct <= partial.images
            && partial.images as usize <= data.train
            && state.step.checked_sub(partial.steps as u64) == Some(before);
        (!is_consistent).then_some("its counts of steps and epochs contradict each other")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::dataset::{Split, generator};
    use crate::init::initial_params;
    use lenet_core::network::{CLASSES, Pixels};
    use rand_chacha::rand_core::Rng;

    /// Returns a checkpoint within the second epoch, in which one of three steps is done.
    fn example() -> Checkpoint {
        let partial = Partial {
            steps: 1,
            loss: 2.25,
            correct: 3,
            images: 32,
            seconds: 0.5,
        };
        let epoch = Epoch {
            epoch: 1,
            train_loss: 2.3,
            train_acc: 0.125,
            held_out_acc: 0.1,
            seconds: 1.5,
        };
        Checkpoint {
            config: config(),
            state: State {
                params: initial_params(1),
                moment1: initial_params(2),
                moment2: initial_params(3),
                step: 4,
                mean: Some(initial_params(4)),
            },
            progress: Progress {
                epochs: vec![epoch],
                losses: vec![2.5, 2.4, 2.3, 2.25],
                partial,
                cut: true,
                best: Some(initial_params(5)),
            },
        }
    }

    fn bytes() -> Vec<u8> {
        let example = example();
        encode(&example.config, &example.state, &example.progress)
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(decode(&bytes()), Ok(example()));
    }

    /// Any changed byte and any cut gives an error that says so.
    #[test]
    fn a_damaged_file_is_refused_with_what_is_wrong() {
        let good = bytes();
        let mut rng = generator(0, 0);
        for n in 0..400 {
            // Half of them in the header, of which most is the text of the settings.
            let range = [good.len(), good.len().min(2000)][n % 2];
            let at = rng.next_u32() as usize % range;
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (rng.next_u32() % 8);
            if let Ok(read) = decode(&bytes) {
                // The space that pads the header, or the order of its entries.
                assert_eq!(read, example(), "byte {at}");
            }
            let problem = decode(&good[..at]).unwrap_err();
            assert!(problem.starts_with("damaged: "), "cut at {at}: {problem}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(decode(&longer).unwrap_err().starts_with("damaged: "));
        let value = good.len() - 1;
        let mut bytes = good;
        bytes[value] ^= 1;
        let problem = decode(&bytes).unwrap_err();
        assert!(problem.starts_with("damaged: checksum "), "{problem}");
    }

    /// Returns the file with another text in its metadata, and the right checksum.
    fn with(key: &str, text: &str) -> Vec<u8> {
        let good = bytes();
        let (_, header) = SafeTensors::read_metadata(&good).unwrap();
        let mut metadata = header.metadata().clone().unwrap();
        metadata.insert(key.to_owned(), text.to_owned());
        let file = SafeTensors::deserialize(&good).unwrap();
        seal(metadata, &file.tensors().into_iter().collect())
    }

    #[test]
    fn other_files_are_refused_by_what_they_are() {
        let problem = |bytes: &[u8]| decode(bytes).unwrap_err();
        assert!(problem(b"LNCK\x03").starts_with("the checkpoint of an earlier release"));
        assert!(
            problem(b"LNET....plus").starts_with("not a checkpoint (starts with [4c, 4e, 45, 54])")
        );
        let weights = crate::safetensors::write_params(&initial_params(0));
        assert!(problem(&weights).starts_with("a safetensors file without"));
        assert!(
            problem(&with("format", "lenet checkpoint 5"))
                .starts_with("its format is \"lenet checkpoint 5\"")
        );
        assert!(problem(&with("fingerprint", "0")).starts_with("of another network"));
        assert!(problem(&with("position", "step = 3")).starts_with("damaged: position: "));
        assert!(problem(&with("config", "lr = \"no\"")).starts_with("damaged: settings: "));
    }

    /// Does with the settings and the measurements what a training does that continues.
    fn resume(checkpoint: &Checkpoint) {
        let Checkpoint {
            config: Config { settings, .. },
            state,
            progress,
        } = checkpoint;
        let labels: Vec<u8> = (0..config().data.train)
            .map(|image| (image % CLASSES) as u8)
            .collect();
        let train = Split::new(vec![0; labels.len() * size_of::<Pixels>()], labels);
        if let Some(share) = settings.val_split {
            train.share(share, settings.seed);
        }
        let plan = settings.plan();
        let steps = plan.steps(train.len());
        settings.adam(steps).coefficients(state.step + 1);
        checkpoint.config.differences(&config());
        progress.is_exhausted(plan.patience, &train);
    }

    #[test]
    fn settings_and_counts_that_no_training_has_are_refused() {
        for (key, from, to, problem) in [
            (
                "config",
                "batch_size = 32",
                "batch_size = 0",
                "its batch size is 0",
            ),
            (
                "config",
                "devices = 1",
                "devices = 0",
                "its number of devices is 0",
            ),
            (
                "config",
                "devices = 1",
                "devices = 1\naverage = 0",
                "its number of steps to average is 0",
            ),
            (
                "config",
                "devices = 1",
                "devices = 1\nval_split = 5.0",
                "its share of validation images is not",
            ),
            (
                "config",
                "devices = 1",
                "devices = 1\nval_split = nan",
                "its share of validation images is not",
            ),
            (
                "config",
                "train = 96",
                "train = 9223372036854775807",
                "contradict",
            ),
            (
                "position",
                "correct = 3",
                "correct = 4294967295",
                "contradict",
            ),
            (
                "position",
                "images = 32",
                "images = 4294967295",
                "contradict",
            ),
            ("position", "steps = 1", "steps = 2", "contradict"),
        ] {
            let good = bytes();
            let (_, header) = SafeTensors::read_metadata(&good).unwrap();
            let text = &header.metadata().as_ref().unwrap()[key];
            assert!(text.contains(from), "{from} in {text}");
            let found = decode(&with(key, &text.replacen(from, to, 1))).unwrap_err();
            assert!(
                found.starts_with("damaged: its ") && found.contains(problem),
                "{to}: {found}"
            );
        }
    }

    /// Any position with a right checksum gives an error or a checkpoint, never a panic, not even when a training continues.
    #[test]
    fn nonsense_with_a_right_checksum_is_no_panic() {
        let good = bytes();
        let (_, header) = SafeTensors::read_metadata(&good).unwrap();
        let metadata = header.metadata().as_ref().unwrap();
        let mut rng = generator(1, 0);
        let (mut refused, mut read) = (0, 0);
        for n in 0..400 {
            let key = ["config", "position"][n % 2];
            let mut text = metadata[key].clone().into_bytes();
            let at = rng.next_u32() as usize % text.len();
            text[at] = b' ' + (rng.next_u32() % 95) as u8;
            match decode(&with(key, str::from_utf8(&text).unwrap())) {
                Ok(checkpoint) => {
                    resume(&checkpoint);
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 50 && read > 50, "{refused} refused, {read} read");
    }
}
