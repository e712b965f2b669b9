//! The vector type of CPUs with registers of eight lanes or fewer: two half vectors.

use super::{HALF, HalfLanes, LANES, Lanes, Lanewise};

/// A vector made of two half vectors.
#[derive(Clone, Copy)]
pub struct Twice<H>(pub(super) H);

impl<H: Lanewise<HALF>> Twice<H> {
    #[inline(always)]
    fn map2(
        self,
        [a, c]: [H::V; 2],
        [b, d]: [H::V; 2],
        f: impl Fn(H, H::V, H::V) -> H::V,
    ) -> [H::V; 2] {
        [f(self.0, a, b), f(self.0, c, d)]
    }
}

impl<H: Lanewise<HALF>> Lanewise<LANES> for Twice<H> {
    type V = [H::V; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [self.0.splat(x), self.0.splat(x)]
    }
    #[inline(always)]
    fn load(self, from: &Lanes) -> Self::V {
        let halves = from.as_chunks().0;
        [self.0.load(&halves[0]), self.0.load(&halves[1])]
    }
    #[inline(always)]
    fn load_bytes(self, from: &[u8; LANES]) -> Self::V {
        let halves = from.as_chunks().0;
        [self.0.load_bytes(&halves[0]), self.0.load_bytes(&halves[1])]
    }
    #[inline(always)]
    fn store(self, [low, high]: Self::V, to: &mut Lanes) {
        let halves = to.as_chunks_mut().0;
        self.0.store(low, &mut halves[0]);
        self.0.store(high, &mut halves[1]);
    }
    #[inline(always)]
    fn store_bytes(self, [low, high]: Self::V, to: &mut [u8; LANES]) {
        let halves = to.as_chunks_mut().0;
        self.0.store_bytes(low, &mut halves[0]);
        self.0.store_bytes(high, &mut halves[1]);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        self.map2(a, b, H::add)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        self.map2(a, b, H::sub)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        self.map2(a, b, H::mul)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        self.map2(a, b, H::div)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [
            self.0.mul_add(a[0], b[0], c[0]),
            self.0.mul_add(a[1], b[1], c[1]),
        ]
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        self.map2(a, b, H::max)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        self.map2(a, b, H::min)
    }
    #[inline(always)]
    fn select_gt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        [
            self.0.select_gt(a[0], b[0], x[0], y[0]),
            self.0.select_gt(a[1], b[1], x[1], y[1]),
        ]
    }
    #[inline(always)]
    fn scale_exponent(self, x: Self::V, t: Self::V) -> Self::V {
        self.map2(x, t, H::scale_exponent)
    }
    #[inline(always)]
    fn add_sums(self, [a, b, c, d, e, f, g, h]: [Self::V; HALF], to: &mut HalfLanes) {
        let [low, high] = [0, 1].map(|n| [a[n], b[n], c[n], d[n], e[n], f[n], g[n], h[n]]);
        self.0.add_sums(low, to);
        self.0.add_sums(high, to);
    }
}
