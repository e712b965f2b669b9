//! The power-on self-test, which classifies a built-in pattern and compares its logits with those in the weights file.
//!
//! The trainer computes the pattern's logits when it writes the file, and a board computes them again at start-up. Equal
//! bits show that the board's code, floating-point unit and flash give the results of the trainer's machine.

use crate::Network;

/// Returns the pixels of the pattern: diagonal waves with a product term, modulo 256. No row or column repeats, and neighbouring
/// pixels differ by small and by large steps.
pub const fn pixels<const C: usize, const H: usize, const W: usize>() -> [[[u8; W]; H]; C] {
    let mut pixels = [[[0; W]; H]; C];
    let mut c = 0;
    while c < C {
        let mut y = 0;
        while y < H {
            let mut x = 0;
            while x < W {
                pixels[c][y][x] = (y * 37 + x * 101 + y * x * 3 + c * 85) as u8;
                x += 1;
            }
            y += 1;
        }
        c += 1;
    }
    pixels
}

/// The error returned when this machine's logits differ from those of the machine that wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SelfTestError {
    /// The index of the first logit that differs.
    pub class: usize,
    /// The bits of this logit in the file.
    pub expected: u32,
    /// The bits that this machine computed.
    pub found: u32,
}

impl core::fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            class,
            expected,
            found,
        } = self;
        write!(
            f,
            "self-test: logit {class} is {found:#010x}, the trainer computed {expected:#010x}"
        )
    }
}

impl core::error::Error for SelfTestError {}

/// Computes the logits of the pattern.
pub fn compute<N: Network>(params: &N::Params, act: &mut N::Activations) -> N::Logits {
    *N::forward(params, N::TEST_IMAGE, act)
}

/// Computes the logits of the pattern and compares their bits with the expected ones.
///
/// # Errors
/// Returns an error that states the first logit that differs.
pub fn check<N: Network>(
    params: &N::Params,
    expected: &N::Logits,
    act: &mut N::Activations,
) -> Result<(), SelfTestError> {
    let computed = compute::<N>(params, act);
    let pairs = expected.as_ref().iter().zip(computed.as_ref());
    for (class, (expected, found)) in pairs.enumerate() {
        let (expected, found) = (expected.to_bits(), found.to_bits());
        if expected != found {
            return Err(SelfTestError {
                class,
                expected,
                found,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Activations, Net, Params};

    #[test]
    fn the_pattern_has_no_equal_rows() {
        let pixels = pixels::<3, 28, 30>();
        let rows = pixels.as_flattened();
        for y in 1..rows.len() {
            assert!(!rows[..y].contains(&rows[y]), "row {y}");
        }
    }

    #[test]
    fn the_pattern_is_that_of_the_page() {
        let pixels = pixels::<1, 28, 28>();
        assert_eq!(pixels[0][0][..4], [0, 101, 202, 47]);
        assert_eq!(pixels[0][1][..3], [37, 141, 245]);
        assert_eq!(
            pixels[0][27][27],
            ((27 * 37 + 27 * 101 + 27 * 27 * 3) % 256) as u8
        );
    }

    #[test]
    fn one_wrong_bit_is_named() {
        const LAST: usize = crate::network::NUM_PARAMS - 1;
        let class = crate::network::CLASSES - 1;
        let mut params = Params::ZERO;
        params.as_flat_mut()[LAST] = 1.0;
        let mut act = Activations::new();
        let expected = compute::<Net>(&params, &mut act);
        assert_eq!(check::<Net>(&params, &expected, &mut act), Ok(()));
        params.as_flat_mut()[LAST] = f32::from_bits(1.0f32.to_bits() + 1);
        let error = check::<Net>(&params, &expected, &mut act).unwrap_err();
        assert_eq!(
            (error.class, error.expected, error.found),
            (class, 0x3f80_0000, 0x3f80_0001)
        );
    }
}
