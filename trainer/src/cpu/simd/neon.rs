//! The vector type as four NEON registers of four lanes.

use super::{HalfLanes, Kernel, LANES, Lanes, Simd};
use std::arch::aarch64::*;

/// The NEON version. A value exists only if [`detect`](Self::detect) saw NEON: the safety of every call below.
#[derive(Clone, Copy)]
pub struct Neon(());

/// Lanes 0 to 3, 4 to 7, 8 to 11, 12 to 15.
type Four = [float32x4_t; 4];

impl Neon {
    /// The version, if the CPU can run it.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    #[inline(always)]
    fn map2(self, a: Four, b: Four, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Four {
        std::array::from_fn(|i| f(a[i], b[i]))
    }

    #[inline(always)]
    fn load4(self, from: &[f32; 4]) -> float32x4_t {
        // SAFETY: the CPU has NEON, as `self` proves; there are four floats.
        unsafe { vld1q_f32(from.as_ptr()) }
    }
}

#[target_feature(enable = "neon")]
fn run<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Neon {
    type V = Four;
    type Half = [float32x4_t; 2];
    const WIDE: bool = false;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the CPU has the feature, as `self` proves.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn load(self, from: &Lanes) -> Four {
        let quarters = from.as_chunks::<4>().0;
        std::array::from_fn(|i| self.load4(&quarters[i]))
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; LANES]) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves; there are sixteen bytes.
        unsafe {
            let bytes = vld1q_u8(from.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_high_u16(low)),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_high_u16(high)),
            ]
        }
    }
    #[inline(always)]
    fn store(self, v: Four, to: &mut Lanes) {
        for (v, to) in v.into_iter().zip(to.as_chunks_mut::<4>().0) {
            // SAFETY: the CPU has NEON, as `self` proves; there is room for four floats.
            unsafe { vst1q_f32(to.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn store_bytes(self, v: Four, to: &mut [u8; LANES]) {
        // SAFETY: the CPU has NEON, as `self` proves; there is room for sixteen bytes.
        unsafe {
            let [a, b, c, d] = v.map(|v| vmovn_u32(vcvtq_u32_f32(v)));
            let (low, high) = (vmovn_u16(vcombine_u16(a, b)), vmovn_u16(vcombine_u16(c, d)));
            vst1q_u8(to.as_mut_ptr(), vcombine_u8(low, high));
        }
    }

    #[inline(always)]
    fn add(self, a: Four, b: Four) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    fn sub(self, a: Four, b: Four) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vsubq_f32(a, b) })
    }
    #[inline(always)]
    fn mul(self, a: Four, b: Four) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vmulq_f32(a, b) })
    }
    #[inline(always)]
    fn div(self, a: Four, b: Four) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(a, b, |a, b| unsafe { vdivq_f32(a, b) })
    }
    #[inline(always)]
    fn mul_add(self, a: Four, b: Four, c: Four) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        std::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
    // By comparison, as the instructions for it treat NaN and zeros otherwise.
    #[inline(always)]
    fn max(self, a: Four, b: Four) -> Four {
        self.select_gt(a, b, a, b)
    }
    #[inline(always)]
    fn min(self, a: Four, b: Four) -> Four {
        self.select_gt(b, a, a, b)
    }
    #[inline(always)]
    fn select_gt(self, a: Four, b: Four, x: Four, y: Four) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        std::array::from_fn(|i| unsafe { vbslq_f32(vcgtq_f32(a[i], b[i]), x[i], y[i]) })
    }
    #[inline(always)]
    fn scale_exponent(self, x: Four, t: Four) -> Four {
        // SAFETY: the CPU has NEON, as `self` proves.
        self.map2(x, t, |x, t| unsafe {
            vreinterpretq_f32_u32(vaddq_u32(
                vreinterpretq_u32_f32(x),
                vshlq_n_u32::<23>(vreinterpretq_u32_f32(t)),
            ))
        })
    }
    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        for (j, to) in to.into_iter().enumerate() {
            *to = std::array::from_fn(|i| from[i][j]);
        }
    }

    #[inline(always)]
    fn halves(self, [a, b, c, d]: Four) -> [[float32x4_t; 2]; 2] {
        [[a, b], [c, d]]
    }
    #[inline(always)]
    fn splat_half(self, x: f32) -> [float32x4_t; 2] {
        // SAFETY: the CPU has NEON, as `self` proves.
        [unsafe { vdupq_n_f32(x) }; 2]
    }
    #[inline(always)]
    fn load_half(self, from: &HalfLanes) -> [float32x4_t; 2] {
        let quarters = from.as_chunks::<4>().0;
        std::array::from_fn(|i| self.load4(&quarters[i]))
    }
    #[inline(always)]
    fn store_half(self, v: [float32x4_t; 2], to: &mut HalfLanes) {
        for (v, to) in v.into_iter().zip(to.as_chunks_mut::<4>().0) {
            // SAFETY: the CPU has NEON, as `self` proves; there is room for four floats.
            unsafe { vst1q_f32(to.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn add_half(self, a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [float32x4_t; 2] {
        // SAFETY: the CPU has NEON, as `self` proves.
        std::array::from_fn(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }
    #[inline(always)]
    fn mul_add_half(
        self,
        a: [float32x4_t; 2],
        b: [float32x4_t; 2],
        c: [float32x4_t; 2],
    ) -> [float32x4_t; 2] {
        // SAFETY: the CPU has NEON, as `self` proves.
        std::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }
}
