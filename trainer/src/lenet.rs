//! Sizes of the default network, for the backends that are written for it alone.

#![allow(missing_docs)]

pub const SIDE: usize = 28;
pub const K: usize = 5;
pub const POOL: usize = 2;
pub const C1: usize = 6;
pub const C2: usize = 16;
pub const FC1: usize = 120;
pub const FC2: usize = 84;
pub const CONV1_SIDE: usize = 24;
pub const POOL1_SIDE: usize = 12;
pub const CONV2_SIDE: usize = 8;
pub const POOL2_SIDE: usize = 4;
pub const FLAT: usize = 256;
pub const CLASSES: usize = 10;
pub const NUM_PARAMS: usize = 44_426;
/// Parameters of both convolutions.
pub const CONV_PARAMS: usize = 2_572;
/// The network's fingerprint.
pub const FINGERPRINT: u64 = 0xf057_db01_6e07_fcf2;
