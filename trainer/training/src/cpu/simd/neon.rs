//! The vector type as four NEON registers of four lanes.

use super::{HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, Twice};
use std::arch::aarch64::*;

/// A pair of registers. A value exists only if [`detect`](Neon::detect) found NEON, which makes every call below safe.
#[derive(Clone, Copy)]
pub struct NeonHalf(());

/// The NEON version.
pub type Neon = Twice<NeonHalf>;

/// Lanes 0 to 3, and 4 to 7.
type Two = [float32x4_t; 2];

impl Neon {
    /// Returns this version if the CPU can run it.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Twice(NeonHalf(())))
    }
}

impl NeonHalf {
    #[inline(always)]
    fn map2(self, a: Two, b: Two, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Two {
        [f(a[0], b[0]), f(a[1], b[1])]
    }
}

#[target_feature(enable = "neon")]
fn run<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// Returns the sums of the lanes of each vector.
#[inline(always)]
fn sums4(_: NeonHalf, [a, b, c, d]: [Two; 4]) -> float32x4_t {
    // SAFETY: the CPU has NEON, as a value of `NeonHalf` proves.
    unsafe {
        let (a, b) = (vaddq_f32(a[0], a[1]), vaddq_f32(b[0], b[1]));
        let (c, d) = (vaddq_f32(c[0], c[1]), vaddq_f32(d[0], d[1]));
        let ab = vaddq_f32(
            vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
            vcombine_f32(vget_high_f32(a), vget_high_f32(b)),
        );
        let cd = vaddq_f32(
            vcombine_f32(vget_low_f32(c), vget_low_f32(d)),
            vcombine_f32(vget_high_f32(c), vget_high_f32(d)),
        );
        vpaddq_f32(ab, cd)
    }
}

impl Lanewise<HALF> for NeonHalf {
    type V = Two;

    #[inline(always)]
    fn splat(self, x: f32) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        [unsafe { vdupq_n_f32(x) }; 2]
    }
    #[inline(always)]
    fn load(self, from: &HalfLanes) -> Two {
        let quarters = from.as_chunks::<4>().0;
        // SAFETY: the CPU has NEON, as `self` proves; there are four floats each.
        unsafe {
            [
                vld1q_f32(quarters[0].as_ptr()),
                vld1q_f32(quarters[1].as_ptr()),
            ]
        }
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; HALF]) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves; there are eight bytes.
        unsafe {
            let words = vmovl_u8(vld1_u8(from.as_ptr()));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))),
                vcvtq_f32_u32(vmovl_high_u16(words)),
            ]
        }
    }
    #[inline(always)]
    fn store(self, v: Two, to: &mut HalfLanes) {
        for (v, to) in v.into_iter().zip(to.as_chunks_mut::<4>().0) {
            // SAFETY: the CPU has NEON, as `self` proves; there is room for four floats.
            unsafe { vst1q_f32(to.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn store_bytes(self, v: Two, to: &mut [u8; HALF]) {
        // SAFETY: the CPU has NEON, as `self` proves; there is room for eight bytes.
        unsafe {
            let [low, high] = v.map(|v| vmovn_u32(vcvtq_u32_f32(v)));
            vst1_u8(to.as_mut_ptr(), vmovn_u16(vcombine_u16(low, high)));
        }
    }

    #[inline(always)]
    fn add(self, a: Two, b: Two) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    fn sub(self, a: Two, b: Two) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    fn mul(self, a: Two, b: Two) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    fn div(self, a: Two, b: Two) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    fn mul_add(self, a: Two, b: Two, c: Two) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        std::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    // By comparison, because NEON's own instructions treat NaN and zeros differently.
    #[inline(always)]
    fn max(self, a: Two, b: Two) -> Two {
        self.select_gt(a, b, a, b)
    }
    #[inline(always)]
    fn min(self, a: Two, b: Two) -> Two {
        self.select_gt(b, a, a, b)
    }
    #[inline(always)]
    fn select_gt(self, a: Two, b: Two, x: Two, y: Two) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        std::array::from_fn(|i| unsafe { vbslq_f32(vcgtq_f32(a[i], b[i]), x[i], y[i]) })
    }
    #[inline(always)]
    fn scale_exponent(self, x: Two, t: Two) -> Two {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(x, t, |x, t| unsafe {
            vreinterpretq_f32_u32(vaddq_u32(
                vreinterpretq_u32_f32(x),
                vshlq_n_u32::<23>(vreinterpretq_u32_f32(t)),
            ))
        })
    }
    #[inline(always)]
    fn add_sums(self, [a, b, c, d, e, f, g, h]: [Two; HALF], to: &mut HalfLanes) {
        let sums = [sums4(self, [a, b, c, d]), sums4(self, [e, f, g, h])];
        self.store(self.add(self.load(to), sums), to);
    }
}

impl Simd for Neon {
    type Half = NeonHalf;
    const WIDE: bool = false;

    #[inline(always)]
    fn half(self) -> NeonHalf {
        self.0
    }

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the CPU has the feature, as `self` proves.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        for (j, to) in to.into_iter().enumerate() {
            *to = std::array::from_fn(|i| from[i][j]);
        }
    }
}
