//! Reads a user's own data set: one folder of pictures per class.
//!
//! Classes are numbered in the order of their names, and images ordered by theirs. Files that are not pictures are left out and
//! counted.

use super::listing::{LeftOut, Listing};
use super::locate::is_run;
use super::names::class_name;
use super::shape::SHAPE;
use super::{ImageOptions, Split, image};
use crate::error::Error;
use lenet_core::network::CLASSES;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The content of the class folders.
#[derive(Debug)]
pub(super) struct Folder {
    /// Names of the classes; empty for a class without a name.
    pub classes: [String; CLASSES],
    /// The training images.
    pub train: Split,
    /// The test images, if they have their own folder.
    pub test: Option<Split>,
    /// Changes made to the pictures that the user may not expect.
    pub notes: Vec<String>,
    /// Warnings about what was left out.
    pub warnings: Vec<String>,
    /// The classes and splits (0 for training, 1 for tests) whose folder is empty according to `warnings`.
    pub empty_folders: BTreeSet<(usize, usize)>,
}

/// The folders of each class, by name: one, or one for each Unicode form of the name.
type Classes = BTreeMap<String, Vec<PathBuf>>;

/// Reads all images of the class folders in `train`, and in `test` if there is one.
///
/// # Errors
/// * `Io`: a folder or file cannot be read
/// * `Data`: a folder or file is invalid; the sentence says why
pub(super) fn read(
    train: &Path,
    test: Option<&Path>,
    options: ImageOptions,
) -> Result<Folder, Error> {
    let mut left_out = LeftOut::default();
    let classes = class_folders(train, &mut left_out)?;
    let count = classes.len();
    let list = || {
        let names: Vec<&str> = classes.keys().map(String::as_str).collect();
        names.join(", ")
    };
    if count == 0 || count > CLASSES {
        let problem = match count {
            0 => "no class folder in it; expected a folder of pictures for each class".to_owned(),
            _ => format!(
                "{count} class folders ({}); this network has {CLASSES} classes",
                list()
            ),
        };
        return Err(data(train, problem));
    }
    let train_files = files(&classes, &mut left_out)?;
    if train_files.iter().all(Vec::is_empty) {
        let problem = format!(
            "no picture in its class folders ({}){}",
            list(),
            parenthesis(&left_out)
        );
        return Err(data(train, problem));
    }
    let mut warnings = Vec::new();
    let mut empty_folders = BTreeSet::new();
    let is_empty = |folder: &Path| format!("{}: no picture in this class folder", folder.display());
    for (class, folders) in classes.values().enumerate() {
        if train_files[class].is_empty() {
            warnings.push(is_empty(&folders[0]));
            empty_folders.insert((class, 0));
        }
    }
    let mut test_files = None;
    if let Some(test) = test {
        let of_test = class_folders(test, &mut left_out)?;
        let found = files(&of_test, &mut left_out)?;
        let mut of_each = vec![Vec::new(); count];
        for ((name, folders), found) in of_test.into_iter().zip(found) {
            let class = classes.keys().position(|class| *class == name);
            if found.is_empty() {
                warnings.push(is_empty(&folders[0]));
                empty_folders.extend(class.map(|class| (class, 1)));
            }
            match class {
                Some(class) => of_each[class] = found,
                // An empty folder is not a class.
                None if found.is_empty() => {}
                None => {
                    let train = train.display();
                    let problem = format!("a class that {train} does not have; it has {}", list());
                    return Err(data(&folders[0], problem));
                }
            }
        }
        if of_each.iter().all(Vec::is_empty) {
            let problem = format!("no picture in its class folders{}", parenthesis(&left_out));
            return Err(data(test, problem));
        }
        test_files = Some(of_each);
    }
    if let Some(first) = left_out.first() {
        warnings.push(format!(
            "ignored, because they are not pictures in class folders: {} (the first: {})",
            left_out.counts(),
            first.display()
        ));
    }

    let coloured = AtomicUsize::new(0);
    let pictures = [Some(&train_files), test_files.as_ref()];
    let pictures: usize = pictures.into_iter().flatten().flatten().map(Vec::len).sum();
    let train = pixels(train_files, options, &coloured)?;
    let test = test_files.map(|files| pixels(files, options, &coloured));
    let test = test.transpose()?;
    let coloured = coloured.into_inner();
    let mut notes = Vec::new();
    if SHAPE.channels == 1 && coloured > 0 {
        notes.push(format!(
            "{coloured} of {pictures} pictures have colour; they are converted to grey, as this network has one channel"
        ));
    }
    if SHAPE.channels > 1 && coloured < pictures {
        notes.push(format!(
            "{} of {pictures} pictures are grey; they fill all {} channels of this network alike",
            pictures - coloured,
            SHAPE.channels
        ));
    }
    let mut names: [String; CLASSES] = std::array::from_fn(|_| String::new());
    for (name, class) in names.iter_mut().zip(classes.into_keys()) {
        *name = class;
    }
    Ok(Folder {
        classes: names,
        train,
        test,
        notes,
        warnings,
        empty_folders,
    })
}

fn data(path: &Path, problem: String) -> Error {
    Error::Data {
        path: path.to_owned(),
        problem,
    }
}

fn parenthesis(left_out: &LeftOut) -> String {
    match left_out.is_empty() {
        true => String::new(),
        false => format!(" (what is there instead: {})", left_out.counts()),
    }
}

/// Returns the class folders in a folder, sorted by name.
fn class_folders(root: &Path, left_out: &mut LeftOut) -> Result<Classes, Error> {
    let listing = Listing::new(root)?;
    left_out.extend(listing.left_out);
    for file in listing.files {
        left_out.add_file(file);
    }
    let mut classes = Classes::new();
    for folder in listing.folders {
        if is_run(&folder) {
            left_out.add("run".to_owned(), folder);
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_str();
        let name = name.ok_or("a name that is no UTF-8; the name of a class is".to_owned());
        let name = name.and_then(class_name);
        let name = name.map_err(|problem| data(&folder, problem))?;
        classes.entry(name).or_default().push(folder);
    }
    Ok(classes)
}

/// Returns the pictures of each class, sorted by name.
fn files(classes: &Classes, left_out: &mut LeftOut) -> Result<Vec<Vec<PathBuf>>, Error> {
    let mut all = Vec::new();
    for folders in classes.values() {
        let mut pictures = Vec::new();
        for folder in folders {
            let listing = Listing::new(folder)?;
            left_out.extend(listing.left_out);
            for folder in listing.folders {
                left_out.add("folder".to_owned(), folder);
            }
            for file in listing.files {
                match is_picture(&file)? {
                    true => pictures.push(file),
                    false => left_out.add_file(file),
                }
            }
        }
        // If a class has two folders, their files are sorted together.
        pictures.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
        all.push(pictures);
    }
    Ok(all)
}

/// Returns whether a file has a picture's name, and must then be one, or begins like a picture.
fn is_picture(path: &Path) -> Result<bool, Error> {
    if image::has_picture_name(path) {
        return Ok(true);
    }
    let start = || {
        let mut start = Vec::new();
        std::fs::File::open(path)?
            .take(16)
            .read_to_end(&mut start)?;
        Ok(start)
    };
    let start = start().map_err(Error::io("cannot be read", path))?;
    Ok(image::is_picture(&start))
}

/// Reads the files, in the order of the classes, and counts those with colour.
fn pixels(
    classes: Vec<Vec<PathBuf>>,
    options: ImageOptions,
    coloured: &AtomicUsize,
) -> Result<Split, Error> {
    let files: Vec<(u8, PathBuf)> = (0..)
        .zip(classes)
        .flat_map(|(class, files)| files.into_iter().map(move |file| (class, file)))
        .collect();
    let mut images = vec![0; files.len() * SHAPE.len()];
    let mut failed: Vec<(usize, Error)> = images
        .par_chunks_exact_mut(SHAPE.len())
        .zip(&files)
        .enumerate()
        .filter_map(
            |(index, (image, (_, path)))| match read_file(path, options, image) {
                Ok(has_colour) => {
                    coloured.fetch_add(has_colour.into(), Ordering::Relaxed);
                    None
                }
                Err(error) => Some((index, error)),
            },
        )
        .collect();
    failed.sort_by_key(|(index, _)| *index);
    let others = failed.len().saturating_sub(1);
    if let Some((_, error)) = failed.into_iter().next() {
        return Err(match error {
            Error::Data { path, problem } if others > 0 => data(
                &path,
                format!("{problem} ({others} more of these files cannot be read either)"),
            ),
            error => error,
        });
    }
    let labels = files.into_iter().map(|(class, _)| class).collect();
    Ok(Split::new(images, labels))
}

fn read_file(path: &Path, options: ImageOptions, image: &mut [u8]) -> Result<bool, Error> {
    let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
    image::decode(&bytes, options, SHAPE, image).map_err(|problem| data(path, problem))
}
