//! The choice of a version of the vector type at run time.

#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable::Portable;
use super::{Kernel, Simd};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use std::fmt;
use std::str::FromStr;

/// An instruction set that this CPU has, with its version of the vector type.
#[derive(Clone, Copy)]
pub struct Isa(Version);

#[derive(Clone, Copy)]
enum Version {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Isa {
    /// Returns the versions that this CPU can run, slowest first. `portable` is always among them.
    pub fn available() -> Vec<Self> {
        let versions = [
            Some(Version::Portable(Portable)),
            #[cfg(target_arch = "x86_64")]
            avx2::Avx2::detect().map(Version::Avx2),
            #[cfg(target_arch = "x86_64")]
            avx512::Avx512::detect().map(Version::Avx512),
            #[cfg(target_arch = "aarch64")]
            neon::Neon::detect().map(Version::Neon),
        ];
        versions.into_iter().flatten().map(Self).collect()
    }

    /// Returns the fastest version that this CPU can run.
    pub fn fastest() -> Self {
        Self::available()
            .pop()
            .expect("the portable version runs everywhere")
    }

    /// Returns `portable`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Version::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Version::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Version::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Version::Neon(_) => "neon",
        }
    }

    /// Runs a kernel.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Version::Portable(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Version::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Version::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Version::Neon(simd) => simd.run(kernel),
        }
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    /// Parses a [`name`](Self::name). The error lists what this CPU has.
    fn from_str(name: &str) -> Result<Self, String> {
        let available = Self::available();
        available
            .iter()
            .find(|isa| isa.name() == name)
            .copied()
            .ok_or_else(|| {
                let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
                format!(
                    "this CPU has no version {name:?}; choose one of {}",
                    names.join(", ")
                )
            })
    }
}
