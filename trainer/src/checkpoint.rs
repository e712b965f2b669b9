//! The checkpoint, from which a training can continue: settings, parameters, moments, position, and measurements so far.
//!
//! It is a postcard message with a CRC-32, like the weights file (`lenet-core/WEIGHTS.md`), but only this program reads it:
//!
//! ```text
//! magic "LNCK", version, fingerprint of the network    13 bytes
//! settings                                             the text of config.toml
//! parameters, both moments; with --average, the mean   177,704 bytes each
//! position, sums, epochs, losses
//! with a validation split, the best result             177,704 bytes
//! CRC-32 of everything before it, little-endian        4 bytes
//! ```

use crate::backend::State;
use crate::config::Config;
use crate::error::Error;
use crate::output;
use crate::train::{Epoch, Partial, Progress};
use crc::{CRC_32_ISO_HDLC, Crc};
use lenet_core::network::{FINGERPRINT, Params};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file's name in the run's folder.
pub const NAME: &str = "last.checkpoint";

const MAGIC: [u8; 4] = *b"LNCK";
const VERSION: u8 = 3;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

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

/// The message, without its checksum.
#[derive(Serialize, Deserialize)]
struct Message<'a> {
    magic: [u8; 4],
    version: u8,
    #[serde(with = "postcard::fixint::le")]
    fingerprint: u64,
    config: &'a str,
    params: &'a [u8],
    moment1: &'a [u8],
    moment2: &'a [u8],
    mean: Option<&'a [u8]>,
    step: u64,
    partial: Partial,
    cut: bool,
    epochs: Vec<Epoch>,
    /// The bytes of f32 values.
    losses: &'a [u8],
    best: Option<&'a [u8]>,
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

fn encode(config: &Config, state: &State, progress: &Progress) -> Vec<u8> {
    let message = Message {
        magic: MAGIC,
        version: VERSION,
        fingerprint: FINGERPRINT,
        config: &config.to_toml(),
        params: bytemuck::bytes_of(&*state.params),
        moment1: bytemuck::bytes_of(&*state.moment1),
        moment2: bytemuck::bytes_of(&*state.moment2),
        mean: state.mean.as_deref().map(bytemuck::bytes_of),
        step: state.step,
        partial: progress.partial,
        cut: progress.cut,
        epochs: progress.epochs.clone(),
        losses: bytemuck::cast_slice(&progress.losses),
        best: progress.best.as_deref().map(bytemuck::bytes_of),
    };
    let mut bytes = postcard::to_stdvec(&message).expect("memory takes it");
    let crc = CRC.checksum(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// What to do about a damaged checkpoint.
const AGAIN: &str =
    "copy it again from where it came, or train again: lenet.weights beside it serves as --init";

fn decode(bytes: &[u8]) -> Result<Checkpoint, String> {
    let truncated = || format!("truncated: ends after {} bytes; {AGAIN}", bytes.len());
    let damaged = |what: &str| format!("damaged: {what}; {AGAIN}");

    let (magic, rest) = bytes.split_first_chunk().ok_or_else(truncated)?;
    if *magic != MAGIC {
        return Err(format!(
            "not a checkpoint (starts with {magic:02x?}); expected the folder of a run that has {NAME}"
        ));
    }
    let (&version, rest) = rest.split_first().ok_or_else(truncated)?;
    if version != VERSION {
        return Err(format!(
            "checkpoint format {version}, this program reads {VERSION}; continue with the release that wrote it"
        ));
    }
    let (fingerprint, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
    if u64::from_le_bytes(*fingerprint) != FINGERPRINT {
        return Err("of another network; continue with the build that wrote it".to_owned());
    }
    if rest.len() < 3 * size_of::<Params>() {
        return Err(truncated());
    }
    let (covered, crc) = bytes.split_last_chunk().ok_or_else(truncated)?;
    let (stored, computed) = (u32::from_le_bytes(*crc), CRC.checksum(covered));
    if stored != computed {
        return Err(damaged(&format!(
            "checksum {computed:08x}, expected {stored:08x}"
        )));
    }

    // The checksum is right, so decoding fails only if another program wrote the file.
    let (message, rest) = postcard::take_from_bytes::<Message<'_>>(covered)
        .map_err(|error| damaged(&error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(&format!("{} bytes follow its content", rest.len())));
    }
    let config = Config::from_toml(message.config).map_err(|problem| damaged(&problem))?;
    let params = |bytes: &[u8]| {
        let mut params: Box<Params> = bytemuck::zeroed_box();
        let out = bytemuck::bytes_of_mut(&mut *params);
        if out.len() != bytes.len() {
            return Err(damaged(&format!("{} bytes of parameters", bytes.len())));
        }
        out.copy_from_slice(bytes);
        Ok(params)
    };
    let losses = message.losses.chunks_exact(size_of::<f32>());
    let checkpoint = Checkpoint {
        state: State {
            params: params(message.params)?,
            moment1: params(message.moment1)?,
            moment2: params(message.moment2)?,
            step: message.step,
            mean: message.mean.map(params).transpose()?,
        },
        progress: Progress {
            epochs: message.epochs,
            losses: losses
                .map(|loss| f32::from_le_bytes(loss.try_into().expect("four bytes")))
                .collect(),
            partial: message.partial,
            cut: message.cut,
            best: message.best.map(params).transpose()?,
        },
        config,
    };
    match checkpoint.is_consistent() {
        true => Ok(checkpoint),
        false => Err(damaged("its counts of steps and epochs contradict")),
    }
}

impl Checkpoint {
    fn is_consistent(&self) -> bool {
        let Self {
            config,
            state,
            progress,
        } = self;
        let per_epoch = config
            .data
            .train
            .div_ceil(config.settings.batch_size.max(1) as usize);
        let position = progress.epochs.len() as u64 * per_epoch as u64;
        state.step == progress.losses.len() as u64
            && progress.partial.steps <= per_epoch
            && state.step == position + progress.partial.steps as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::dataset::generator;
    use crate::init::initial_params;
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

    #[test]
    fn a_damaged_file_is_refused_with_what_is_wrong() {
        let good = bytes();
        let changed = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            decode(&bytes).unwrap_err()
        };
        assert!(changed(0).starts_with("not a checkpoint (starts with [4d, 4e, 43, 4b])"));
        assert!(changed(4).starts_with("checkpoint format 2, this program reads 3"));
        assert!(changed(5).starts_with("of another network"));
        let mut rng = generator(0, 0);
        for _ in 0..200 {
            let at = 13 + rng.next_u32() as usize % (good.len() - 13);
            let problem = changed(at);
            assert!(
                problem.starts_with("damaged: checksum "),
                "byte {at}: {problem}"
            );
            let problem = decode(&good[..at]).unwrap_err();
            assert!(
                problem.starts_with("truncated: ") || problem.starts_with("damaged: checksum "),
                "cut at {at}: {problem}"
            );
        }
        for len in 0..13 {
            let problem = decode(&good[..len]).unwrap_err();
            assert!(problem.starts_with("truncated: ends after "), "{problem}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(decode(&longer).unwrap_err().starts_with("damaged: "));
    }

    /// Any content with a right checksum gives an error or a checkpoint, never a panic.
    #[test]
    fn nonsense_with_a_right_checksum_is_no_panic() {
        let good = bytes();
        let len = good.len() - 4;
        let config_len = example().config.to_toml().len();
        let mut rng = generator(1, 0);
        let (mut refused, mut read) = (0, 0);
        for _ in 0..1000 {
            let mut bytes = good.clone();
            // In the settings, or after the parameters.
            let at = match rng.next_u32() % 2 {
                0 => 13 + rng.next_u32() as usize % (config_len + 5),
                _ => len - 1 - (size_of::<Params>() + 3) - rng.next_u32() as usize % 90,
            };
            bytes[at] = rng.next_u32() as u8;
            let crc = CRC.checksum(&bytes[..len]).to_le_bytes();
            bytes[len..].copy_from_slice(&crc);
            match decode(&bytes) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(
            refused > 100 && read > 100,
            "{refused} refused, {read} read"
        );
    }
}
