//! The vector type as one AVX-512 register of sixteen lanes.

use super::{Kernel, LANES, Lanes, Simd};
use std::arch::x86_64::*;

/// The AVX-512 version. A value exists only if [`detect`](Self::detect) saw AVX-512F: the safety of every call below.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The version, if the CPU can run it.
    pub fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f")]
fn run<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// Two halves as one register.
#[inline(always)]
fn join(_: Avx512, low: __m256, high: __m256) -> __m512 {
    // SAFETY: the CPU has AVX-512F, as a value of `Avx512` proves.
    unsafe {
        _mm512_castpd_ps(_mm512_insertf64x4::<1>(
            _mm512_castps_pd(_mm512_castps256_ps512(low)),
            _mm256_castps_pd(high),
        ))
    }
}

impl Simd for Avx512 {
    type V = __m512;
    const WIDE: bool = true;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the CPU has the feature, as `self` proves.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn splat_halves(self, low: f32, high: f32) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves; the mask takes `high` for lanes 8 to 15.
        unsafe { _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(low), _mm512_set1_ps(high)) }
    }
    #[inline(always)]
    fn load(self, from: &Lanes) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there are sixteen floats, and the load needs no alignment.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_halves(self, low: &[f32; 8], high: &[f32; 8]) -> __m512 {
        // SAFETY: AVX-512F implies AVX, and `self` proves it; both have eight floats, and the load needs no alignment.
        unsafe {
            join(
                self,
                _mm256_loadu_ps(low.as_ptr()),
                _mm256_loadu_ps(high.as_ptr()),
            )
        }
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; LANES]) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there are sixteen bytes, and the load needs no alignment.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut Lanes) {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there is room for sixteen floats, without alignment.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_halves(self, v: __m512, low: &mut [f32; 8], high: &mut [f32; 8]) {
        // SAFETY: AVX-512F implies AVX, and `self` proves it; both have room for eight floats, without alignment.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), _mm512_castps512_ps256(v));
            let v = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v));
            _mm256_storeu_ps(high.as_mut_ptr(), _mm256_castpd_ps(v));
        }
    }
    #[inline(always)]
    fn store_bytes(self, v: __m512, to: &mut [u8; LANES]) {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there is room for sixteen bytes, without alignment.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn select_gt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    fn scale_exponent(self, x: __m512, t: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe {
            _mm512_castsi512_ps(_mm512_add_epi32(
                _mm512_castps_si512(x),
                _mm512_slli_epi32::<23>(_mm512_castps_si512(t)),
            ))
        }
    }
    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe {
            let rows = from.map(|row| self.load(row));
            // Pairs of rows, then fours: in each quarter of a register, one column of four rows.
            let mut fours = [rows[0]; 16];
            for q in 0..4 {
                let [a, b, c, d] = [
                    rows[4 * q],
                    rows[4 * q + 1],
                    rows[4 * q + 2],
                    rows[4 * q + 3],
                ];
                let (ab0, ab1) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd0, cd1) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                fours[4 * q] = _mm512_shuffle_ps::<0x44>(ab0, cd0);
                fours[4 * q + 1] = _mm512_shuffle_ps::<0xee>(ab0, cd0);
                fours[4 * q + 2] = _mm512_shuffle_ps::<0x44>(ab1, cd1);
                fours[4 * q + 3] = _mm512_shuffle_ps::<0xee>(ab1, cd1);
            }
            // `fours[4q + k]` has in quarter `r` the column `4r + k` of rows `4q` to `4q + 3`: now turn the quarters.
            for k in 0..4 {
                let [a, b, c, d] = [fours[k], fours[4 + k], fours[8 + k], fours[12 + k]];
                let (ab0, ab1) = (
                    _mm512_shuffle_f32x4::<0x44>(a, b),
                    _mm512_shuffle_f32x4::<0xee>(a, b),
                );
                let (cd0, cd1) = (
                    _mm512_shuffle_f32x4::<0x44>(c, d),
                    _mm512_shuffle_f32x4::<0xee>(c, d),
                );
                self.store(_mm512_shuffle_f32x4::<0x88>(ab0, cd0), to[k]);
                self.store(_mm512_shuffle_f32x4::<0xdd>(ab0, cd0), to[4 + k]);
                self.store(_mm512_shuffle_f32x4::<0x88>(ab1, cd1), to[8 + k]);
                self.store(_mm512_shuffle_f32x4::<0xdd>(ab1, cd1), to[12 + k]);
            }
        }
    }
}
