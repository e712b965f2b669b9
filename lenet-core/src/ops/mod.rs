//! Operations on arrays, which know nothing of layers or networks.
//!
//! Sizes are const generics, checked when compiled. Arguments: inputs, parameters, then `out`, the one thing written.
//! Every sum starts from the bias and takes its terms in a stated order, each product rounded before it is added.
//!
//! [`conv2d`], [`max_pool2d`] and [`average_pool2d`] are plain loops: the definitions that the kernel of a layer
//! ([`layer::conv2d`](crate::layer::conv2d)) is tested against. [`linear`] and [`Activation`] are what layers use.
//!
//! On hosts they are inlined, so that a caller compiled for more than the least CPU has them compiled for that too.

mod activation;
mod conv2d;
mod linear;
mod pool2d;
mod softmax;

pub use activation::{Activation, relu, sigmoid, tanh};
pub use conv2d::conv2d;
pub use linear::linear;
pub(crate) use pool2d::first_max;
pub use pool2d::{average_pool2d, max_pool2d};
pub use softmax::{argmax, probability, softmax};

/// Whether the kernels are compiled for a microcontroller: one value at a time in few registers, as little code and stack as
/// possible. Hosts get loops that become vectors. The results are the same bits.
pub(crate) const SMALL: bool = cfg!(target_os = "none");
