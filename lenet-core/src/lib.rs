//! Runs small convolutional networks on microcontrollers and hosts: inference kernels, networks and the weights file.
//!
//! The principles of this crate:
//! 1. **The same bits everywhere.** Every sum adds its terms in a documented order. Products and sums are rounded
//!    separately (no fused multiply-add), and `exp` returns the bits of `libm::expf` on every target. A host and a board
//!    therefore compute equal logits. (Only the payload of a NaN depends on the machine.)
//! 2. **Shapes are part of the types.** A wrong shape does not compile, so the kernels have no errors to return.
//! 3. **Nothing is owned.** Parameters are borrowed, on a board from flash. The caller provides the scratch memory.
//! 4. **Nothing panics.** There is no unsafe code, no heap and no std. The linker checks that no panic is reachable on a board.
//!
//! Arrays are channels first, `(C, H, W)`; weights are `(C_OUT, C_IN, K, K)` and `(OUT, IN)`.
//!
//! Start with `Classifier` (feature `weights`): it classifies images with a weights file, which may stay in flash.
//!
//! You describe a network once, in about ten lines, and the macro [`network!`] derives everything else at compile time.
//! The module [`network`](mod@network) holds the network that the crate is built for.
//!
//! | module | contents |
//! |---|---|
//! | [`network`](mod@network) | the network that the crate is built for: its types, its tables, its forward pass |
//! | [`layer`] | the kinds of layers that a description can use |
//! | [`int8`] | the same networks in 8-bit integers: arithmetic and kernels |
//! | [`plan`] | shapes, checks, tables and fingerprint, computed at compile time |
//! | [`ops`] | operations on arrays |
//! | [`image`] | converts a camera's frame to pixels, and pixels to the input of a network |
//! | [`self_test`] | the power-on self-test, which compares the logits of a built-in pattern with the expected ones |
//! | `weights` | the weights file, read in place (feature `weights`) |
//! | `link` | messages between a host and a board (feature `link`) |

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(target_endian = "little"))]
compile_error!("the weights file holds little-endian f32 and is read in place");

// `network!` writes `lenet_core::bytemuck` into an attribute's string, where `$crate` is not expanded.
extern crate self as lenet_core;
#[cfg(test)]
extern crate std;

#[doc(hidden)]
pub use bytemuck;

// The modules with macros stand before those that use them.
#[macro_use]
mod describe;
#[macro_use]
pub mod int8;

#[cfg(feature = "weights")]
mod checksum;
#[cfg(feature = "weights")]
mod classifier;
pub mod image;
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

// Includes the examples of the README in the documentation tests.
#[cfg(all(doctest, feature = "weights"))]
#[doc = include_str!("../README.md")]
struct Readme;
