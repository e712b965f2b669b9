//! Provides the compiled kernels of a network. Those of lenet-core's networks are part of the program; the kernels of any other
//! network are compiled by NVRTC.

use super::layout::Layout;
use super::nvrtc;
use crate::backend::Error;
use lenet_core::Network;
use std::borrow::Cow;

/// The names of lenet-core's networks and their kernels, which run on any GPU since Volta with a driver for CUDA 12.0 or later
/// (version 525, end of 2022). A test compiles them again and compares.
pub const SHIPPED: [(&str, &str); 5] = [
    ("lenet", include_str!("ptx/lenet.ptx")),
    ("lenet-d2l", include_str!("ptx/lenet-d2l.ptx")),
    ("relu", include_str!("ptx/relu.ptx")),
    ("color", include_str!("ptx/color.ptx")),
    ("tiny", include_str!("ptx/tiny.ptx")),
];

/// The beginning of each PTX file, followed by the network's fingerprint in 16 hexadecimal digits. Because of the fingerprint,
/// kernels that were compiled before a network changed are not used for it.
const HEADER: &str = "// The kernels for the network of fingerprint ";

/// Returns the kernels of the network with this fingerprint if the program contains them.
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

/// Returns the fingerprint in the header of a PTX file.
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

/// The kernels of a network, and the sizes that they were compiled for.
pub struct Kernels {
    layout: Layout,
    ptx: Cow<'static, str>,
}

impl Kernels {
    /// Returns the kernels of a network: those in the program if there are any, otherwise newly compiled ones.
    ///
    /// # Errors
    /// Those of [`compiled`](Self::compiled), if the program does not contain the kernels.
    pub fn of<N: Network>() -> Result<Self, Error> {
        match const { shipped(N::FINGERPRINT) } {
            Some(ptx) => Ok(Self {
                layout: Layout::of::<N>(),
                ptx: ptx.into(),
            }),
            None => Self::compiled::<N>(),
        }
    }

    /// Compiles the kernels of a network with NVRTC.
    ///
    /// # Errors
    /// `Cuda`: there is no NVRTC, or it cannot compile the source.
    pub fn compiled<N: Network>() -> Result<Self, Error> {
        let layout = Layout::of::<N>();
        let ptx = nvrtc::compile(layout.name(), &layout.source())?;
        let ptx = format!("{HEADER}{:016x}\n{ptx}", layout.fingerprint()).into();
        Ok(Self { layout, ptx })
    }

    /// Returns the sizes that the kernels were compiled for.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the kernels as PTX.
    pub fn ptx(&self) -> &str {
        &self.ptx
    }
}
