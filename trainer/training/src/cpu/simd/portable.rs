//! The vector type as a plain array. It runs everywhere, and all other versions must give the same bits.

use super::{HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, sum_lanes};

/// The portable version.
#[derive(Clone, Copy)]
pub struct Portable;

/// Whether all CPUs of this target have an instruction for `f32::mul_add`. Kernels for x86-64 do not look for it at run time: nearly
/// every CPU that has it also has AVX2, and a second copy of each kernel would double the time to compile them.
const FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

#[inline(always)]
fn map2<const N: usize>(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Returns `a * b + c`, rounded once, for a CPU without such an instruction, where the library function takes far longer.
///
/// In f64 the product is exact. If the sum is not, it is replaced by that one of the two neighbors of the exact sum whose last bit is
/// 1 ("rounded to odd"). Because f64 has more than two bits more than f32, the conversion then gives what a single rounding gives
/// (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008). There is no
/// branch, so the compiler can use vectors.
///
/// This function is not inlined, because the kernels would then take longer to compile.
#[inline(never)]
fn mul_add_in_f64<const N: usize>(a: &[f32; N], b: &[f32; N], c: &[f32; N]) -> [f32; N] {
    std::array::from_fn(|i| {
        let product = f64::from(a[i]) * f64::from(b[i]);
        let c = f64::from(c[i]);
        let sum = product + c;
        // What the rounding of the sum has left out, exactly (Knuth's TwoSum). It is NaN if the sum is infinite or NaN.
        let added = sum - product;
        let error = (product - (sum - added)) + (c - added);
        // Rounds the exact sum toward zero: the bits are one less if the sum was rounded away from zero. Then sets the last bit if the
        // sum is inexact, so that the conversion to f32 rounds as if it had the exact sum.
        let inexact = u64::from(error.abs() > 0.0);
        let away_from_zero = inexact & ((error.to_bits() ^ sum.to_bits()) >> 63);
        f64::from_bits(sum.to_bits().wrapping_sub(away_from_zero) | inexact) as f32
    })
}

impl<const N: usize> Lanewise<N> for Portable {
    type V = [f32; N];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }
    #[inline(always)]
    fn load(self, from: &[f32; N]) -> [f32; N] {
        *from
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; N]) -> [f32; N] {
        from.map(f32::from)
    }
    #[inline(always)]
    fn store(self, v: [f32; N], to: &mut [f32; N]) {
        *to = v;
    }
    #[inline(always)]
    fn store_bytes(self, v: [f32; N], to: &mut [u8; N]) {
        *to = v.map(|x| x as u8);
    }

    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        match FMA {
            true => std::array::from_fn(|i| a[i].mul_add(b[i], c[i])),
            false => mul_add_in_f64(&a, &b, &c),
        }
    }
    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn select_gt(self, a: [f32; N], b: [f32; N], x: [f32; N], y: [f32; N]) -> [f32; N] {
        std::array::from_fn(|i| if a[i] > b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn scale_exponent(self, x: [f32; N], t: [f32; N]) -> [f32; N] {
        map2(x, t, |x, t| {
            f32::from_bits(x.to_bits().wrapping_add(t.to_bits() << 23))
        })
    }
    #[inline(always)]
    fn add_sums(self, vectors: [[f32; N]; HALF], to: &mut HalfLanes) {
        for (lanes, to) in vectors.iter().zip(to) {
            for half in lanes.as_chunks::<HALF>().0 {
                *to += sum_lanes(*half);
            }
        }
    }
}

impl Simd for Portable {
    type Half = Self;
    /// The unit tests use the tile sizes of AVX-512, so that CPUs without it can test these, too. The sizes that the program uses
    /// are tested in `tests/support/tests/cpu_bits.rs` and `tests/tests/networks.rs`.
    const WIDE: bool = cfg!(test);

    #[inline(always)]
    fn half(self) -> Self {
        self
    }

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        for (j, to) in to.into_iter().enumerate() {
            *to = std::array::from_fn(|i| from[i][j]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    /// Compares `mul_add_in_f64` with the standard library's function. Returns how often two roundings, to f64 and then to f32, give
    /// another result.
    fn compare(a: Lanes, b: Lanes, c: Lanes) -> usize {
        let result = mul_add_in_f64(&a, &b, &c);
        let mut differences = 0;
        for i in 0..LANES {
            let (a, b, c) = (a[i], b[i], c[i]);
            let expected = a.mul_add(b, c);
            assert!(
                result[i].to_bits() == expected.to_bits()
                    || result[i].is_nan() && expected.is_nan(),
                "{a:e} * {b:e} + {c:e}: {:e} instead of {expected:e}",
                result[i]
            );
            let twice = (f64::from(a) * f64::from(b) + f64::from(c)) as f32;
            differences += usize::from(twice != expected && !expected.is_nan());
        }
        differences
    }

    #[test]
    fn mul_add_in_f64_is_rounded_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut bits = move || [0; LANES].map(|_| rng.next_u32());
        let signed = |sign: u32, x: f32| if sign & 1 == 0 { x } else { -x };
        let two_to = |exponent: i32| 2f32.powi(exponent);
        let mut differences = [0; 3];
        for _ in 0..10_000 {
            // Any bits: every magnitude, subnormal numbers, infinities and NaN.
            let [a, b, c] = [bits(), bits(), bits()];
            compare(
                a.map(f32::from_bits),
                b.map(f32::from_bits),
                c.map(f32::from_bits),
            );
            // Terms of similar magnitude, in 2^-7..2.
            let similar = |bits: u32| f32::from_bits(bits & 0x83ff_ffff | 0x3c00_0000);
            compare(a.map(similar), b.map(similar), c.map(similar));

            // A product of up to 25 bits, which may be halfway between two numbers, and a third term far below its last bit.
            differences[0] += compare(
                a.map(|bits| ((bits >> 20) | 1) as f32),
                b.map(|bits| ((bits >> 19) | 1) as f32),
                c.map(|bits| signed(bits, two_to(-60))),
            );
            // A product just below half of the distance from a number in 1..2 to the next, or to the next subnormal number.
            let between_1_and_2 = c.map(|bits| f32::from_bits(bits >> 9 | 0x3f80_0000));
            let subnormal = c.map(|bits| f32::from_bits(bits >> 9));
            for (i, scale, number) in [(1, -12, between_1_and_2), (2, -75, subnormal)] {
                differences[i] += compare(
                    [(1.0 + f32::EPSILON) * two_to(scale); LANES],
                    b.map(|bits| signed(bits, (1.0 - f32::EPSILON) * two_to(scale))),
                    number,
                );
            }
        }
        // These inputs are hard: without rounding to odd, many results are wrong.
        assert!(
            differences.iter().all(|&count| count > 10_000),
            "{differences:?}"
        );
    }
}
