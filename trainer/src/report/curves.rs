//! The loss and the accuracies by epoch on one axis, as in Dive into Deep Learning.

use super::metrics::Metrics;
use super::picture::Picture;
use maud::html;

/// The column of the metrics, its label, and its class in the style sheet.
const SERIES: [(&str, &str, &str); 4] = [
    ("train_loss", "train loss", "loss"),
    ("train_acc", "train acc", "train"),
    ("val_acc", "val acc", "val"),
    ("test_acc", "test acc", "test"),
];

const WIDTH: u32 = 480;
/// The height of the area inside the axes.
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = WIDTH as f64 - 10.0;
/// The number of legend entries in a row.
const LEGEND_COLUMNS: usize = 3;
const LEGEND_ROW: f64 = 20.0;
/// The number of epochs above which dots would hide the lines.
const MAX_DOTTED: f64 = 20.0;

/// Draws each known column of the metrics.
pub fn curves(metrics: &Metrics) -> Picture {
    let epochs = metrics.column("epoch").expect("checked when read");
    let series: Vec<_> = SERIES
        .iter()
        .filter_map(|&(column, words, class)| {
            let points: Vec<(f64, f64)> = epochs
                .iter()
                .copied()
                .zip(metrics.column(column)?)
                .filter(|(_, y)| y.is_finite())
                .collect();
            let last = points.last()?.1;
            Some((points, format!("{words} {last:.3}"), class))
        })
        .collect();

    let (first, last) = (epochs[0], *epochs.last().expect("not empty"));
    let largest = series
        .iter()
        .flat_map(|(points, ..)| points)
        .fold(0.0, |largest: f64, point| largest.max(point.1));
    let y_step = step(largest.max(0.1), 6.0);
    let y_ticks = (largest / y_step).ceil().max(1.0);
    let x_step = step((last - first).max(1.0), 10.0).max(1.0);

    let top = 10.0 + LEGEND_ROW * series.len().div_ceil(LEGEND_COLUMNS) as f64;
    let bottom = top + HEIGHT;
    // A single epoch is drawn in the middle.
    let (x_from, x_to) = if first < last {
        (first, last)
    } else {
        (first - 1.0, first + 1.0)
    };
    let x = |epoch: f64| LEFT + 8.0 + (epoch - x_from) / (x_to - x_from) * (RIGHT - LEFT - 16.0);
    let y = |value: f64| bottom - value / (y_ticks * y_step) * HEIGHT;
    let x_ticks = (first / x_step).ceil() as u64..=(last / x_step).floor() as u64;

    Picture {
        title: "Loss and accuracy by epoch".to_owned(),
        width: WIDTH,
        height: bottom as u32 + 42,
        body: html! {
            @for tick in 0..=y_ticks as u32 {
                @let value = f64::from(tick) * y_step;
                line class="grid" x1=(LEFT) x2=(RIGHT) y1=(px(y(value))) y2=(px(y(value))) {}
                text class="end muted" x=(LEFT - 6.0) y=(px(y(value) + 4.5)) { (tidy(value)) }
            }
            @for tick in x_ticks {
                @let epoch = tick as f64 * x_step;
                @let at = px(x(epoch));
                line class="grid" x1=(at) x2=(at) y1=(top) y2=(bottom) {}
                text class="middle muted" x=(at) y=(bottom + 17.0) { (epoch) }
            }
            rect class="frame" x=(LEFT) y=(top) width=(RIGHT - LEFT) height=(HEIGHT) {}
            text class="middle" x=((LEFT + RIGHT) / 2.0) y=(bottom + 36.0) { "epoch" }
            @for (entry, (points, words, class)) in series.iter().enumerate() {
                @let legend_x = LEFT + (entry % LEGEND_COLUMNS) as f64 * 146.0;
                @let legend_y = 12.0 + (entry / LEGEND_COLUMNS) as f64 * LEGEND_ROW;
                line class={ "line " (class) } x1=(legend_x) x2=(legend_x + 28.0) y1=(legend_y) y2=(legend_y) {}
                text x=(legend_x + 34.0) y=(legend_y + 4.5) { (words) }
                polyline class={ "line " (class) } points=(path(points, x, y)) {}
                @if last - first < MAX_DOTTED {
                    @for point in points {
                        circle class={ (class) " dot" } cx=(px(x(point.0))) cy=(px(y(point.1))) r="2.5" {}
                    }
                }
            }
        },
    }
}

fn path(points: &[(f64, f64)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let points: Vec<String> = points
        .iter()
        .map(|point| format!("{},{}", px(x(point.0)), px(y(point.1))))
        .collect();
    points.join(" ")
}

/// Returns the smallest of 1, 2, 5, 10, ... (or 0.1, 0.2, ...) that divides `range` into at most `parts` parts.
fn step(range: f64, parts: f64) -> f64 {
    let power = 10f64.powf((range / parts).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|step| range / step <= parts)
        .unwrap_or(10.0 * power)
}

/// Formats a coordinate, to a tenth of a unit.
fn px(value: f64) -> String {
    format!("{value:.1}")
}

/// Formats the number of a tick, without the rounding errors of adding steps.
fn tidy(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        assert_eq!(step(2.3, 6.0), 0.5);
        assert_eq!(step(0.9, 6.0), 0.2);
        assert_eq!(step(4.0, 10.0), 0.5);
        assert_eq!(step(49.0, 10.0), 5.0);
    }

    #[test]
    fn numbers_of_ticks_are_short() {
        assert_eq!(
            [0.0, 0.1 + 0.2, 2.5, 10.0].map(tidy),
            ["0", "0.3", "2.5", "10"]
        );
    }
}
