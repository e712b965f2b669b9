//! The kernels: arrays in, arrays out. They know nothing of the network.
//!
//! Sizes are const generics, checked when compiled. Arguments: inputs, parameters, then `out`, the one thing written.
//! Every sum starts from the bias and takes its terms in a stated order, each product rounded before it is added.
//!
//! On hosts they are inlined, so that a caller compiled for more than the least CPU has them compiled for that too.

mod conv2d;
mod conv_pool_sigmoid;
mod linear;
mod max_pool2d;
mod sigmoid;
mod softmax;

pub use conv_pool_sigmoid::conv_pool_sigmoid;
pub use conv2d::conv2d;
pub use linear::linear;
pub use max_pool2d::max_pool2d;
pub use sigmoid::{sigmoid, sigmoid_in_place};
pub use softmax::softmax;
