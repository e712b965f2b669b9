//! The vector type as a plain array: runs everywhere, and is what the other versions must equal.

use super::{HALF, HalfLanes, Kernel, LANES, Lanes, Simd};

/// The portable version; `WIDE` as in [`Simd`], which only tests set here.
#[derive(Clone, Copy)]
pub struct Portable<const WIDE: bool>;

#[inline(always)]
fn map2(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// The same code with the instruction for `f32::mul_add`, which gives the bits of the library function that stands in
/// for it elsewhere, a hundred times sooner.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma")]
fn run_with_fma<K: Kernel, const WIDE: bool>(kernel: K) -> K::Output {
    kernel.run(Portable::<WIDE>)
}

impl<const WIDE: bool> Simd for Portable<WIDE> {
    type V = Lanes;
    type Half = HalfLanes;
    const WIDE: bool = WIDE;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has the feature, as the line above has seen.
            return unsafe { run_with_fma::<K, WIDE>(kernel) };
        }
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; LANES]) -> Lanes {
        from.map(f32::from)
    }
    #[inline(always)]
    fn store(self, v: Lanes, to: &mut Lanes) {
        *to = v;
    }
    #[inline(always)]
    fn store_bytes(self, v: Lanes, to: &mut [u8; LANES]) {
        *to = v.map(|x| x as u8);
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Lanes, b: Lanes) -> Lanes {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn select_gt(self, a: Lanes, b: Lanes, x: Lanes, y: Lanes) -> Lanes {
        std::array::from_fn(|i| if a[i] > b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn scale_exponent(self, x: Lanes, t: Lanes) -> Lanes {
        map2(x, t, |x, t| {
            f32::from_bits(x.to_bits().wrapping_add(t.to_bits() << 23))
        })
    }
    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        for (j, to) in to.into_iter().enumerate() {
            *to = std::array::from_fn(|i| from[i][j]);
        }
    }

    #[inline(always)]
    fn halves(self, v: Lanes) -> [HalfLanes; 2] {
        [
            std::array::from_fn(|i| v[i]),
            std::array::from_fn(|i| v[HALF + i]),
        ]
    }
    #[inline(always)]
    fn splat_half(self, x: f32) -> HalfLanes {
        [x; HALF]
    }
    #[inline(always)]
    fn load_half(self, from: &HalfLanes) -> HalfLanes {
        *from
    }
    #[inline(always)]
    fn store_half(self, v: HalfLanes, to: &mut HalfLanes) {
        *to = v;
    }
    #[inline(always)]
    fn add_half(self, a: HalfLanes, b: HalfLanes) -> HalfLanes {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn mul_add_half(self, a: HalfLanes, b: HalfLanes, c: HalfLanes) -> HalfLanes {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
}
