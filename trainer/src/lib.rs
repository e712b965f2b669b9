//! Trains LeNet on the command line: finds and reads a data set, trains, and writes a run with its weights and its report.
//!
//! The network itself, and the forward pass that a board runs, are in `lenet_core`. What a training computes (gradients, Adam, the
//! CPU's kernels, quantization) is in `lenet_training`, whose modules are available here, too.
//!
//! | module | contents |
//! |---|---|
//! | [`dataset`] | finds, reads and checks a data set |
//! | `cuda` | the backend for NVIDIA GPUs (feature `cuda`) |
//! | [`train`] | the epoch loop over a backend |
//! | [`mod@bench`] | measures the speed, and compares it with the machine's peak |
//! | [`config`] | the settings of a run |
//! | [`checkpoint`] | saves and loads what a training needs to continue |
//! | [`evaluate`] | the accuracy and the confusion matrix |
//! | [`classes`] | matches the classes of weights and data by name |
//! | [`run`], [`output`] | the folder of a training run; atomic writing of files |
//! | [`signals`] | catches the signals that ask the program to end |
//! | [`report`] | pictures of a run, and a page with all of them |
//! | [`model`] | a weights file in f32 or int8 |
//! | [`weights_file`] | weights files on the host, also read from other formats |
//! | [`safetensors`], [`npz`], [`onnx`], [`c_header`] | the formats of other programs |
//! | [`normalize`] | adapts weights that were trained on normalized images |
//! | [`device`] | communicates with a real board, or with one emulated by QEMU |
//! | [`commands`] | the command line, one file per subcommand; only these print results |

#![warn(missing_docs)]

pub use lenet_training::{
    adam, backend, cpu, forward, gradient, init, loss, passes, quantize, reference, reversed,
    threads,
};

pub mod bench;
pub mod c_header;
#[cfg(feature = "program")]
pub mod checkpoint;
#[cfg(feature = "program")]
mod claim;
pub mod classes;
#[cfg(feature = "program")]
pub mod commands;
#[cfg(feature = "program")]
pub mod config;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dataset;
#[cfg(feature = "program")]
pub mod device;
pub mod error;
pub mod evaluate;
mod foreign;
pub mod model;
#[cfg(test)]
mod networks;
pub mod normalize;
pub mod npz;
pub mod onnx;
pub mod output;
#[cfg(feature = "program")]
pub mod report;
#[cfg(feature = "program")]
pub mod run;
pub mod safetensors;
#[cfg(feature = "program")]
pub mod signals;
mod state_dict;
pub mod train;
pub mod weights_file;
