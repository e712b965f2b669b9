//! The vector type as a plain array. It runs everywhere, and all other versions must give the same bits.

use super::{HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, sum_lanes};

/// The portable version. `WIDE` is that of [`Simd`]; only tests set it. `FMA` tells whether kernels contain `f32::mul_add` inline.
#[derive(Clone, Copy)]
pub struct Portable<const WIDE: bool, const FMA: bool>;

#[inline(always)]
fn map2<const N: usize>(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Runs the same code with the CPU's instruction for `f32::mul_add`. It gives the same bits as the library function that
/// replaces it elsewhere, and is much faster.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma")]
fn run_with_fma<K: Kernel, const WIDE: bool>(kernel: K) -> K::Output {
    kernel.run(Portable::<WIDE, true>)
}

/// Returns `a * b + c`, rounded once, for a CPU without such an instruction. Each lane is a call of a library function. This
/// function is not inlined, because kernels with these calls take twice the time to compile.
#[inline(never)]
fn mul_add_by_calls<const N: usize>(a: &[f32; N], b: &[f32; N], c: &[f32; N]) -> [f32; N] {
    std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
}

impl<const N: usize, const WIDE: bool, const FMA: bool> Lanewise<N> for Portable<WIDE, FMA> {
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

impl<const WIDE: bool, const FMA: bool> Simd for Portable<WIDE, FMA> {
    type Half = Self;
    const WIDE: bool = WIDE;

    #[inline(always)]
    fn half(self) -> Self {
        self
    }

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the line above has checked that the CPU has the feature.
            return unsafe { run_with_fma::<K, WIDE>(kernel) };
        }
        kernel.run(self)
    }

    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        for (j, to) in to.into_iter().enumerate() {
            *to = std::array::from_fn(|i| from[i][j]);
        }
    }
}
