//! Small convolutional networks for microcontrollers and hosts: fixed-size f32 forward kernels, the network, its weights file.
//!
//! The principles of this crate:
//! 1. **The same bits everywhere.** Each sum has one written-down order, a product and a sum are rounded
//!    separately (no fused multiply-add), and `exp` has the bits of `libm::expf` on every target, so that a host and a board
//!    compute equal logits, not similar ones. (Where a computation overflows to NaN, the NaN's payload is the machine's.)
//! 2. **Shapes live in types.** A wrong shape does not compile, so the kernels have no errors to return.
//! 3. **Nothing is owned.** Parameters are borrowed, from flash on a board; scratch belongs to the caller.
//! 4. **Nothing panics.** No unsafe code, no heap, no std; on the board's build no panic can be linked.
//!
//! Arrays are channels first, `(C, H, W)`; weights are `(C_OUT, C_IN, K, K)` and `(OUT, IN)`.
//!
//! `Classifier` (feature `weights`) is the way in: a weights file, in flash, with the memory it needs, that classifies images.
//!
//! A network is described once, in some ten lines, and everything else follows from the description when the crate is
//! compiled: see [`network!`]. The module [`network`](mod@network) holds the network that the build is for.
//!
//! | module | holds |
//! |---|---|
//! | [`network`](mod@network) | the network that this build is for: its types, its tables, its forward pass |
//! | [`layer`] | the kinds of layers that a description can name |
//! | [`int8`] | the same networks in 8-bit integers: arithmetic and kernels |
//! | [`plan`] | shapes, checks, tables and fingerprint, computed by the compiler |
//! | [`ops`] | operations on arrays |
//! | [`image`] | from a camera's frame to stored pixels, and from those to what a network sees |
//! | [`self_test`] | a built-in pattern and what the network makes of it, to prove a machine at power-on |
//! | `weights` | the weights file, read in place (feature `weights`) |
//! | `link` | messages between a host and a board (feature `link`) |

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_endian = "little"))]
compile_error!("the weights file holds little-endian f32 and is read in place");

// `network!` writes `lenet_core::bytemuck` in an attribute, in whose string `$crate` cannot stand.
extern crate self as lenet_core;

#[doc(hidden)]
pub use bytemuck;

#[cfg(feature = "weights")]
mod checksum;
#[cfg(feature = "weights")]
mod classifier;
#[macro_use]
mod describe;
pub mod image;
#[macro_use]
pub mod int8;
pub mod layer;
#[cfg(feature = "link")]
pub mod link;
pub mod network;
pub mod ops;
pub mod plan;
pub mod self_test;
#[cfg(feature = "weights")]
pub mod weights;

#[cfg(feature = "weights")]
pub use classifier::{Classification, Classifier, LoadError, Scratch};
pub use describe::{Elements, Network, Numbers, Outputs};

// Its example is compiled and run with the documentation's.
#[cfg(all(doctest, feature = "weights"))]
#[doc = include_str!("../README.md")]
struct Readme;
