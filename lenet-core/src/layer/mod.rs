//! The kinds of layers that a description can name, one module each.
//!
//! Every kind has the same items, so that the macros that expand a description need not tell the kinds apart:
//!
//! | item | is |
//! |---|---|
//! | `Spec` | the fields that a description may set, with their defaults, and the checks of their values |
//! | `Array` | the type of its inputs and outputs |
//! | `Weight` | the type of its weight |
//! | `zeros` | an array of zeros |
//! | `forward` | the kernel: input, weight and bias to output, pooling and activation included |

pub mod conv2d;
pub mod linear;

pub use crate::ops::Activation;
use crate::plan::Layer;

/// Pooling after a convolution: what becomes of each window of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// No pooling.
    Whole,
    /// The largest value of each window of this side, then the activation.
    Max(usize),
    /// The activation, then the mean of each window of this side.
    Average(usize),
}

impl Pool {
    /// Returns the side of the window, which is also the stride; 1 without pooling.
    pub const fn window(self) -> usize {
        match self {
            Self::Whole => 1,
            Self::Max(n) | Self::Average(n) => n,
        }
    }
}

/// A layer as a type, so that kernels are compiled for its padding, pooling and activation. Its sizes are in the types of
/// the kernel's arguments.
pub trait Layered: Copy {
    /// The layer.
    const LAYER: Layer;
}
