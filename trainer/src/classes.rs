//! Matches the classes of weights and data by their names.
//!
//! Both weights and data sets have names for their classes. The same class may have different numbers in the two: class folders
//! are numbered in the order of their names, a list of names in the order of its lines.

use crate::weights_file::IMPORTED;
use lenet_core::network::{CLASSES, Params, TENSORS};
use lenet_core::weights::Metadata;

/// How the class numbers of two sides correspond, judged by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matching {
    /// The numbers correspond: the names are the same, or one side has none.
    Same,
    /// Unknown: one side has names, the other only numbers in their place.
    Numbers,
    /// The names are the same, in another order: for each class of this side the number on the other side.
    Moved(Vec<usize>),
    /// This side has names that the other lacks.
    Differ {
        /// These names.
        missing: Vec<String>,
        /// For each class of this side a class of the other: the one with the same name, or one of the rest, in order.
        order: Vec<usize>,
    },
}

impl Matching {
    /// Compares the names of this side with those of the other, which may have more of them. `""` means no name.
    pub fn new(these: &[&str], others: &[&str]) -> Self {
        let named = |names: &[&str]| names.iter().filter(|name| !name.is_empty()).count();
        if named(these) == 0 || named(others) == 0 {
            return Self::Same;
        }
        let name_of = |class: usize| these.get(class).copied().unwrap_or_default();
        let places: Vec<Option<usize>> = (0..CLASSES)
            .map(|class| {
                let name = Some(name_of(class)).filter(|name| !name.is_empty())?;
                others.iter().position(|other| *other == name)
            })
            .collect();
        let missing: Vec<String> = (0..CLASSES)
            .filter(|&class| !name_of(class).is_empty() && places[class].is_none())
            .map(|class| name_of(class).to_owned())
            .collect();
        if !missing.is_empty() {
            let found = places.iter().flatten().count();
            return match found == 0 && (are_numbers(these) || are_numbers(others)) {
                true => Self::Numbers,
                false => Self::Differ {
                    missing,
                    order: completed(&places),
                },
            };
        }
        let order = completed(&places);
        match order.iter().copied().eq(0..CLASSES) {
            true => Self::Same,
            false => Self::Moved(order),
        }
    }
}

/// Returns the names in a weights file; none if nobody has given any.
pub fn of_weights<'a>(metadata: &Metadata<'a>) -> Vec<&'a str> {
    // Weights from other programs come with numbers in place of unknown names.
    let is_known = metadata.classes != IMPORTED.classes
        || !metadata
            .provenance
            .recipe
            .starts_with(IMPORTED.provenance.recipe);
    metadata.classes.iter().filter(|_| is_known).collect()
}

/// Returns the parameters with their outputs (the classes) in another order: output `i` of the result is output `order[i]` of
/// `params`.
pub fn reordered(params: &Params, order: &[usize]) -> Box<Params> {
    let mut moved = Box::new(*params);
    for tensor in &TENSORS[TENSORS.len() - 2..] {
        let range = tensor.offset..tensor.offset + tensor.len();
        let row = tensor.len() / CLASSES;
        let from = params.as_flat()[range.clone()].chunks_exact(row);
        let from: Vec<&[f32]> = from.collect();
        let to = moved.as_flat_mut()[range].chunks_exact_mut(row);
        for (to, &class) in to.zip(order) {
            to.copy_from_slice(from[class]);
        }
    }
    moved
}

/// Returns whether each name is just the number of its class.
fn are_numbers(names: &[&str]) -> bool {
    let mut names = names.iter().enumerate();
    names.all(|(class, name)| name.is_empty() || *name == class.to_string())
}

/// Completes a partial permutation: the classes without a place get the remaining places, in order.
fn completed(places: &[Option<usize>]) -> Vec<usize> {
    let mut taken = [false; CLASSES];
    let mut first = |place: usize| !std::mem::replace(&mut taken[place], true);
    // If two classes have the same name, the second needs another place.
    let places: Vec<Option<usize>> = places
        .iter()
        .map(|place| place.filter(|&place| first(place)))
        .collect();
    let mut left: Vec<usize> = (0..CLASSES).filter(|&place| !taken[place]).collect();
    // A class keeps its own number if it can.
    places
        .iter()
        .enumerate()
        .map(|(class, place)| {
            place.unwrap_or_else(|| {
                let own = left.iter().position(|&place| place == class);
                left.remove(own.unwrap_or(0))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::initial_params;
    use Matching::{Differ, Moved, Numbers, Same};

    /// Returns an order that begins with `first` and continues with the numbers of the other classes.
    fn order(first: &[usize]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..CLASSES).collect();
        order[..first.len()].copy_from_slice(first);
        order
    }

    #[test]
    fn the_same_names_in_another_order_are_moved() {
        assert_eq!(Matching::new(&["a", "b"], &["a", "b"]), Same);
        assert_eq!(
            Matching::new(&["a", "b"], &["b", "a"]),
            Moved(order(&[1, 0]))
        );
        // The other side may have more classes, and some classes of this side may have no name.
        assert_eq!(Matching::new(&["a", ""], &["a", "b"]), Same);
        assert_eq!(Matching::new(&["b"], &["a", "b"]), Moved(order(&[1, 0])));
        // Folders 1 to 3 sort alike as text and as numbers; a folder 10 comes second.
        if CLASSES > 2 {
            assert_eq!(
                Matching::new(&["1", "10", "2"], &["1", "2", "10"]),
                Moved(order(&[0, 2, 1]))
            );
        }
    }

    #[test]
    fn names_that_one_side_lacks_are_listed() {
        let differ = |missing: &[&str], first: &[usize]| Differ {
            missing: missing.iter().map(|&name| name.to_owned()).collect(),
            order: order(first),
        };
        assert_eq!(Matching::new(&["a", "c"], &["a", "b"]), differ(&["c"], &[]));
        assert_eq!(
            Matching::new(&["x", "a"], &["a", "b"]),
            differ(&["x"], &[1, 0])
        );
        // Folders 0 to 2, with weights trained on folders 1 to 3.
        if CLASSES > 2 {
            assert_eq!(
                Matching::new(&["0", "1", "2"], &["1", "2", "3"]),
                differ(&["0"], &[2, 0, 1])
            );
        }
        assert_eq!(
            Matching::new(&["a", "b"], &["c", "d"]),
            differ(&["a", "b"], &[])
        );
    }

    #[test]
    fn missing_names_never_count_as_different() {
        assert_eq!(Matching::new(&["0", "1"], &["cat", "dog"]), Numbers);
        assert_eq!(Matching::new(&["cat", "dog"], &["0", "1"]), Numbers);
        assert_eq!(Matching::new(&["cat"], &[]), Same);
        assert_eq!(Matching::new(&["", ""], &["cat"]), Same);
    }

    #[test]
    fn reordered_parameters_give_the_same_logits_in_the_new_order() {
        let params = initial_params(3);
        let order: Vec<usize> = (0..CLASSES).map(|class| (class + 3) % CLASSES).collect();
        let image = bytemuck::Zeroable::zeroed();
        let logits = |params| crate::evaluate::core_logits(params, &[image])[0];
        let (before, after) = (logits(&params), logits(&reordered(&params, &order)));
        for (class, &from) in order.iter().enumerate() {
            assert_eq!(after[class].to_bits(), before[from].to_bits());
        }
        assert_ne!(before, after);
    }
}
