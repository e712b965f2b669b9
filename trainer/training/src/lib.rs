//! Everything that a training computes: gradients, Adam, the kernels for all cores of a CPU, and the conversion to int8.
//!
//! This crate neither reads files nor prints. The crate `trainer` does, and re-exports this crate's modules. The two are separate so
//! that only this one must be compiled with optimization. Functions that take a while are therefore not generic, or are called here
//! for the network of the build: a generic function is compiled in the crate that calls it.
//!
//! | module | contents |
//! |---|---|
//! | [`dataset`] | images with labels in memory, the order of an epoch, augmentation |
//! | [`init`], [`loss`], [`adam`] | the initial parameters, the cross-entropy loss, the optimiser |
//! | [`backend`] | the trait [`backend::Backend`], which runs whole training steps |
//! | [`mod@reference`] | a simple backend, against which the others are tested |
//! | [`cpu`] | the backend for all cores of the CPU |
//! | [`threads`] | thread pools, and the error if the system refuses threads |
//! | [`mod@forward`] | the forward pass of `lenet_core`, compiled for the vectors of this CPU |
//! | [`quantize`] | converts parameters from f32 to 8-bit integers |

#![warn(missing_docs)]

#[doc(hidden)]
pub use bytemuck;

pub mod adam;
pub mod backend;
pub mod cpu;
pub mod dataset;
pub mod forward;
pub mod init;
pub mod loss;
#[cfg(test)]
mod networks;
pub mod quantize;
pub mod reference;
pub mod threads;
