//! What the tests in `tests/` share: inputs by kind, naive oracles in f64 and i64, PyTorch's fixtures, both ends of the link,
//! and the tolerances.

#![warn(missing_docs)]

pub mod fixtures;
pub mod generate;
pub mod int8;
pub mod link;
#[macro_use]
pub mod networks;
pub mod oracle;
pub mod tolerance;
