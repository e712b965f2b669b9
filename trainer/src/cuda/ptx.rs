//! The kernels of a network, compiled: those in the tree for the networks of lenet-core, or what NVRTC makes of the source.

use super::layout::Layout;
use super::nvrtc;
use crate::error::Error;
use lenet_core::Network;
use std::borrow::Cow;

/// The kernels in the tree, by the network's name, for any GPU from Volta on and any driver from CUDA 12.0 on (525, end of
/// 2022). A test compiles them again and compares.
pub const SHIPPED: [(&str, &str); 5] = [
    ("lenet", include_str!("ptx/lenet.ptx")),
    ("lenet-d2l", include_str!("ptx/lenet-d2l.ptx")),
    ("relu", include_str!("ptx/relu.ptx")),
    ("color", include_str!("ptx/color.ptx")),
    ("tiny", include_str!("ptx/tiny.ptx")),
];

/// How a file in the tree begins; the fingerprint follows in 16 digits. A changed network does not get the kernels of the one
/// before.
const HEADER: &str = "// The kernels for the network of fingerprint ";

/// Returns the kernels in the tree for the network of this fingerprint, if there are any.
pub const fn shipped(fingerprint: u64) -> Option<&'static str> {
    let mut i = 0;
    while i < SHIPPED.len() {
        let (_, ptx) = SHIPPED[i];
        if header_fingerprint(ptx.as_bytes()) == fingerprint {
            return Some(ptx);
        }
        i += 1;
    }
    None
}

const fn header_fingerprint(ptx: &[u8]) -> u64 {
    let (mut fingerprint, mut i) = (0, 0);
    while i < 16 && HEADER.len() + i < ptx.len() {
        let digit = ptx[HEADER.len() + i];
        let value = if digit <= b'9' {
            digit - b'0'
        } else {
            digit - b'a' + 10
        };
        fingerprint = fingerprint << 4 | value as u64;
        i += 1;
    }
    fingerprint
}

/// The kernels of a network, and the sizes that they are compiled for.
pub struct Kernels {
    layout: Layout,
    ptx: Cow<'static, str>,
}

impl Kernels {
    /// Returns the kernels in the repository if there are any for this network, and compiles them otherwise.
    ///
    /// # Errors
    /// `Cuda`: they are to be compiled, and there is no NVRTC
    pub fn of<N: Network>() -> Result<Self, Error> {
        match const { shipped(N::FINGERPRINT) } {
            Some(ptx) => Ok(Self {
                layout: Layout::of::<N>(),
                ptx: ptx.into(),
            }),
            None => Self::compiled::<N>(),
        }
    }

    /// Compiles them now.
    ///
    /// # Errors
    /// `Cuda`: there is no NVRTC, or it refuses the source
    pub fn compiled<N: Network>() -> Result<Self, Error> {
        let layout = Layout::of::<N>();
        let ptx = nvrtc::compile(layout.name(), &layout.source())?;
        let ptx = format!("{HEADER}{:016x}\n{ptx}", layout.fingerprint()).into();
        Ok(Self { layout, ptx })
    }

    /// Returns the sizes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the kernels as PTX.
    pub fn ptx(&self) -> &str {
        &self.ptx
    }
}
