//! Replaces the text of a picture with the outlines of its letters, so that it can be rendered without a text shaper.
//!
//! The font in `font/` has Latin, Greek and Cyrillic letters, whose glyphs stand side by side in the order of the text. So all that
//! a shaper would add is kerning.

use maud::html;
use resvg::usvg::roxmltree::{Document, Node};
use std::fmt::Write;
use ttf_parser::{Face, GlyphId, OutlineBuilder};

const FONT: &[u8] = include_bytes!("font/roboto-subset.ttf");

/// The sizes of letters in `picture.css`, without a class and with the class `small`.
const SIZE: f32 = 13.0;
const SMALL: f32 = 11.0;

/// Returns an SVG file with a `path` of the class `letters` in place of each `text`.
///
/// A `text` may have the attributes `x`, `y`, `transform` and `class`. The classes `small`, `middle` and `end` set size and
/// alignment, as in `picture.css`. All classes are copied to the path, for their colours.
pub fn outlined(svg: &str) -> String {
    let document = Document::parse(svg).expect("well-formed by construction");
    let face = Face::parse(FONT, 0).expect("the font is part of the program");
    let mut out = String::with_capacity(2 * svg.len());
    let mut done = 0;
    let is_text = |node: &Node<'_, '_>| node.has_tag_name("text");
    for text in document.descendants().filter(is_text) {
        out += &svg[done..text.range().start];
        done = text.range().end;
        let class = text.attribute("class").unwrap_or_default();
        let outline = Outline::of(&face, &text, class);
        out += &html! {
            path class={ "letters " (class) } transform=[text.attribute("transform")] d=(outline) {}
        }
        .into_string();
    }
    out + &svg[done..]
}

/// The data of a path.
struct Outline {
    data: String,
    /// The position of the next letter's origin.
    x: f32,
    y: f32,
    /// Units of the picture per unit of the font.
    scale: f32,
}

impl Outline {
    fn of(face: &Face<'_>, text: &Node<'_, '_>, class: &str) -> String {
        let has_class = |name| class.split(' ').any(|class| class == name);
        let number = |name| {
            text.attribute(name)
                .map_or(0.0, |value| value.parse().expect("a number"))
        };
        let size = if has_class("small") { SMALL } else { SIZE };
        let glyphs: Vec<GlyphId> = text
            .text()
            .unwrap_or_default()
            .chars()
            .map(|letter| {
                face.glyph_index(letter)
                    .or(face.glyph_index('\u{fffd}'))
                    .unwrap_or_default()
            })
            .collect();
        let mut outline = Self {
            data: String::new(),
            x: number("x"),
            y: number("y"),
            scale: size / f32::from(face.units_per_em()),
        };
        let advance =
            |glyph: &GlyphId| f32::from(face.glyph_hor_advance(*glyph).unwrap_or_default());
        let width = outline.scale * glyphs.iter().map(advance).sum::<f32>();
        if has_class("middle") {
            outline.x -= width / 2.0;
        } else if has_class("end") {
            outline.x -= width;
        }
        for glyph in &glyphs {
            face.outline_glyph(*glyph, &mut outline);
            outline.x += outline.scale * advance(glyph);
        }
        outline.data
    }

    /// Appends a command of a path with its points. In a font, the vertical axis points up.
    fn push<const N: usize>(&mut self, command: char, points: [[f32; 2]; N]) {
        self.data.push(command);
        for [x, y] in points {
            let [x, y] = [self.x + self.scale * x, self.y - self.scale * y];
            write!(self.data, "{x} {y} ").expect("a string grows");
        }
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.push('M', [[x, y]]);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.push('L', [[x, y]]);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.push('Q', [[x1, y1], [x, y]]);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.push('C', [[x1, y1], [x2, y2], [x, y]]);
    }

    fn close(&mut self) {
        self.data.push('Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the smallest and the largest x of the letters of a text.
    fn extent(text: &str) -> [f32; 2] {
        let svg = outlined(&format!("<svg>{text}</svg>"));
        let document = Document::parse(&svg).unwrap();
        let path = document
            .descendants()
            .find(|node| node.has_tag_name("path"))
            .unwrap();
        let data = path
            .attribute("d")
            .unwrap()
            .replace(|c: char| c.is_ascii_alphabetic(), " ");
        let numbers = data
            .split_whitespace()
            .map(|number| number.parse::<f32>().unwrap());
        let x = || numbers.clone().step_by(2);
        [
            x().fold(f32::INFINITY, f32::min),
            x().fold(f32::NEG_INFINITY, f32::max),
        ]
    }

    #[test]
    fn letters_stand_where_the_style_sheet_puts_the_text() {
        let [left, right] = extent(r#"<text x="100" y="20">HH</text>"#);
        assert!(
            (100.0..102.0).contains(&left) && (115.0..120.0).contains(&right),
            "{left} {right}"
        );
        let [left, right] = extent(r#"<text class="middle muted" x="100" y="20">HH</text>"#);
        assert!((left + right - 200.0).abs() < 0.1, "{left} {right}");
        let [_, right] = extent(r#"<text class="end" x="100" y="20">HH</text>"#);
        assert!((98.0..100.0).contains(&right), "{right}");
        let [small_left, small_right] = extent(r#"<text class="small" x="0" y="20">HH</text>"#);
        let [left, right] = extent(r#"<text x="0" y="20">HH</text>"#);
        assert!(((small_right - small_left) / (right - left) - SMALL / SIZE).abs() < 1e-3);
    }

    #[test]
    fn letters_have_the_sizes_and_alignments_of_the_style_sheet() {
        let rules: Vec<&str> = crate::report::picture::STYLE.lines().collect();
        let family = r#"Roboto, "Helvetica Neue", Arial, sans-serif"#;
        for rule in [
            format!("text {{ font-family: {family}; font-size: {SIZE}px; }}"),
            format!(".small {{ font-size: {SMALL}px; }}"),
            ".middle { text-anchor: middle; }".to_owned(),
            ".end { text-anchor: end; }".to_owned(),
        ] {
            assert!(rules.contains(&rule.as_str()), "{rule}");
        }
        let sizes = rules.iter().filter(|rule| rule.contains("font-size"));
        assert_eq!(sizes.count(), 2, "a class that letters.rs does not know");
    }

    #[test]
    fn colours_and_transformations_are_kept_and_unknown_letters_drawn_as_a_sign() {
        let svg = outlined(
            r#"<svg><g><text class="alarm" transform="rotate(-45)">字</text></g><rect/></svg>"#,
        );
        assert!(
            svg.starts_with(r#"<svg><g><path class="letters alarm" transform="rotate(-45)" d="M"#),
            "{svg}"
        );
        assert!(svg.ends_with(r#""></path></g><rect/></svg>"#), "{svg}");
    }
}
