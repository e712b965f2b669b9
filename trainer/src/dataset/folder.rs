//! A data set of one's own: a folder a class, with PNG and JPEG files in it.
//!
//! Either `train/NAME/*` and `test/NAME/*`, or `NAME/*` alone, of which a share is set aside for the test. Classes are
//! numbered by the order of their names, images ordered by theirs.

use super::{ImageOptions, MAX_CLASS_NAME, Order, Split, is_class_name, read_image};
use crate::error::Error;
use lenet_core::network::{CLASSES, Pixels};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

const TRAIN: &str = "train";
const TEST: &str = "test";

/// What a folder of class folders holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Names of the classes; empty where there is none.
    pub classes: [String; CLASSES],
    /// What is trained on.
    pub train: Split,
    /// What is tested on.
    pub test: Split,
}

/// Whether a folder is such a data set: it has `train` or `test`, or a folder with a PNG or JPEG file in it.
pub fn looks_like(folder: &Path) -> bool {
    let is_image = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        ["png", "jpg", "jpeg"]
            .iter()
            .any(|known| extension == *known)
    };
    let has_images = |path: &PathBuf| {
        path.is_dir() && entries(path).is_ok_and(|entries| entries.iter().any(is_image))
    };
    [TRAIN, TEST].iter().any(|name| folder.join(name).is_dir())
        || entries(folder).is_ok_and(|entries| entries.iter().any(has_images))
}

/// Reads all images. `test_split` is the share of each class to test on, where `train` and `test` are not apart.
///
/// # Errors
/// * `Io`: a folder or file cannot be read
/// * `Data`: one of them is not what it should be: see the sentence
/// * `Settings`: `test_split` is missing, or given though `train` and `test` are apart
pub fn read(
    folder: &Path,
    test_split: Option<f64>,
    options: ImageOptions,
) -> Result<Folder, Error> {
    let apart = [TRAIN, TEST].iter().any(|name| folder.join(name).is_dir());
    match (apart, test_split) {
        (true, Some(_)) => {
            return Err(Error::Settings(format!(
                "{} has folders {TRAIN} and {TEST}; --test-split is for class folders that are not in them",
                folder.display()
            )));
        }
        (false, None) => {
            return Err(Error::Settings(format!(
                "{} has no folder {TRAIN}. Put the class folders into {TRAIN} and {TEST}, or say with --test-split F \
                 which share of each class to test on",
                folder.display()
            )));
        }
        _ => {}
    }
    let root = if apart {
        folder.join(TRAIN)
    } else {
        folder.to_owned()
    };
    let names = class_names(&root)?;
    let train = files(&root, &names)?;
    let (train, test) = match test_split {
        Some(share) => split(train, share),
        None => {
            let root = folder.join(TEST);
            if let Some(stranger) = class_names(&root)?
                .into_iter()
                .find(|name| !names.contains(name))
            {
                return Err(Error::Data {
                    path: root.join(stranger),
                    problem: format!(
                        "a class that {TRAIN} does not have; it has {}",
                        names.join(", ")
                    ),
                });
            }
            (train, files(&root, &names)?)
        }
    };
    let mut classes: [String; CLASSES] = Default::default();
    classes[..names.len()].clone_from_slice(&names);
    Ok(Folder {
        classes,
        train: images(folder, TRAIN, train, options)?,
        test: images(folder, TEST, test, options)?,
    })
}

/// The names of the class folders, sorted.
fn class_names(root: &Path) -> Result<Vec<String>, Error> {
    let data = |path: &Path, problem| Error::Data {
        path: path.to_owned(),
        problem,
    };
    let mut names = Vec::new();
    for path in entries(root)? {
        let name = path.file_name().unwrap_or_default().to_str();
        match name.filter(|name| is_class_name(name)) {
            _ if !path.is_dir() => {
                return Err(data(
                    &path,
                    "stands beside the class folders; expected folders only".to_owned(),
                ));
            }
            None => {
                return Err(data(
                    &path,
                    format!(
                        "the name of a class has at most {MAX_CLASS_NAME} bytes of UTF-8, none of them a control character"
                    ),
                ));
            }
            Some(name) => names.push(name.to_owned()),
        }
    }
    match names.len() {
        1..=CLASSES => Ok(names),
        0 => Err(data(root, "no class folder in it".to_owned())),
        count => Err(data(
            root,
            format!(
                "{count} class folders ({}); this network has {CLASSES} classes",
                names.join(", ")
            ),
        )),
    }
}

/// The image files of each class, sorted; none where a class has no folder.
fn files(root: &Path, names: &[String]) -> Result<Vec<Vec<PathBuf>>, Error> {
    let of = |name: &String| match root.join(name) {
        folder if folder.is_dir() => entries(&folder),
        _ => Ok(Vec::new()),
    };
    names.iter().map(of).collect()
}

/// Sets `share` of each class aside, at least one image of two and never all: the same ones each time.
fn split(classes: Vec<Vec<PathBuf>>, share: f64) -> (Vec<Vec<PathBuf>>, Vec<Vec<PathBuf>>) {
    let halves = (0..).zip(classes).map(|(class, files)| {
        let len = files.len();
        let test = ((len as f64 * share).round() as usize)
            .max(1)
            .min(len.saturating_sub(1));
        let order = Order::shuffled(0, class, len);
        let mut tested = vec![false; len];
        for position in 0..test {
            tested[order.index(position)] = true;
        }
        let (test, train): (Vec<_>, Vec<_>) = files
            .into_iter()
            .zip(tested)
            .partition(|(_, tested)| *tested);
        let paths = |files: Vec<(PathBuf, bool)>| files.into_iter().map(|(path, _)| path).collect();
        (paths(train), paths(test))
    });
    halves.unzip()
}

/// Reads the files, in the order of the classes.
fn images(
    folder: &Path,
    split: &str,
    classes: Vec<Vec<PathBuf>>,
    options: ImageOptions,
) -> Result<Split, Error> {
    let files: Vec<(u8, PathBuf)> = (0..)
        .zip(classes)
        .flat_map(|(class, files)| files.into_iter().map(move |file| (class, file)))
        .collect();
    if files.is_empty() {
        return Err(Error::Data {
            path: folder.to_owned(),
            problem: format!("no image to {split} on"),
        });
    }
    let images: Vec<Pixels> = files
        .par_iter()
        .map(|(_, path)| {
            let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
            read_image(&bytes, options).map_err(|problem| Error::Data {
                path: path.clone(),
                problem,
            })
        })
        .collect::<Result<_, _>>()?;
    let labels = files.into_iter().map(|(class, _)| class).collect();
    Ok(Split::new(bytemuck::cast_slice(&images).to_vec(), labels))
}

/// What is in a folder, sorted by name; hidden files are left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::io("cannot be read", folder)(source);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_each_class_is_set_aside_and_always_the_same() {
        let class = |len: usize| {
            (0..len)
                .map(|i| PathBuf::from(format!("{i:03}")))
                .collect::<Vec<_>>()
        };
        let classes = || [20, 1, 2, 0].map(class).to_vec();
        let (train, test) = split(classes(), 0.25);
        let len = |split: &[Vec<PathBuf>]| split.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(
            (len(&train), len(&test)),
            (vec![15, 1, 1, 0], vec![5, 0, 1, 0])
        );
        let mut all = [train[0].clone(), test[0].clone()].concat();
        all.sort();
        assert_eq!(all, classes()[0]);
        assert_eq!(split(classes(), 0.25), (train, test));
    }
}
