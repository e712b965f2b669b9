//! Why something failed, in a sentence for the person at the terminal: the file, what was found, what was expected,
//! and what to do.

use lenet_core::weights::{EncodeError, WeightsError};
use std::path::{Path, PathBuf};

/// Why the trainer could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {action}: {source}", path = path.display())]
    Io {
        /// What was tried, such as `cannot be read`.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// None of the places that may hold a data set has one.
    #[error(
        "no data set found. Looked in:\n{searched}Name a folder that has one: --data DIR. Debian: apt install \
         dataset-fashion-mnist"
    )]
    NoDataset {
        /// A line for each place.
        searched: String,
    },
    /// A folder lacks one of the four files.
    #[error(
        "{folder}: no {name}, gzipped or not. The folder has {there}. A data set is four IDX files: \
         train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or the first \
         two with --test-split)",
        folder = folder.display()
    )]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The file's usual name without `.gz`.
        name: &'static str,
        /// What lies there instead.
        there: String,
    },
    /// A file of the data set is not what it should be.
    #[error("{path}: {problem}", path = path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, what was expected, what to do.
        problem: String,
    },
    /// A weights file is not usable.
    #[error("{path}: {source}{hint}", path = path.display(), hint = weights_hint(source))]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WeightsError,
    },
    /// Parameters that come from another program are not usable.
    #[error("{path}: {problem}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Parameters cannot be written as a weights file.
    #[error("{path}: the weights cannot be written: {source}", path = path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: EncodeError,
    },
    /// Weights and data have other classes.
    #[error(
        "{path}: does not know these classes of {data}: {missing}; it knows {known}. Give both the same names (folders or \
         classes.txt), or take label n for output n with --ignore-class-names",
        path = path.display()
    )]
    Classes {
        /// The weights file.
        path: PathBuf,
        /// The data set's name.
        data: String,
        /// The classes that the weights know.
        known: String,
        /// Those of the data that they do not know.
        missing: String,
    },
    /// The output exists already.
    #[error("{path}: already exists and is not overwritten; choose another name or remove it", path = path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// Another training writes into the folder.
    #[error(
        "{path}: another training{by} is writing into this folder; wait until it has ended, or choose another folder",
        path = path.display(), by = process.map_or(String::new(), |id| format!(" (process {id})"))
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other training's process, where it is known.
        process: Option<u32>,
    },
    /// The loss is no number any more.
    #[error(
        "epoch {epoch}, batch {batch}: loss is {loss}. Training diverged; try a smaller --lr (it is {lr}). {kept}",
        kept = kept(last_good.as_deref())
    )]
    Diverged {
        /// Counted from 1.
        epoch: u32,
        /// Counted from 1.
        batch: usize,
        /// NaN or infinite.
        loss: f32,
        /// The learning rate.
        lr: f64,
        /// The checkpoint from before, if there is one.
        last_good: Option<PathBuf>,
    },
    /// A checkpoint is not usable.
    #[error("{path}: {problem}", path = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, what was expected, what to do.
        problem: String,
    },
    /// The training was told to stop, and can go on.
    #[error(
        "stopped in epoch {epoch} after batch {batch}; continue with: trainer train --resume {run}",
        run = run.display()
    )]
    Stopped {
        /// Counted from 1.
        epoch: usize,
        /// Batches of that epoch that were trained on.
        batch: usize,
        /// The run's folder.
        run: PathBuf,
    },
    /// The settings do not fit the data or each other.
    #[error("{0}")]
    Settings(String),
    /// The parameters loaded do not compute what the file says they should.
    #[error("{path}: {source}. This build does not compute what the writer of the file did; please report it", path = path.display())]
    SelfTest {
        /// The weights file.
        path: PathBuf,
        /// The first difference.
        source: lenet_core::self_test::SelfTestError,
    },
    /// The backend asked for cannot be had, or failed.
    #[error("{0}")]
    Backend(String),
    /// A board could not be asked.
    #[cfg(feature = "program")]
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// Two computations of the same thing give other values: board and host, or what `compare` was given.
    #[error("{0}")]
    Mismatch(String),
    /// No GPU can be used, or one failed.
    #[error("{cause}. {remedy}")]
    Cuda {
        /// What is missing, or what was tried and the driver's reason.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl Error {
    /// 1: it failed; 2: the settings make no sense, as for arguments that clap refuses; 3: what was compared differs;
    /// 130: it was told to stop; 141: its output was closed, as for programs that the signal of that ends.
    pub fn exit_code(&self) -> std::process::ExitCode {
        match self {
            Self::Settings(_) => 2.into(),
            Self::Mismatch(_) => 3.into(),
            #[cfg(feature = "program")]
            Self::Device(error) if error.is_mismatch() => 3.into(),
            Self::Stopped { .. } => 130.into(),
            error if error.is_closed_pipe() => 141.into(),
            _ => 1.into(),
        }
    }

    /// Whether nobody reads the output any more, such as `head`, which has seen enough.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// For `map_err`: an [`Error::Io`] with its action and path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// What is there after training diverged.
fn kept(last_good: Option<&Path>) -> String {
    match last_good {
        None => "Nothing was written".to_owned(),
        Some(path) => format!("Last good checkpoint: {}", path.display()),
    }
}

/// What to do about a weights file that was refused.
fn weights_hint(error: &WeightsError) -> &'static str {
    match error {
        WeightsError::Magic {
            found: [0x50, 0x4b, ..] | [0x80, ..],
        } => {
            ". It looks like a PyTorch pickle, which is not read because it can run code; save it as safetensors: \
             safetensors.torch.save_file(net.state_dict(), \"net.safetensors\")"
        }
        WeightsError::Version { .. } => {
            "; use the release of the program that wrote it, or train again"
        }
        WeightsError::Truncated { .. }
        | WeightsError::Checksum { .. }
        | WeightsError::TrailingBytes { .. } => "; copy it again from where it came",
        _ => "",
    }
}
