//! The kinds of layers that a description can use, one module per kind.
//!
//! Every module has the same items, so that the macros that expand a description need not distinguish the kinds:
//!
//! | item | meaning |
//! |---|---|
//! | `Spec` | the fields that a description may set, with their defaults, and the checks of their values |
//! | `Array` | the type of its inputs and outputs |
//! | `Weight` | the type of its weight |
//! | `zeros` | returns an array of zeros |
//! | `forward` | the kernel, which computes the output from input, weight and bias, including pooling and activation |

pub mod conv2d;
pub mod linear;

pub use crate::ops::Activation;
use crate::plan::Layer;

/// The pooling after a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// No pooling.
    Whole,
    /// Maximum pooling with square windows of this side, then the activation.
    Max(usize),
    /// The activation, then average pooling with square windows of this side.
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

/// A layer as a type. The compiler specializes kernels for its padding, pooling and activation; the types of a kernel's
/// arguments give its sizes.
pub trait Layered: Copy {
    /// The layer.
    const LAYER: Layer;
}
