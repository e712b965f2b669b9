//! The vector type as one AVX-512 register of 16 lanes; half vectors are those of AVX2.

use super::avx2::{Avx2, Avx2Half};
use super::{HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd};
use std::arch::x86_64::*;

/// The AVX-512 version. A value exists only if [`detect`](Self::detect) found AVX-512F, which makes every call below safe.
#[derive(Clone, Copy)]
pub struct Avx512(Avx2Half);

impl Avx512 {
    /// Returns this version if the CPU can run it.
    pub fn detect() -> Option<Self> {
        if !std::arch::is_x86_feature_detected!("avx512f") {
            return None;
        }
        Avx2::detect().map(|avx2| Self(avx2.half()))
    }
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn run<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// Loads the same quarter of four rows.
///
/// Loading them from memory needs no shuffle: 512-bit shuffles run on one port only.
#[inline(always)]
fn quarters(_: Avx512, rows: [&Lanes; 4], quarter: usize) -> __m512 {
    let [a, b, c, d] = rows;
    let of = |row: &Lanes| row.as_chunks::<4>().0[quarter].as_ptr();
    let [a, b, c, d] = [of(a), of(b), of(c), of(d)];
    // SAFETY: the CPU has AVX-512F, as a value of `Avx512` proves; each has four floats, and the loads need no alignment.
    unsafe {
        let v = _mm512_castps128_ps512(_mm_loadu_ps(a));
        let v = _mm512_insertf32x4::<1>(v, _mm_loadu_ps(b));
        let v = _mm512_insertf32x4::<2>(v, _mm_loadu_ps(c));
        _mm512_insertf32x4::<3>(v, _mm_loadu_ps(d))
    }
}

/// Transposes the four rows of four in each quarter of the registers.
#[inline(always)]
fn transpose4(_: Avx512, [a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: the CPU has AVX-512F, as a value of `Avx512` proves.
    unsafe {
        let (ab0, ab1) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd0, cd1) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        [
            _mm512_shuffle_ps::<0x44>(ab0, cd0),
            _mm512_shuffle_ps::<0xee>(ab0, cd0),
            _mm512_shuffle_ps::<0x44>(ab1, cd1),
            _mm512_shuffle_ps::<0xee>(ab1, cd1),
        ]
    }
}

/// Adds the quarters of each half: those of `a`, then those of `b`.
#[inline(always)]
fn add_quarters(_: Avx512, a: __m512, b: __m512) -> __m512 {
    // SAFETY: the CPU has AVX-512F, as a value of `Avx512` proves.
    unsafe {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
        )
    }
}

/// Returns the lower and the upper half.
#[inline(always)]
fn halves(_: Avx512, v: __m512) -> [__m256; 2] {
    // SAFETY: the CPU has AVX-512F, as a value of `Avx512` proves.
    unsafe {
        let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(v));
        [_mm512_castps512_ps256(v), _mm256_castpd_ps(high)]
    }
}

impl Lanewise<LANES> for Avx512 {
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, from: &Lanes) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there are 16 floats, and the load needs no alignment.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; LANES]) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there are 16 bytes, and the load needs no alignment.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut Lanes) {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there is room for 16 floats, without alignment.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_bytes(self, v: __m512, to: &mut [u8; LANES]) {
        // SAFETY: the CPU has AVX-512F, as `self` proves; there is room for 16 bytes, without alignment.
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
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        unsafe { _mm512_min_ps(a, b) }
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
    fn add_sums(self, [a, b, c, d, e, f, g, h]: [__m512; HALF], to: &mut HalfLanes) {
        // The same as in AVX2, for both halves at once.
        let [ae, bf] = [add_quarters(self, a, e), add_quarters(self, b, f)];
        let [cg, dh] = [add_quarters(self, c, g), add_quarters(self, d, h)];
        // SAFETY: the CPU has AVX-512F, as `self` proves.
        let sums = unsafe {
            let abef = _mm512_add_ps(
                _mm512_shuffle_ps::<0x44>(ae, bf),
                _mm512_shuffle_ps::<0xee>(ae, bf),
            );
            let cdgh = _mm512_add_ps(
                _mm512_shuffle_ps::<0x44>(cg, dh),
                _mm512_shuffle_ps::<0xee>(cg, dh),
            );
            let sums = _mm512_add_ps(
                _mm512_shuffle_ps::<0x88>(abef, cdgh),
                _mm512_shuffle_ps::<0xdd>(abef, cdgh),
            );
            // The quarters are those of a to d of the lower and of the upper half, then those of e to h.
            _mm512_shuffle_f32x4::<0b11_01_10_00>(sums, sums)
        };
        let [low, high] = halves(self, sums);
        let half = self.0;
        half.store(half.add(half.add(half.load(to), low), high), to);
    }
}

impl Simd for Avx512 {
    type Half = Avx2Half;
    const WIDE: bool = true;

    #[inline(always)]
    fn half(self) -> Avx2Half {
        self.0
    }

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the CPU has the features, as `self` proves.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        let mut to = to.into_iter();
        for quarter in 0..4 {
            let [a, b, c, d] = [
                quarters(self, [from[0], from[4], from[8], from[12]], quarter),
                quarters(self, [from[1], from[5], from[9], from[13]], quarter),
                quarters(self, [from[2], from[6], from[10], from[14]], quarter),
                quarters(self, [from[3], from[7], from[11], from[15]], quarter),
            ];
            for (v, to) in transpose4(self, [a, b, c, d]).into_iter().zip(&mut to) {
                self.store(v, to);
            }
        }
    }
}
