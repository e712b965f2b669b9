//! Operations on arrays, independent of layers and networks.
//!
//! The compiler checks sizes, which are const generics. The arguments are the inputs, the parameters and then the output.
//! Every sum starts from the bias and adds its terms in a documented order. Each product is rounded before it is added.
//!
//! [`conv2d`], [`max_pool2d`] and [`average_pool2d`] are plain loops. They define what the optimized kernel in
//! [`layer::conv2d`](crate::layer::conv2d) must compute. Layers use [`linear`] and [`Activation`] directly.
//!
//! On hosts these functions are inlined, so that they are compiled with the target features of their caller.

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

/// Whether the kernels are compiled for a microcontroller: they then use few registers and as little code and stack as
/// possible. On hosts they use loops that the compiler vectorizes. Both variants give the same bits.
pub(crate) const SMALL: bool = cfg!(target_os = "none");
