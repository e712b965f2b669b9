//! The vector type of this backend's kernels, and the choice of its version at run time.
//!
//! A vector holds 16 f32, one for each image of a group. It is one AVX-512 register, two AVX2 registers, four NEON registers,
//! or a plain array. Every operation acts on each lane alone, and is exact or rounded once as in IEEE 754, so all versions give
//! the same bits. This module has the backend's only `unsafe` code: a version may call its intrinsics because a value of its
//! type exists only if the CPU was found to support them.
//!
//! A value that proves a CPU feature, and a kernel that is inlined into one function with that feature, are patterns of the
//! crates `memchr` and `pulp`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod twice;

pub use isa::Isa;
use twice::Twice;

/// The number of images in a group, and of lanes in a vector.
pub const LANES: usize = 16;

/// One value of each image of a group, in memory.
pub type Lanes = [f32; LANES];

/// The number of lanes in a half vector.
pub const HALF: usize = LANES / 2;

/// Half a vector in memory.
pub type HalfLanes = [f32; HALF];

/// Returns part `n` of 16 lanes: all of them, or a half.
#[inline(always)]
pub(super) fn part<T, const N: usize>(lanes: &[T; LANES], n: usize) -> &[T; N] {
    &lanes.as_chunks().0[n]
}

/// Returns the same as [`part`], mutably.
#[inline(always)]
pub(super) fn part_mut<T, const N: usize>(lanes: &mut [T; LANES], n: usize) -> &mut [T; N] {
    &mut lanes.as_chunks_mut().0[n]
}

/// Loads several vectors.
#[inline(always)]
pub(super) fn load_all<const N: usize, const M: usize, S: Lanewise<N>>(
    s: S,
    from: [&[f32; N]; M],
) -> [S::V; M] {
    let mut vectors = [s.splat(0.0); M];
    for (vector, from) in vectors.iter_mut().zip(from) {
        *vector = s.load(from);
    }
    vectors
}

/// Stores several vectors.
#[inline(always)]
pub(super) fn store_all<const N: usize, const M: usize, S: Lanewise<N>>(
    s: S,
    vectors: [S::V; M],
    to: [&mut [f32; N]; M],
) {
    for (vector, to) in vectors.into_iter().zip(to) {
        s.store(vector, to);
    }
}

/// Returns the sum of the lanes, in the order that every version uses: the upper half is added to the lower until one is left.
#[inline(always)]
pub(super) fn sum_lanes<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Calls a function of a [`Lanewise`], the number of a part, and the other arguments: once for all lanes if there are enough
/// registers, else for each half. The first argument is a [`Simd`] of type `S`.
macro_rules! by_parts {
    ($simd:ident, $function:ident($($argument:expr),*)) => {
        if S::WIDE {
            $function($simd, 0, $($argument),*);
        } else {
            $function($simd.half(), 0, $($argument),*);
            $function($simd.half(), 1, $($argument),*);
        }
    };
}
pub(super) use by_parts;

/// Arithmetic on vectors of `N` lanes.
pub trait Lanewise<const N: usize>: Copy {
    /// The lanes in registers.
    type V: Copy;

    /// Returns a vector with `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// Loads lanes from memory.
    fn load(self, from: &[f32; N]) -> Self::V;
    /// Loads bytes and converts them to floats, exactly.
    fn load_bytes(self, from: &[u8; N]) -> Self::V;
    /// Stores the lanes to memory.
    fn store(self, v: Self::V, to: &mut [f32; N]);
    /// Stores integers in 0..=255 as bytes.
    fn store_bytes(self, v: Self::V, to: &mut [u8; N]);

    /// Returns `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// Returns `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// Returns `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// Returns `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// Returns `a * b + c`, rounded once.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Returns `if a > b { a } else { b }`.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Returns `if a < b { a } else { b }`.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Returns `if a > b { x } else { y }`; a NaN is not greater.
    fn select_gt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Adds the bits of `t`, shifted into the exponent, to the bits of `x`, wrapping.
    ///
    /// With the integer `n` in the low bits of `t`, and `x` and the result normal, that is `x * 2^n`.
    fn scale_exponent(self, x: Self::V, t: Self::V) -> Self::V;

    /// Adds the sums of the lanes of eight vectors to `to`: that of the lower eight lanes, then that of the upper. Each sum is
    /// taken pairwise by halves, `((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))`.
    fn add_sums(self, vectors: [Self::V; HALF], to: &mut HalfLanes);
}

/// A version of the vector type.
pub trait Simd: Lanewise<LANES> {
    /// Half vectors, for data of one image that is too short for a whole vector, and for kernels that need more vectors than
    /// there are whole registers.
    type Half: Lanewise<HALF>;

    /// Whether the registers hold 24 accumulators and their operands. Every version holds 6, or 12 half vectors.
    const WIDE: bool;

    /// Returns the arithmetic on half vectors.
    fn half(self) -> Self::Half;

    /// Runs a kernel compiled for this version.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Transposes 16 vectors: `to[j][i] = from[i][j]`.
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]);
}

/// A computation that is written once for all versions.
///
/// `run` must be `#[inline(always)]`, and so must every function that it calls with a vector: only then is it compiled for the
/// instruction set of the version.
pub trait Kernel {
    /// The result.
    type Output;
    /// Runs the computation.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every operation on special values, and returns the bits.
    struct EveryOperation;

    impl Kernel for EveryOperation {
        type Output = Vec<u32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u32> {
            let block: [Lanes; LANES] =
                std::array::from_fn(|i| std::array::from_fn(|j| (i * LANES + j) as f32));
            let mut transposed = [[0.0; LANES]; LANES];
            s.transpose(block.each_ref(), transposed.each_mut());
            for (i, row) in transposed.iter().enumerate() {
                assert_eq!(*row, std::array::from_fn(|j| (j * LANES + i) as f32));
            }
            let halves = [0, 1].map(|part| lanewise(s.half(), part));
            [lanewise(s, 0), halves.concat()].concat()
        }
    }

    #[inline(always)]
    fn lanewise<const N: usize, S: Lanewise<N>>(s: S, n: usize) -> Vec<u32> {
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
        let [va, vb, vc] = [a, b, c].map(|lanes| s.load(part(&lanes, n)));
        let bytes = *part(&bytes, n);
        // 1.5 * 2^23 plus small integers, the intended argument of `scale_exponent`.
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
            s.scale_exponent(vc, s.load(part(&t, n))),
        ] {
            let mut lanes = [0.0; N];
            s.store(v, &mut lanes);
            // NaN has many bit patterns, and the hardware chooses which one results.
            out.extend(lanes.map(|x| {
                if x.is_nan() {
                    f32::NAN.to_bits()
                } else {
                    x.to_bits()
                }
            }));
        }
        let mut stored = [0; N];
        s.store_bytes(s.load_bytes(&bytes), &mut stored);
        assert_eq!(stored, bytes);
        let mut rows = [[0.0; N]; HALF];
        for (k, row) in rows.iter_mut().enumerate() {
            *row = std::array::from_fn(|i| a[(i + k) % 8] + c[(3 * i + k) % LANES]);
        }
        let mut vectors = [s.splat(0.0); HALF];
        for (vector, row) in vectors.iter_mut().zip(&rows) {
            *vector = s.load(row);
        }
        let mut sums = [0.1; HALF];
        s.add_sums(vectors, &mut sums);
        for (sum, row) in sums.iter().zip(&rows) {
            let halves = row.as_chunks::<HALF>().0.iter();
            assert_eq!(*sum, halves.fold(0.1, |sum, half| sum + sum_lanes(*half)));
        }
        out
    }

    #[test]
    fn every_version_gives_the_bits_of_the_portable_one() {
        let expected = EveryOperation.run(portable::Portable);
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
