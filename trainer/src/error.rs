//! The trainer's errors. Each message is for the person at the terminal, and names the file, what was found, what was expected,
//! and what to do.

use lenet_core::weights::{EncodeError, WeightsError};
use std::path::{Path, PathBuf};

/// The error returned when the trainer cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system reported an error.
    #[error("{path}: {action}: {source}", path = path.display())]
    Io {
        /// The failed action, such as `cannot be read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// No data set was found in any of the places searched.
    #[error(
        "no data set found. Looked in:\n{searched}Name a folder that has one: --data DIR. Debian: apt install \
         dataset-fashion-mnist"
    )]
    NoDataset {
        /// The places, one per line.
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
        /// The folder's content.
        there: String,
    },
    /// A file of the data set is invalid.
    #[error("{path}: {problem}", path = path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, what was expected, what to do.
        problem: String,
    },
    /// A weights file cannot be used.
    #[error("{path}: {source}{hint}", path = path.display(), hint = weights_hint(source))]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WeightsError,
    },
    /// Parameters from another program cannot be used.
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
        /// The reason.
        source: EncodeError,
    },
    /// The weights and the data have different classes.
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
        /// The classes of the weights.
        known: String,
        /// The classes of the data that the weights lack.
        missing: String,
    },
    /// The output already exists.
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
        /// The process of the other training, if known.
        process: Option<u32>,
    },
    /// The loss is no longer finite.
    #[error(
        "epoch {epoch}, batch {batch}: loss is {loss}. Training diverged; try a smaller {lr}. {kept}",
        lr = lr.map_or("learning rate".to_owned(), |lr| format!("--lr (it is {lr})")),
        kept = kept(last_good.as_deref())
    )]
    Diverged {
        /// Counted from 1.
        epoch: u32,
        /// Counted from 1.
        batch: usize,
        /// The loss: NaN or infinite.
        loss: f32,
        /// The learning rate of the command line, if it came from there.
        lr: Option<f64>,
        /// The last checkpoint before that, if there is one.
        last_good: Option<PathBuf>,
    },
    /// A checkpoint cannot be used.
    #[error("{path}: {problem}", path = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, what was expected, what to do.
        problem: String,
    },
    /// The training was stopped, and can continue.
    #[error(
        "stopped in epoch {epoch} after batch {batch}; continue with: trainer train --resume {run}",
        run = run.display()
    )]
    Stopped {
        /// Counted from 1.
        epoch: usize,
        /// The number of batches of that epoch that are done.
        batch: usize,
        /// The run's folder.
        run: PathBuf,
    },
    /// The settings do not fit the data or each other.
    #[error("{0}")]
    Settings(String),
    /// The loaded parameters fail the self-test of their file.
    #[error("{path}: {source}. This build does not compute what the writer of the file did; please report it", path = path.display())]
    SelfTest {
        /// The weights file.
        path: PathBuf,
        /// The first difference.
        source: lenet_core::self_test::SelfTestError,
    },
    /// The chosen backend is not available, or failed.
    #[error(transparent)]
    Backend(#[from] crate::backend::Error),
    /// The communication with a board failed.
    #[cfg(feature = "program")]
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// Two computations that should agree give different values: board and host, or the inputs of `compare`.
    #[error("{0}")]
    Mismatch(String),
}

impl Error {
    /// Returns 1 for a failure, 2 for invalid settings (as clap does for arguments), 3 if compared values differ, 130 if the
    /// training was stopped, and 141 if the output was closed (as for programs ended by SIGPIPE).
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

    /// Returns whether the reader of the output has closed it, as `head` does.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Returns a function for `map_err` that makes an [`Error::Io`] with this action and path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Describes what is left after the training diverged.
fn kept(last_good: Option<&Path>) -> String {
    match last_good {
        None => "Nothing was written".to_owned(),
        Some(path) => format!("Last good checkpoint: {}", path.display()),
    }
}

/// Returns what to do about a weights file that was refused.
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
