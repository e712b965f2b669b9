//! The output of a training run: lines of text, JSON objects for programs, or nothing. On a terminal, also a progress bar and, at
//! the end, the curves of loss and accuracy.

use super::out::{Out, warn};
use crate::config::Settings;
use crate::train::{Epoch, Partial};
use clap::ValueEnum;
use console::Term;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde_json::Value;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use textplots::{Chart, LabelBuilder, LabelFormat, Plot, Shape};

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    Text,
    /// One JSON object per line: for the start, each epoch, and the end
    Json,
}

/// Prints the progress of a training run.
pub struct Console {
    /// `None` prints nothing.
    format: Option<LogFormat>,
    bar: ProgressBar,
    closed: AtomicBool,
}

impl Console {
    pub fn new(format: LogFormat, quiet: bool) -> Self {
        Self {
            format: (!quiet).then_some(format),
            bar: ProgressBar::hidden(),
            closed: AtomicBool::new(false),
        }
    }

    fn print(&self, text: impl std::fmt::Display) {
        if let Err(error) = self.bar.suspend(|| writeln!(Out, "{text}"))
            && !self.closed.swap(true, Ordering::Relaxed)
        {
            warn(error);
        }
    }

    /// Returns whether writing to the standard output has failed, for example because a pipe was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Prints a line for people.
    pub fn line(&self, line: impl std::fmt::Display) {
        if self.format == Some(LogFormat::Text) {
            self.print(line);
        }
    }

    /// Prints an object for programs.
    pub fn object(&self, object: &Value) {
        if self.format == Some(LogFormat::Json) {
            self.print(object);
        }
    }

    /// Shows a progress bar with `done` of `steps` steps if the error stream is a terminal.
    pub fn start_bar(&mut self, steps: u64, done: u64, images_per_step: f64) {
        if self.format == Some(LogFormat::Text) {
            let rate = move |state: &ProgressState, out: &mut dyn Write| {
                // An error on the terminal is ignored, because it only affects the progress bar.
                let _ = write!(out, "{:.0} images/s", state.per_sec() * images_per_step);
            };
            let style = ProgressStyle::with_template("{msg} {wide_bar} {rate}, {eta} left")
                .expect("the template is well formed")
                .with_key("rate", rate);
            self.bar = ProgressBar::new(steps)
                .with_style(style)
                .with_position(done);
            self.bar.reset_eta();
        }
    }

    /// Advances the progress bar by one step.
    pub fn step(&self, epoch: u32, loss: f32, partial: &Partial) {
        let accuracy = f64::from(partial.correct) / f64::from(partial.images);
        self.bar
            .set_message(format!("epoch {epoch}, loss {loss:.4}, acc {accuracy:.3}"));
        self.bar.inc(1);
    }

    /// Prints the results of an epoch. The text has the same form as in the course.
    pub fn epoch(&self, epoch: &Epoch, settings: &Settings) {
        let Epoch {
            epoch,
            train_loss,
            train_acc,
            held_out_acc,
            seconds,
        } = epoch;
        let held_out = settings.held_out();
        self.line(format_args!(
            "epoch {epoch}, loss {train_loss:.4}, train acc {train_acc:.3}, {held_out} acc {held_out_acc:.3}, time {seconds:.1} sec"
        ));
        self.object(&serde_json::json!({
            "event": "epoch",
            "epoch": epoch,
            "train_loss": train_loss,
            "train_acc": train_acc,
            (format!("{held_out}_acc")): held_out_acc,
            "seconds": seconds,
        }));
    }

    /// Removes the progress bar.
    pub fn end_bar(&self) {
        self.bar.finish_and_clear();
    }

    /// Draws the curves if there are at least two epochs and the output is a terminal that is wide enough.
    pub fn curves(&self, epochs: &[Epoch], settings: &Settings) {
        let columns = Term::stdout().size_checked().map(|(_, columns)| columns);
        if epochs.len() > 1 && columns >= Some(COLUMNS) {
            self.line(curves(epochs, settings.held_out()));
        }
    }
}

/// The size of a curve in Braille dots; a character has two by four of them.
const WIDTH: u32 = 58;
const HEIGHT: u32 = 27;

/// The width of a terminal that both curves need.
const COLUMNS: u16 = 80;

/// Draws loss and accuracy by epoch side by side, in 9 lines of up to 75 characters.
fn curves(epochs: &[Epoch], held_out: &str) -> String {
    let loss = curve("loss", epochs, |epoch| epoch.train_loss);
    let accuracy = format!("{held_out} acc");
    let accuracy = curve(&accuracy, epochs, |epoch| epoch.held_out_acc);
    let lines = loss.lines().zip(accuracy.lines());
    let beside: Vec<_> = lines
        .map(|(left, right)| format!("{left:37} {right}").trim_end().to_owned())
        .collect();
    beside.join("\n")
}

/// Draws a value by epoch: its name, the curve with the range of the values beside it, and the first and last epoch.
fn curve(name: &str, epochs: &[Epoch], value: fn(&Epoch) -> f64) -> String {
    let points: Vec<(f32, f32)> = epochs
        .iter()
        .map(|epoch| (epoch.epoch as f32, value(epoch) as f32))
        .collect();
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    let mut chart = Chart::new(WIDTH, HEIGHT, first, last);
    let line = Shape::Lines(&points);
    let chart = chart
        .lineplot(&line)
        .x_label_format(LabelFormat::Custom(Box::new(|epoch| epoch.to_string())))
        .y_label_format(LabelFormat::Custom(Box::new(|value| format!("{value:.3}"))));
    chart.figures();
    format!("{name} by epoch\n{chart}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(values: &[(f64, f64)]) -> Vec<Epoch> {
        let epoch = |(epoch, &(train_loss, held_out_acc))| Epoch {
            epoch,
            train_loss,
            train_acc: 0.0,
            held_out_acc,
            seconds: 1.0,
        };
        (1..).zip(values).map(epoch).collect()
    }

    /// The loss falls and the accuracy rises. Braille blanks are shown as dots.
    #[test]
    fn the_curves_of_loss_and_accuracy_are_drawn_side_by_side() {
        let found = curves(&epochs(&[(2.0, 0.25), (1.0, 0.5), (0.0, 0.75)]), "test");
        let expected = [
            "loss by epoch                         test acc by epoch",
            "⠉⠑⠢⢄⡀......................... 2.000  ..........................⣀⠤⠒⠁ 0.750",
            "....⠈⠉⠒⠤⣀.....................        .....................⢀⡠⠔⠒⠉....",
            ".........⠉⠑⠢⢄⡀................        .................⣀⠤⠒⠊⠁........",
            ".............⠈⠑⠒⠤⣀............        ............⢀⡠⠔⠒⠉.............",
            "..................⠉⠒⠤⣀........        ........⢀⡠⠔⠊⠁.................",
            "......................⠉⠒⠤⣀....        ....⢀⡠⠔⠊⠁.....................",
            "..........................⠉⠒⠤⡀ 0.000  ⣀⡠⠔⠊⠁......................... 0.250",
            "1                           3         1                           3",
        ];
        let found = found.replace('\u{2800}', ".");
        assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn curves_of_long_and_of_constant_runs_fit_a_terminal() {
        let level = vec![(2.302, 0.1); 2];
        let long = (1..=1000).map(|i| (1.0 / f64::from(i), f64::from(i) / 1000.0));
        for values in [level, long.collect()] {
            let found = curves(&epochs(&values), "test");
            let widest = found.lines().map(|line| line.chars().count()).max();
            assert!(
                found.lines().count() <= 12 && widest < Some(COLUMNS.into()),
                "{found}"
            );
        }
    }
}
