//! Matches the classes of a weights file with those of a data set, or of another weights file, and warns if they differ.

use super::out::{note, warn};
use crate::classes::{Matching, of_weights, reordered};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::weights_file::{Weights, class_names};
use lenet_core::network::Params;
use lenet_core::weights::Metadata;
use std::path::Path;

/// Whether classes are matched by name.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct ClassArgs {
    /// Match classes by number instead of by name, even if the names in the data and in the weights differ
    #[arg(long)]
    ignore_class_names: bool,
}

impl ClassArgs {
    /// Renumbers the data's classes in the order of the weights' outputs, so that a label is the index of its logit. `path` is the
    /// weights file, for messages.
    ///
    /// # Errors
    /// `Classes`: the data has classes that the weights do not have.
    pub fn apply(
        self,
        data: &mut Dataset,
        weights: &Metadata<'_>,
        path: &Path,
    ) -> Result<(), Error> {
        if self.ignore_class_names {
            return Ok(());
        }
        match matching(data, weights) {
            Matching::Same => {}
            Matching::Numbers => warn(format_args!(
                "{}; label n stands for output n",
                only_numbers(data, path)
            )),
            Matching::Moved(order) => {
                for split in [&mut data.train, &mut data.test]
                    .into_iter()
                    .chain(&mut data.val)
                {
                    split.relabel(|label| order[usize::from(label)] as u8);
                }
                data.classes = class_names(&weights.classes).map(str::to_owned);
                note(format_args!("{}", in_another_order(data, path)));
            }
            Matching::Differ { missing, .. } => {
                return Err(Error::Classes {
                    path: path.to_owned(),
                    data: data.name.clone(),
                    known: of_weights(weights).join(", "),
                    missing: missing.join(", "),
                });
            }
        }
        Ok(())
    }
}

/// Returns the parameters with their outputs in the order of the data's classes, to continue training. Prints a note or a warning
/// if the classes differ.
pub fn for_training(data: &Dataset, weights: &Weights<'_>, path: &Path) -> Box<Params> {
    let order = match matching(data, &weights.metadata) {
        Matching::Same => return Box::new(*weights.params),
        Matching::Numbers => {
            warn(format_args!(
                "{}; output n begins as label n",
                only_numbers(data, path)
            ));
            return Box::new(*weights.params);
        }
        Matching::Moved(order) => {
            note(in_another_order(data, path));
            order
        }
        Matching::Differ { missing, order } => {
            warn(format_args!(
                "{} does not know these classes of {}: {}; it knows {}. The outputs of classes that it knows begin as they \
                 are in the file, the others as those of other classes",
                path.display(),
                data.name,
                missing.join(", "),
                of_weights(&weights.metadata).join(", ")
            ));
            order
        }
    };
    reordered(weights.params, &order)
}

/// Returns how to reorder the outputs of `b` to compare them with those of `a`: output `i` of `a` belongs to output `order[i]` of
/// `b`. Returns `None` if output `i` belongs to output `i`.
pub fn for_comparison(a: (&Metadata<'_>, &Path), b: (&Metadata<'_>, &Path)) -> Option<Vec<usize>> {
    let names = [a, b].map(|(weights, _)| of_weights(weights));
    let [a_path, b_path] = [a, b].map(|(_, path)| path.display());
    match Matching::new(&names[0], &names[1]) {
        Matching::Same | Matching::Numbers => None,
        Matching::Moved(order) => {
            note(format_args!(
                "{b_path} has its classes in another order than {a_path}: its outputs are compared by their names"
            ));
            Some(order)
        }
        Matching::Differ { missing, .. } => {
            warn(format_args!(
                "{b_path} does not know these classes of {a_path}: {}; output n is compared with output n",
                missing.join(", ")
            ));
            None
        }
    }
}

/// Compares the names of the data's classes with those of the weights.
fn matching(data: &Dataset, weights: &Metadata<'_>) -> Matching {
    let names = data.classes.each_ref().map(String::as_str);
    Matching::new(&names, &of_weights(weights))
}

fn only_numbers(data: &Dataset, path: &Path) -> String {
    format!(
        "the classes of {} or of {} have only numbers for names, and so cannot be compared",
        data.name,
        path.display()
    )
}

fn in_another_order(data: &Dataset, path: &Path) -> String {
    format!(
        "{} has its classes in another order than {}: they are matched by their names",
        path.display(),
        data.name
    )
}
