//! The small vector type that every op of this backend is written over, and the choice of its version at run time.
//!
//! A vector holds sixteen f32, one of each image of a group: one AVX-512 register, two AVX2 registers, four NEON
//! registers, or a plain array. Every operation is exact or rounded once as IEEE 754 says, and acts on each lane alone,
//! so all versions give the same bits. The only `unsafe` of the backend is here: a version calls its intrinsics
//! because a value of its type exists only where the CPU was seen to have them.
//!
//! The pattern of a value as the proof of a feature, and of a kernel that is inlined into one function that has the
//! feature, is that of the crates `memchr` and `pulp`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use portable::Portable;
use std::fmt;
use std::str::FromStr;

/// Images a group, and lanes a vector.
pub const LANES: usize = 16;

/// One value of each image of a group, in memory.
pub type Lanes = [f32; LANES];

/// Lanes of a half vector.
pub const HALF: usize = LANES / 2;

/// Half a vector in memory: for what is one image's, and too short for a whole one.
pub type HalfLanes = [f32; HALF];

/// A version of the vector type.
pub trait Simd: Copy {
    /// Sixteen f32 in registers.
    type V: Copy;
    /// Eight f32 in registers.
    type Half: Copy;

    /// Whether 24 accumulators and their operands fit the registers at once; six always do.
    const WIDE: bool;

    /// Runs a kernel compiled for this version.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// The lanes in memory.
    fn load(self, from: &Lanes) -> Self::V;
    /// Bytes as numbers, exactly.
    fn load_bytes(self, from: &[u8; LANES]) -> Self::V;
    /// Writes the lanes.
    fn store(self, v: Self::V, to: &mut Lanes);
    /// Writes whole numbers in 0..=255 as bytes.
    fn store_bytes(self, v: Self::V, to: &mut [u8; LANES]);

    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a > b { x } else { y }`; a NaN is not greater.
    fn select_gt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Adds the bits of `t`, shifted into the exponent, to the bits of `x`, wrapping.
    ///
    /// With the integer `n` in the low bits of `t`, and `x` and the result normal, that is `x * 2^n`.
    fn scale_exponent(self, x: Self::V, t: Self::V) -> Self::V;

    /// `to[j][i] = from[i][j]`
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]);

    /// The lower lanes and the upper ones.
    fn halves(self, v: Self::V) -> [Self::Half; 2];
    /// `x` in every lane.
    fn splat_half(self, x: f32) -> Self::Half;
    /// The lanes in memory.
    fn load_half(self, from: &HalfLanes) -> Self::Half;
    /// Writes the lanes.
    fn store_half(self, v: Self::Half, to: &mut HalfLanes);
    /// `a + b`
    fn add_half(self, a: Self::Half, b: Self::Half) -> Self::Half;
    /// `a * b + c`, rounded once.
    fn mul_add_half(self, a: Self::Half, b: Self::Half, c: Self::Half) -> Self::Half;
}

/// Work written once for every version.
///
/// `run` is marked `#[inline(always)]`, and so is all that it calls with a vector: only then is it compiled with the
/// instructions of the version.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Does the work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set this CPU has, with the version of the vector type for it.
#[derive(Clone, Copy)]
pub struct Isa(Version);

#[derive(Clone, Copy)]
enum Version {
    Portable(Portable<false>),
    #[cfg(test)]
    PortableWide(Portable<true>),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Isa {
    /// The versions that this CPU can run, slowest first: `portable` at least.
    pub fn available() -> Vec<Self> {
        let versions = [
            Some(Version::Portable(Portable::<false>)),
            #[cfg(target_arch = "x86_64")]
            avx2::Avx2::detect().map(Version::Avx2),
            #[cfg(target_arch = "x86_64")]
            avx512::Avx512::detect().map(Version::Avx512),
            #[cfg(target_arch = "aarch64")]
            neon::Neon::detect().map(Version::Neon),
        ];
        versions.into_iter().flatten().map(Self).collect()
    }

    /// The portable version with the tiles of the version with the most registers: what AVX-512 computes, on any CPU.
    #[cfg(test)]
    pub(super) fn portable_wide() -> Self {
        Self(Version::PortableWide(Portable))
    }

    /// The fastest version that this CPU can run.
    pub fn fastest() -> Self {
        Self::available()
            .pop()
            .expect("the portable version runs everywhere")
    }

    /// `portable`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Version::Portable(_) => "portable",
            #[cfg(test)]
            Version::PortableWide(_) => "portable, wide",
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
            #[cfg(test)]
            Version::PortableWide(simd) => simd.run(kernel),
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

    /// By [`name`](Self::name); the error says what this CPU has.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on awkward lanes, as bits.
    struct EveryOperation;

    impl Kernel for EveryOperation {
        type Output = Vec<u32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u32> {
            let tiny = f32::MIN_POSITIVE;
            let a: Lanes = [
                0.0,
                -0.0,
                1.0,
                -1.0,
                1.5,
                3.0,
                1e30,
                -1e-30,
                tiny,
                0.1,
                2.5,
                -7.25,
                100.0,
                1e-7,
                8_388_608.0,
                0.3,
            ];
            let b: Lanes = [
                -0.0,
                0.0,
                1.0,
                1.0,
                0.1,
                -3.0,
                1e30,
                1e-30,
                0.5,
                0.1,
                1.0,
                3.0,
                -0.7,
                1e7,
                0.5,
                f32::NAN,
            ];
            let c: Lanes = std::array::from_fn(|i| i as f32 * 0.37 - 2.0);
            let bytes: [u8; LANES] = std::array::from_fn(|i| (i * 17) as u8);
            let (va, vb, vc) = (s.load(&a), s.load(&b), s.load(&c));
            // 1.5 * 2^23 plus small integers: what `scale_exponent` is for.
            let t: Lanes = std::array::from_fn(|i| 12_582_912.0 + (i as f32 - 8.0));
            let mut out = Vec::new();
            for v in [
                s.splat(0.1),
                s.load_bytes(&bytes),
                s.add(va, vb),
                s.sub(va, vb),
                s.mul(va, vb),
                s.div(va, vc),
                s.mul_add(va, vb, vc),
                s.max(va, vb),
                s.max(vb, va),
                s.min(va, vb),
                s.min(vb, va),
                s.select_gt(va, vb, vc, va),
                s.scale_exponent(vc, s.load(&t)),
            ] {
                let mut lanes = [0.0; LANES];
                s.store(v, &mut lanes);
                // NaN has many bit patterns, and which one comes out is the hardware's choice.
                out.extend(lanes.map(|x| {
                    if x.is_nan() {
                        f32::NAN.to_bits()
                    } else {
                        x.to_bits()
                    }
                }));
            }
            let [low, high] = s.halves(vc);
            let [a, b, c] = [a, b, c].map(|x| s.load_half(x.first_chunk().unwrap()));
            for v in [
                low,
                high,
                s.splat_half(0.1),
                s.add_half(a, b),
                s.mul_add_half(a, b, c),
            ] {
                let mut lanes = [0.0; HALF];
                s.store_half(v, &mut lanes);
                out.extend(lanes.map(f32::to_bits));
            }
            let mut stored = [0; LANES];
            s.store_bytes(s.load_bytes(&bytes), &mut stored);
            assert_eq!(stored, bytes);
            let block: [Lanes; LANES] =
                std::array::from_fn(|i| std::array::from_fn(|j| (i * LANES + j) as f32));
            let mut transposed = [[0.0; LANES]; LANES];
            s.transpose(block.each_ref(), transposed.each_mut());
            for (i, row) in transposed.iter().enumerate() {
                assert_eq!(*row, std::array::from_fn(|j| (j * LANES + i) as f32));
            }
            out
        }
    }

    #[test]
    fn every_version_gives_the_bits_of_the_portable_one() {
        let expected = Portable::<false>.run(EveryOperation);
        assert_eq!(expected[0], 0.1f32.to_bits());
        for isa in Isa::available() {
            println!("compared: {}", isa.name());
            assert_eq!(isa.run(EveryOperation), expected, "{}", isa.name());
        }
    }

    #[test]
    fn versions_are_found_by_name_or_refused_by_name() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse::<Isa>().unwrap().name(), isa.name());
        }
        let error = "mmx".parse::<Isa>().unwrap_err();
        assert!(
            error.contains("\"mmx\"") && error.contains("portable"),
            "{error}"
        );
    }
}
