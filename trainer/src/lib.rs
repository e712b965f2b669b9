//! Trains LeNet and writes its weights: data set, gradients, Adam, backends, files.
//!
//! The network itself, and the forward pass that a board runs, are in `lenet_core`.
//!
//! | module | holds |
//! |---|---|
//! | [`dataset`] | where the data is found, the IDX reader, the order of an epoch |
//! | [`init`], [`loss`], [`adam`] | starting parameters, cross-entropy, the optimiser |
//! | [`backend`] | the seam: a [`backend::Backend`] does whole training steps |
//! | [`mod@reference`] | the obvious backend, the oracle for the others |
//! | [`cpu`] | the backend for all cores |
//! | `cuda` | the backend for an NVIDIA GPU (feature `cuda`) |
//! | [`threads`] | thread pools, and what to say where there can be none |
//! | [`train`] | the epoch loop over a backend |
//! | [`mod@bench`] | how fast it is here, and what the machine could do |
//! | [`config`] | the settings of a run |
//! | [`checkpoint`] | what a training needs to go on |
//! | [`mod@forward`] | the forward pass of `lenet_core` with the vectors of this CPU |
//! | [`evaluate`] | accuracy and confusion |
//! | [`classes`] | which classes of two sides have the same name |
//! | [`run`], [`output`] | the folder that a training run leaves; files that appear whole |
//! | [`signals`] | requests to end, and which of them are to be ignored |
//! | [`report`] | pictures of a run, and a page with all of them |
//! | [`model`] | a weights file of either kind of numbers |
//! | [`weights_file`] | parameters on disk: the project's file, and what can be read in its place |
//! | [`safetensors`], [`npz`], [`onnx`], [`c_header`] | parameters for and from other programs |
//! | [`normalize`] | weights that were trained on normalized images |
//! | [`quantize`] | from f32 to 8-bit integers |
//! | [`device`] | a board, real or emulated: asked over the link, or started in QEMU |
//! | [`commands`] | the command line, one file a subcommand; only these print |

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
