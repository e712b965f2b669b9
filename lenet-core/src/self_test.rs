//! The power-on self-test: a built-in image whose logits the weights file carries.
//!
//! The trainer computes the pattern's logits when it writes the file; a board computes them again at start-up. Equal
//! bits show that its code, its floating-point unit and its flash do what the trainer's machine did.

use crate::arch::{CLASSES, Image, Logits, Params, Pixels, SIDE, image};
use crate::network::{Activations, forward};

/// The pattern as pixels: diagonal waves with a product term, so that no row or column repeats, and every grey step class occurs.
pub const PIXELS: Pixels = {
    let mut pixels = [[0; SIDE]; SIDE];
    let mut y = 0;
    while y < SIDE {
        let mut x = 0;
        while x < SIDE {
            pixels[y][x] = ((y * 37 + x * 101 + y * x * 3) % 256) as u8;
            x += 1;
        }
        y += 1;
    }
    pixels
};

/// The pattern as the network sees it.
pub static IMAGE: Image = image(&PIXELS);

/// The pattern's logits as bits.
pub type Vector = [u32; CLASSES];

/// The machine computes other logits than the one that wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SelfTestError {
    /// The first logit that differs.
    pub class: usize,
    /// Its bits in the file.
    pub expected: u32,
    /// Its bits as computed here.
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

/// Computes the pattern's logits.
pub fn compute(params: &Params, act: &mut Activations) -> Vector {
    bits(forward(params, &IMAGE, act))
}

/// Computes the pattern's logits and compares them with the expected bits.
///
/// # Errors
/// The first logit that differs.
pub fn check(
    params: &Params,
    expected: &Vector,
    act: &mut Activations,
) -> Result<(), SelfTestError> {
    let computed = compute(params, act);
    for (class, (&expected, &found)) in expected.iter().zip(&computed).enumerate() {
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

fn bits(logits: &Logits) -> Vector {
    logits.map(f32::to_bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn the_pattern_has_no_equal_rows() {
        for y in 1..SIDE {
            assert!(!PIXELS[..y].contains(&PIXELS[y]));
        }
    }

    #[test]
    fn one_wrong_bit_is_named() {
        let mut params = Params::zeroed();
        params.fc3_bias[4] = 1.0;
        let mut act = Activations::new();
        let expected = compute(&params, &mut act);
        assert_eq!(check(&params, &expected, &mut act), Ok(()));
        params.fc3_bias[4] = f32::from_bits(1.0f32.to_bits() + 1);
        let error = check(&params, &expected, &mut act).unwrap_err();
        assert_eq!(
            (error.class, error.expected, error.found),
            (4, 0x3f80_0000, 0x3f80_0001)
        );
    }
}
