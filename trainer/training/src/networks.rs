//! The default network for unit tests, whatever network the build is for.

#![allow(missing_docs)]

macro_rules! network {
    ($($description:tt)*) => { lenet_core::network! { $($description)* } };
}

#[path = "../../../lenet-core/networks/lenet.rs"]
pub mod lenet;

/// Returns all parameters as one slice.
pub fn flat<P: bytemuck::Pod>(params: &P) -> &[f32] {
    bytemuck::cast_slice(std::slice::from_ref(params))
}
