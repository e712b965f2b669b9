//! Pools a window: returns its largest sum, or the mean of its bytes.

use super::finish::max;

/// Returns the largest sum of a window. The sums belong to one output channel, so they are less than 2³¹ apart.
#[inline(always)]
pub fn largest<const N: usize>(window: [[i32; N]; N]) -> i32 {
    let mut values = window.as_flattened().iter();
    // Starts from the first sum, because `i32::MIN` could be 2³¹ or more away from the others.
    let first = values.next().copied().unwrap_or_default();
    values.fold(first, |largest, &value| max(largest, value))
}

/// Returns the mean of the bytes of a window of side 2 or 3, given their sum, rounded half up.
///
/// It multiplies by an inverse instead of dividing, because a Cortex-M0 divides in software, in a time that depends on the
/// operands.
#[inline(always)]
pub fn mean<const N: usize>(sum: u32) -> u8 {
    const {
        let n = (N * N) as u32;
        let mut sum = 0;
        while sum <= 255 * n {
            assert!(by_product::<N>(sum) as u32 == (2 * sum + n) / (2 * n));
            sum += 1;
        }
    }
    by_product::<N>(sum)
}

#[inline(always)]
const fn by_product<const N: usize>(sum: u32) -> u8 {
    let n = (N * N) as u32;
    let inverse = (1 << 18) / n + 1;
    (((2 * sum + n) * inverse) >> 19) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_rounded_half_up() {
        assert_eq!(mean::<2>(1), 0);
        assert_eq!(mean::<2>(2), 1);
        assert_eq!(mean::<2>(4 * 255), 255);
        assert_eq!(mean::<3>(4), 0);
        assert_eq!(mean::<3>(5), 1);
        assert_eq!(mean::<3>(9 * 255), 255);
    }

    #[test]
    fn the_largest_is_found_anywhere() {
        for at in 0..9 {
            let mut window = [[-7; 3]; 3];
            window.as_flattened_mut()[at] = -3;
            assert_eq!(largest(window), -3);
        }
        assert_eq!(
            largest([[5, -1_000_000_000], [6, 1_000_000_000]]),
            1_000_000_000
        );
    }
}
