//! Trains LeNet and writes its weights: data set, gradients, Adam, backends, files.
//!
//! The network itself, and the forward pass that a board runs, are in `lenet_core`.
//!
//! | module | contents |
//! |---|---|
//! | [`dataset`] | finds and reads the data set, and orders the images of an epoch |
//! | [`init`], [`loss`], [`adam`] | the initial parameters, the cross-entropy loss, the optimiser |
//! | [`backend`] | the trait [`backend::Backend`], which runs whole training steps |
//! | [`mod@reference`] | a simple backend, against which the others are tested |
//! | [`cpu`] | the backend for all cores of the CPU |
//! | `cuda` | the backend for NVIDIA GPUs (feature `cuda`) |
//! | [`threads`] | thread pools, and the error if the system refuses threads |
//! | [`train`] | the epoch loop over a backend |
//! | [`mod@bench`] | measures the speed, and compares it with the machine's peak |
//! | [`config`] | the settings of a run |
//! | [`checkpoint`] | saves and loads what a training needs to continue |
//! | [`mod@forward`] | the forward pass of `lenet_core`, compiled for the vectors of this CPU |
//! | [`evaluate`] | the accuracy and the confusion matrix |
//! | [`classes`] | matches the classes of weights and data by name |
//! | [`run`], [`output`] | the folder of a training run; atomic writing of files |
//! | [`signals`] | catches the signals that ask the program to end |
//! | [`report`] | pictures of a run, and a page with all of them |
//! | [`model`] | a weights file in f32 or int8 |
//! | [`weights_file`] | weights files on the host, also read from other formats |
//! | [`safetensors`], [`npz`], [`onnx`], [`c_header`] | the formats of other programs |
//! | [`normalize`] | adapts weights that were trained on normalized images |
//! | [`quantize`] | converts parameters from f32 to 8-bit integers |
//! | [`device`] | communicates with a real board, or with one emulated by QEMU |
//! | [`commands`] | the command line, one file per subcommand; only these print results |

#![warn(missing_docs)]

#[doc(hidden)]
pub use bytemuck;

pub mod adam;
pub mod backend;
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
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dataset;
#[cfg(feature = "program")]
pub mod device;
pub mod error;
pub mod evaluate;
mod foreign;
pub mod forward;
pub mod init;
pub mod loss;
pub mod model;
#[cfg(test)]
mod networks;
pub mod normalize;
pub mod npz;
pub mod onnx;
pub mod output;
pub mod quantize;
pub mod reference;
#[cfg(feature = "program")]
pub mod report;
#[cfg(feature = "program")]
pub mod run;
pub mod safetensors;
#[cfg(feature = "program")]
pub mod signals;
mod state_dict;
pub mod threads;
pub mod train;
pub mod weights_file;
