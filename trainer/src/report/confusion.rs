//! The confusion matrix: counts, coloured by their share of the row.

use super::picture::Picture;
use super::{short, shown_classes};
use crate::evaluate::Confusion;
use lenet_core::network::CLASSES;
use maud::html;

const CELL: u32 = 38;
const LEFT: u32 = 104;
const TOP: u32 = 82;

/// Draws one cell for each pair of classes, with one colour for correct predictions and another for wrong ones. The strength of
/// the colour is the square root of the share of the row, so that a few per cent are visible.
pub fn confusion(confusion: &Confusion, classes: &[String; CLASSES]) -> Picture {
    let shown = shown_classes(confusion, classes);
    let side = shown.len() as u32 * CELL;
    Picture {
        title: "Confusion matrix of the test images".to_owned(),
        width: LEFT + side + 36,
        height: TOP + side + 28,
        body: html! {
            @for (row, &label) in (0..).zip(&shown) {
                @let y = TOP + row * CELL;
                text class="end" x=(LEFT - 6) y=(y + 24) { (short(&classes[label])) }
                text transform={ "translate(" (LEFT + row * CELL + 22) " " (TOP - 6) ") rotate(-45)" } {
                    (short(&classes[label]))
                }
                @let images = confusion.0.row(label).sum().max(1);
                @for (column, &predicted) in (0..).zip(&shown) {
                    @let x = LEFT + column * CELL;
                    @let count = confusion.0[[label, predicted]];
                    @let strength = (f64::from(count) / f64::from(images)).sqrt();
                    @let kind = if label == predicted { "right" } else { "wrong" };
                    @if count > 0 {
                        rect class=(kind) x=(x) y=(y) width=(CELL - 1) height=(CELL - 1)
                            fill-opacity=(format!("{strength:.2}")) {}
                    }
                    @let ink = match count { 0 => "muted", _ if strength > 0.6 => "bright", _ => "ink" };
                    text class={ "middle " (ink) } x=(x + CELL / 2) y=(y + 24) { (count) }
                }
            }
            rect class="frame" x=(LEFT - 1) y=(TOP - 1) width=(side + 1) height=(side + 1) {}
            text class="middle muted" x=(LEFT + side / 2) y=(TOP + side + 20) {
                "rows: true class, columns: predicted class"
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_that_do_not_exist_are_left_out() {
        let mut logits = [[0.0; CLASSES]; 3];
        logits[1][1] = 1.0;
        logits[2][1] = 1.0;
        let mut classes: [String; CLASSES] = Default::default();
        classes[0] = "cat".to_owned();
        classes[1] = "a very long name".to_owned();
        let svg = confusion(&Confusion::new(&logits, &[0, 0, 1]), &classes).svg();
        assert_eq!(svg.matches("<rect class=\"right\"").count(), 2);
        assert_eq!(svg.matches("<rect class=\"wrong\"").count(), 1);
        assert!(
            svg.contains("a very long…") && svg.contains("fill-opacity=\"0.71\""),
            "{svg}"
        );
    }
}
