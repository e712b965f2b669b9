//! The vector type as a plain array. It runs everywhere, and all other versions must give the same bits.

use super::{HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, sum_lanes};

/// The portable version.
#[derive(Clone, Copy)]
pub struct Portable;

/// Whether all CPUs of this target have an instruction for `f32::mul_add`. Kernels for x86-64 do not look for it at run time: nearly
/// every CPU that has it also has AVX2, and a second copy of each kernel would double the time to compile them. So
/// `LENET_ISA=portable` is slow on x86-64.
const FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

#[inline(always)]
fn map2<const N: usize>(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Returns `a * b + c`, rounded once, for a CPU without such an instruction. Each lane is a call of a library function. This
/// function is not inlined, because kernels with these calls take twice the time to compile.
#[inline(never)]
fn mul_add_by_calls<const N: usize>(a: &[f32; N], b: &[f32; N], c: &[f32; N]) -> [f32; N] {
    std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
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
            false => mul_add_by_calls(&a, &b, &c),
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
