//! The vector type as two AVX registers of eight lanes, with AVX2 and fused multiply-add.

use super::{HALF, HalfLanes, Kernel, LANES, Lanes, Lanewise, Simd, Twice};
use std::arch::x86_64::*;

/// A register. A value exists only if [`detect`](Avx2::detect) found AVX2 and FMA, which makes every call below safe.
#[derive(Clone, Copy)]
pub struct Avx2Half(());

/// The AVX2 version.
pub type Avx2 = Twice<Avx2Half>;

impl Avx2 {
    /// Returns this version if the CPU can run it.
    pub fn detect() -> Option<Self> {
        (std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"))
            .then_some(Twice(Avx2Half(())))
    }
}

#[target_feature(enable = "avx2,fma")]
fn run<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// Loads a quarter of one row into the lower half, and the same quarter of another row into the upper half.
#[inline(always)]
fn quarters(_: Avx2, low: &Lanes, high: &Lanes, quarter: usize) -> __m256 {
    let (low, high) = (
        &low.as_chunks::<4>().0[quarter],
        &high.as_chunks::<4>().0[quarter],
    );
    // SAFETY: the CPU has AVX, as a value of `Avx2` proves; there are four floats each, and the loads need no alignment.
    unsafe {
        let low = _mm256_castps128_ps256(_mm_loadu_ps(low.as_ptr()));
        _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(high.as_ptr()))
    }
}

/// Transposes the four rows of four in each half of the registers.
#[inline(always)]
fn transpose4(_: Avx2, [a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    // SAFETY: the CPU has AVX, as a value of `Avx2` proves.
    unsafe {
        let (ab0, ab1) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd0, cd1) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(ab0, cd0),
            _mm256_shuffle_ps::<0xee>(ab0, cd0),
            _mm256_shuffle_ps::<0x44>(ab1, cd1),
            _mm256_shuffle_ps::<0xee>(ab1, cd1),
        ]
    }
}

/// Adds the halves of each vector: `a`'s below, `b`'s above.
#[inline(always)]
fn add_quarters(_: Avx2Half, a: __m256, b: __m256) -> __m256 {
    // SAFETY: the CPU has AVX, as a value of `Avx2Half` proves.
    unsafe {
        _mm256_add_ps(
            _mm256_permute2f128_ps::<0x20>(a, b),
            _mm256_permute2f128_ps::<0x31>(a, b),
        )
    }
}

impl Lanewise<HALF> for Avx2Half {
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, from: &HalfLanes) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves; there are eight floats, and the load needs no alignment.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; HALF]) -> __m256 {
        // SAFETY: the CPU has AVX2, as `self` proves; there are eight bytes, and the load needs no alignment.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn store(self, v: __m256, to: &mut HalfLanes) {
        // SAFETY: the CPU has AVX, as `self` proves; there is room for eight floats, and the store needs no alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_bytes(self, v: __m256, to: &mut [u8; HALF]) {
        // SAFETY: the CPU has AVX2, as `self` proves; there is room for eight bytes, and the store needs no alignment.
        unsafe {
            let v = _mm256_cvttps_epi32(v);
            let words =
                _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packus_epi16(words, words));
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the CPU has FMA, as `self` proves.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn select_gt(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        // SAFETY: the CPU has AVX, as `self` proves.
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) }
    }
    #[inline(always)]
    fn scale_exponent(self, x: __m256, t: __m256) -> __m256 {
        // SAFETY: the CPU has AVX2, as `self` proves.
        unsafe {
            _mm256_castsi256_ps(_mm256_add_epi32(
                _mm256_castps_si256(x),
                _mm256_slli_epi32::<23>(_mm256_castps_si256(t)),
            ))
        }
    }
    #[inline(always)]
    fn add_sums(self, [a, b, c, d, e, f, g, h]: [__m256; HALF], to: &mut HalfLanes) {
        // SAFETY: the CPU has AVX, as `self` proves.
        let sums = unsafe {
            let [ae, bf] = [add_quarters(self, a, e), add_quarters(self, b, f)];
            let [cg, dh] = [add_quarters(self, c, g), add_quarters(self, d, h)];
            let abef = _mm256_add_ps(
                _mm256_shuffle_ps::<0x44>(ae, bf),
                _mm256_shuffle_ps::<0xee>(ae, bf),
            );
            let cdgh = _mm256_add_ps(
                _mm256_shuffle_ps::<0x44>(cg, dh),
                _mm256_shuffle_ps::<0xee>(cg, dh),
            );
            _mm256_add_ps(
                _mm256_shuffle_ps::<0x88>(abef, cdgh),
                _mm256_shuffle_ps::<0xdd>(abef, cdgh),
            )
        };
        self.store(self.add(self.load(to), sums), to);
    }
}

impl Simd for Avx2 {
    type Half = Avx2Half;
    const WIDE: bool = false;

    #[inline(always)]
    fn half(self) -> Avx2Half {
        self.0
    }

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the CPU has both features, as `self` proves.
        unsafe { run(self, kernel) }
    }

    #[inline(always)]
    fn transpose(self, from: [&Lanes; LANES], to: [&mut Lanes; LANES]) {
        // Each register is filled from two rows four apart, so nothing crosses from one half to the other, which is slow on
        // some CPUs.
        for (half, rows) in from.as_chunks::<8>().0.iter().enumerate() {
            let [a, b, c, d, e, f, g, h] = *rows;
            for quarter in 0..4 {
                let rows = [
                    quarters(self, a, e, quarter),
                    quarters(self, b, f, quarter),
                    quarters(self, c, g, quarter),
                    quarters(self, d, h, quarter),
                ];
                for (k, v) in transpose4(self, rows).into_iter().enumerate() {
                    let to = &mut to[4 * quarter + k].as_chunks_mut::<8>().0[half];
                    // SAFETY: the CPU has AVX, as `self` proves; `to` has eight floats, and the store needs no alignment.
                    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
                }
            }
        }
    }
}
