//! A picture as SVG: inline in the page, as a separate file, or rendered to pixels.
//!
//! Shapes have classes, not colours. `picture.css` defines the colours of a file; the page's own style sheet can define others,
//! such as dark ones. resvg renders the pixels from the SVG with the font in `font/`, so they are the same on every machine.

use super::letters::outlined;
use lenet_core::network::{HEIGHT, Pixels, WIDTH};
use maud::{Markup, PreEscaped, html};
use resvg::{tiny_skia, usvg};

/// The colours, lines and text of the pictures, on white.
pub const STYLE: &str = include_str!("picture.css");
/// The number of PNG pixels per unit of the SVG, enough to be sharp in print and on high-resolution screens.
pub const SCALE: u32 = 2;

/// A picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// A description of the picture, for those who cannot see it.
    pub title: String,
    /// The width in units; a line of text is about 16 units high.
    pub width: u32,
    /// The height in the same units.
    pub height: u32,
    /// The SVG elements.
    pub body: Markup,
}

impl Picture {
    /// Returns the element for a page that has a style sheet.
    pub fn inline(&self) -> Markup {
        html! {
            svg viewBox=(self.view_box()) role="img" aria-label=(self.title) { (self.body) }
        }
    }

    /// Returns the content of an SVG file.
    pub fn svg(&self) -> String {
        html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(self.width) height=(self.height) viewBox=(self.view_box()) {
                title { (self.title) }
                style { (PreEscaped(STYLE)) }
                rect class="paper" width=(self.width) height=(self.height) {}
                (self.body)
            }
        }
        .into_string()
        // XML cannot contain these characters, but a class name may.
        .replace(|c| !matches!(c, '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'..), "")
    }

    /// Renders the picture with [`SCALE`] pixels per unit.
    pub fn pixels(&self) -> tiny_skia::Pixmap {
        let tree = usvg::Tree::from_str(&outlined(&self.svg()), &usvg::Options::default())
            .expect("well-formed by construction");
        let mut pixels = tiny_skia::Pixmap::new(self.width * SCALE, self.height * SCALE)
            .expect("a picture has an area");
        let scale = tiny_skia::Transform::from_scale(SCALE as f32, SCALE as f32);
        resvg::render(&tree, scale, &mut pixels.as_mut());
        pixels
    }

    /// Returns the content of a PNG file.
    pub fn png(&self) -> Vec<u8> {
        encode(&self.pixels())
    }

    fn view_box(&self) -> String {
        format!("0 0 {} {}", self.width, self.height)
    }
}

/// Returns the content of a PNG file.
pub fn encode(pixels: &tiny_skia::Pixmap) -> Vec<u8> {
    pixels.encode_png().expect("into memory")
}

/// Returns red, green and blue for each pixel, which are equal in a grey image.
pub fn interleaved(pixels: &Pixels) -> Box<[[[u8; 3]; WIDTH]; HEIGHT]> {
    let mut out = Box::new([[[0; 3]; WIDTH]; HEIGHT]);
    for (y, row) in out.iter_mut().enumerate() {
        for (x, pixel) in row.iter_mut().enumerate() {
            let mut values = pixels.iter().map(|map| map[y][x]).cycle();
            *pixel = std::array::from_fn(|_| values.next().expect("an image has channels"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Picture {
        Picture {
            title: "a < b & c".to_owned(),
            width: 40,
            height: 20,
            body: html! { text x="2" y="15" { (text) } },
        }
    }

    #[test]
    fn text_is_drawn_without_a_font_on_the_machine() {
        let dark = |text: &str| {
            let pixels = self::text(text).pixels();
            assert_eq!((pixels.width(), pixels.height()), (80, 40));
            pixels
                .pixels()
                .iter()
                .filter(|pixel| pixel.red() < 128)
                .count()
        };
        assert_eq!(dark(""), 0);
        for word in ["shirt", "рубашка", "χιτών", "Mütze"] {
            assert!(dark(word) > 100, "{word}");
        }
    }

    #[test]
    fn no_text_breaks_the_file() {
        let picture = text("<script>\u{1}\u{ffff}");
        let svg = picture.svg();
        assert!(svg.contains("<title>a &lt; b &amp; c</title>"), "{svg}");
        assert!(svg.contains(">&lt;script&gt;</text>"), "{svg}");
        picture.pixels();
    }
}
