//! Code that tests share: generated inputs, simple implementations in f64 and i64 to compare with, PyTorch's
//! results, both ends of the link, an interpreter for PTX, and the tolerances.

#![warn(missing_docs)]

pub mod fixtures;
pub mod generate;
#[path = "../../../lenet-core/src/int8/plain.rs"]
pub mod int8;
pub mod link;
pub mod machine;
#[cfg(feature = "networks")]
#[macro_use]
pub mod networks;
pub mod oracle;
pub mod tolerance;
