//! What is said, and done, where the classes of weights and of data have other numbers or other names.

use super::out::{note, warn};
use crate::classes::{Matching, of_weights, reordered};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::weights_file::{Weights, class_names};
use lenet_core::network::Params;
use lenet_core::weights::Metadata;
use std::path::Path;

/// What to do about class names.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct ClassArgs {
    /// Match classes by number instead of by name, even if the names in the data and in the weights differ
    #[arg(long)]
    ignore_class_names: bool,
}

impl ClassArgs {
    /// Numbers the data's classes as the weights do, which come from the file at `path`: a label is then the index of its
    /// logit.
    ///
    /// # Errors
    /// `Classes`: the data has classes that the weights do not know
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

/// Returns the parameters with their outputs in the order of the data's classes, to train on.
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

/// Returns the order of the outputs of `b` that is that of `a`, to compare them, where it is another one: output `i` of `a` is
/// output `order[i]` of `b`.
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
