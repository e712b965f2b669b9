//! The data set on the host: finding it, reading its files and checking it. Images in memory and the order in which they are
//! visited are in [`lenet_training::dataset`], whose items are available here, too.

pub mod check;
mod folder;
#[cfg_attr(not(feature = "program"), path = "no_image.rs")]
mod image;
mod listing;
mod locate;
mod names;
mod shape;
mod source;
mod table;

pub use self::image::{Image, read_image};
pub use lenet_pictures::ImageOptions;
pub use lenet_training::dataset::{
    Augment, MAX_SHIFT, Order, Permutation, ROUNDS, Split, generator,
};
pub use source::{Dataset, FASHION_MNIST_CLASSES, ReadOptions, find, hex, open};
