//! Finds the data set in a folder, in any of the common forms.
//!
//! | form | what is recognised |
//! |---|---|
//! | IDX files | `train-images-idx3-ubyte` and the three others: with `.` for `-`, with `.gz`, in upper case, with `test` for `t10k`, with a prefix (`emnist-letters-train-…`), each in a folder of its own name |
//! | class folders | `train/NAME/*` and `test/NAME/*`, also called `Training`, `Testing`, `seg_train` and so on, each perhaps one level further down; or `NAME/*` |
//! | tables | `NAME_train.csv` and `NAME_test.csv`, or a single one |
//!
//! If a folder has none of them, the folders below it are searched, because archives are often unpacked one level too deep, and
//! torchvision keeps the files in `FashionMNIST/raw`. Warnings name what is found but not used.

use super::listing::{Listing, name};
use super::{image, table};
use crate::error::Error;
use lenet_pictures::by_name;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The number of levels below the given folder that are searched.
const MAX_DEPTH: usize = 3;
/// The largest number of folders searched, in case somebody gives a whole disk.
const MAX_FOLDERS: usize = 2000;

const NO_FOLDER: &str = "no such folder; name the one of the data set with --data DIR";

/// The largest number of files that a message describes.
const MOST_HINTS: usize = 5;

/// A data set that was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Its folder; if there are several data sets in it, followed by the prefix of its files' names.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Warnings about data that was found as well but is not read.
    pub warnings: Vec<String>,
    /// Where it was found, if not at the given path.
    pub notes: Vec<String>,
}

/// The form of a data set.
#[derive(Debug)]
pub(super) enum Form {
    /// IDX files.
    Idx(IdxFiles),
    /// CSV files.
    Tables(Tables),
    /// Folders of pictures.
    Folders(Folders),
}

/// The role of a file among the four, or the two more for validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    TrainImages,
    TrainLabels,
    TestImages,
    TestLabels,
    ValImages,
    ValLabels,
}

impl Role {
    /// The four files that every data set has.
    pub const ALL: [Self; 4] = [
        Self::TrainImages,
        Self::TrainLabels,
        Self::TestImages,
        Self::TestLabels,
    ];
}

/// The usual names of the four files.
pub(super) const IDX_NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The IDX files of a data set.
#[derive(Clone, Debug, Default)]
pub(super) struct IdxFiles {
    /// The folder.
    pub folder: PathBuf,
    /// The prefix before `train` and `t10k` in the names.
    pub family: String,
    /// The files of each [`Role`], in that order. If there are several, they must have the same content, and the first is read.
    pub files: [Vec<PathBuf>; 6],
}

impl IdxFiles {
    fn has_train(&self) -> bool {
        self.files[..2].iter().all(|files| !files.is_empty())
    }

    /// Returns whether at least one of the two test files is there.
    pub fn has_test(&self) -> bool {
        self.files[2..4].iter().any(|files| !files.is_empty())
    }
}

/// The CSV files of a data set.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    /// The folder.
    pub folder: PathBuf,
    /// The prefix before `train` and `test` in the names.
    pub family: String,
    /// The training tables; see [`IdxFiles::files`].
    pub train: Vec<PathBuf>,
    /// The test tables, if they are separate.
    pub test: Vec<PathBuf>,
    /// The validation tables, used for tests if there are no others.
    pub val: Vec<PathBuf>,
}

/// Class folders.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// The folder that contains all of them.
    pub root: PathBuf,
    /// The folder that contains the class folders for training.
    pub train: PathBuf,
    /// The folder that contains the class folders for tests, if they are separate.
    pub test: Option<PathBuf>,
    /// Whether [`train`](Self::train) is a separate folder, such as `train`.
    pub is_apart: bool,
    /// A folder of test pictures without classes.
    pub unlabelled: Option<PathBuf>,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// Finds the data set at a path: in the folder, in a folder below it, or, given a folder and the prefix of the files' names,
/// one of several in the folder.
///
/// # Errors
/// * `Io`: a folder cannot be read
/// * `Data`: there is none, or there are several; the sentence says what the folder contains and what to do
pub(super) fn find(given: &Path) -> Result<(Found, Form), Error> {
    let data = |problem| Error::Data {
        path: given.to_owned(),
        problem,
    };
    if given.is_file() {
        let problem = match by_name(&name(given)) {
            Some(kind) => format!("{kind}, and name the folder"),
            None => "a file; name its folder".to_owned(),
        };
        return Err(data(problem));
    }
    if given.exists() && !given.is_dir() {
        return Err(data("no folder".to_owned()));
    }
    if !given.is_dir() {
        // A folder and a prefix of file names, such as `gzip/emnist-digits`.
        let folder = match given.parent() {
            Some(folder) if folder == Path::new("") => Path::new("."),
            Some(folder) if folder.is_dir() => folder,
            _ => return Err(data(NO_FOLDER.to_owned())),
        };
        let wanted = name(given).to_lowercase();
        let candidates = candidates(folder, &Listing::new(folder)?)?;
        let families: Vec<Candidate> = candidates
            .into_iter()
            .filter(|candidate| !wanted.is_empty() && candidate.family() == wanted)
            .collect();
        return match families.into_iter().next() {
            Some(found) => Ok(found.into_found(Vec::new())),
            None => Err(data(NO_FOLDER.to_owned())),
        };
    }
    let listing = Listing::new(given)?;
    let here = candidates(given, &listing)?;
    if here.iter().any(|candidate| candidate.is_whole(0)) {
        return choose(here, given);
    }
    let mut below = Vec::new();
    let mut left = MAX_FOLDERS;
    search(&listing.folders, 1, &mut left, &mut below)?;
    if let Some(best) = below.iter().map(Candidate::rank).min() {
        below.retain(|candidate| candidate.rank() == best);
        let (mut found, form) = choose(below, given)?;
        let note = format!("reading {}", found.path.display());
        found.notes.insert(0, note);
        return Ok((found, form));
    }
    match here.is_empty() {
        // Incomplete: reading it gives the error about what is missing.
        false => choose(here, given),
        true => Err(data(nothing(&listing))),
    }
}

/// Finds IDX files in a folder, but not below it.
///
/// # Errors
/// `Io`
pub(super) fn idx_in(folder: &Path) -> Result<Option<(Found, IdxFiles)>, Error> {
    let listing = Listing::new(folder)?;
    let mut families = idx_families(folder, &listing)?;
    Ok(families.pop_first().map(|(_, files)| {
        let (found, _) = Candidate(Form::Idx(files.clone())).into_found(Vec::new());
        (found, files)
    }))
}

/// Returns the parent of a folder with training images, as its name says, if the parent has test images, too.
pub(super) fn folder_above(folder: &Path) -> Option<PathBuf> {
    split_of(&name(folder))?;
    let above = match folder.parent() {
        Some(above) if above == Path::new("") => Path::new("."),
        above => above?,
    };
    let listing = Listing::new(above).ok()?;
    let folders = class_folders(above, &listing).ok()??;
    (folders.is_apart && folders.test.is_some()).then(|| above.to_owned())
}

/// A possible data set.
#[derive(Debug)]
struct Candidate(Form);

impl Candidate {
    /// Returns the order of preference. Forms that other folders are easily mistaken for come last.
    fn rank(&self) -> usize {
        match &self.0 {
            Form::Idx(_) => 0,
            Form::Folders(folders) if folders.is_apart => 1,
            Form::Tables(_) => 2,
            Form::Folders(_) => 3,
        }
    }

    /// Returns whether the training data is there. Below the given folder, a single folder with pictures is not a class yet.
    fn is_whole(&self, depth: usize) -> bool {
        match &self.0 {
            Form::Idx(files) => files.has_train(),
            Form::Tables(tables) => !tables.train.is_empty(),
            Form::Folders(folders) if folders.is_apart || depth == 0 => true,
            Form::Folders(folders) => Listing::new(&folders.train).is_ok_and(|listing| {
                let classes = listing.folders.iter().filter(|folder| has_pictures(folder));
                classes.count() > 1
            }),
        }
    }

    fn family(&self) -> &str {
        match &self.0 {
            Form::Idx(files) => &files.family,
            Form::Tables(tables) => &tables.family,
            Form::Folders(_) => "",
        }
    }

    /// Returns its path, with which [`find`] finds it.
    fn path(&self) -> PathBuf {
        let folder = match &self.0 {
            Form::Idx(files) => &files.folder,
            Form::Tables(tables) => &tables.folder,
            Form::Folders(folders) => return folders.root.clone(),
        };
        match self.family() {
            "" => folder.clone(),
            family => folder.join(family),
        }
    }

    fn kind(&self) -> &'static str {
        match self.0 {
            Form::Idx(_) => "IDX files",
            Form::Tables(_) => "CSV files",
            Form::Folders(_) => "class folders",
        }
    }

    fn into_found(mut self, warnings: Vec<String>) -> (Found, Form) {
        let path = self.path();
        let mut found = Found {
            name: data_name(&path),
            path,
            warnings,
            notes: Vec::new(),
        };
        if let Form::Folders(folders) = &mut self.0 {
            found.notes.append(&mut folders.notes);
            found.warnings.append(&mut folders.warnings);
        }
        (found, self.0)
    }
}

/// Returns the last part of a path that says more than `raw`.
fn data_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let names = absolute.iter().rev().map(|name| name.to_string_lossy());
    let mut telling = names.filter(|name| !matches!(&**name, "raw" | "gzip" | "." | "/"));
    telling
        .next()
        .map_or("data".to_owned(), |name| name.into_owned())
}

/// Chooses the best candidate, warns about the others, and refuses to choose among equals.
fn choose(candidates: Vec<Candidate>, given: &Path) -> Result<(Found, Form), Error> {
    let mut candidates = candidates.into_iter();
    let best = candidates.next().expect("called with at least one");
    let others: Vec<Candidate> = candidates.collect();
    let is_equal = |other: &&Candidate| {
        other.rank() == best.rank() && best.family().is_empty() == other.family().is_empty()
    };
    if others.iter().any(|other| is_equal(&other)) {
        let mut problem = "several data sets are there; name one of them:".to_owned();
        for candidate in std::iter::once(&best).chain(&others) {
            let path = candidate.path();
            let _ = write!(
                problem,
                "\n  --data {} ({})",
                path.display(),
                candidate.kind()
            );
        }
        return Err(Error::Data {
            path: given.to_owned(),
            problem,
        });
    }
    let kind = best.kind();
    let warnings = others.iter().map(|other| {
        let path = other.path();
        let mut warning = format!(
            "{}: {} are ignored; {kind} are used",
            path.display(),
            other.kind()
        );
        if path != given {
            let _ = write!(warning, ". To use the others: --data {}", path.display());
        }
        warning
    });
    let warnings = warnings.collect();
    Ok(best.into_found(warnings))
}

/// Searches the folders, then the folders in those that contain nothing.
fn search(
    folders: &[PathBuf],
    depth: usize,
    left: &mut usize,
    found: &mut Vec<Candidate>,
) -> Result<(), Error> {
    for folder in folders {
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        // A folder that cannot be read contains no data set.
        let Ok(listing) = Listing::new(folder) else {
            continue;
        };
        let mut here = candidates(folder, &listing).unwrap_or_default();
        here.retain(|candidate| candidate.is_whole(depth));
        match here.is_empty() {
            false => found.append(&mut here),
            true if depth < MAX_DEPTH => search(&listing.folders, depth + 1, left, found)?,
            true => {}
        }
    }
    Ok(())
}

/// Returns the data sets in a folder, but not below it, the best first.
fn candidates(folder: &Path, listing: &Listing) -> Result<Vec<Candidate>, Error> {
    let mut found: Vec<Candidate> = idx_families(folder, listing)?
        .into_values()
        .map(|files| Candidate(Form::Idx(files)))
        .collect();
    let tables = tables(folder, listing);
    found.extend(
        tables
            .into_values()
            .map(|tables| Candidate(Form::Tables(tables))),
    );
    match class_folders(folder, listing) {
        // Beside files that are certainly data, folders with pictures may be anything.
        Ok(Some(folders)) if folders.is_apart || found.is_empty() => {
            found.push(Candidate(Form::Folders(folders)));
        }
        Ok(_) => {}
        Err(error) if found.is_empty() => return Err(error),
        Err(_) => {}
    }
    found.sort_by_key(|candidate| (!candidate.is_whole(0), candidate.rank()));
    Ok(found)
}

/// Splits a file's name into its parts, in lower case, without `gz`.
fn parts(name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.split(['-', '.', '_', ' '])
        .map(str::to_owned)
        .collect()
}

/// Returns the prefix and the role of an IDX file, judged by its name, if it is one.
fn idx_role(name: &str) -> Option<(String, Role)> {
    let parts = parts(name);
    let at = parts.windows(2).position(|pair| {
        (pair[0] == "t10k" || split_of_part(&pair[0]).is_some())
            && ["images", "image", "labels", "label"].contains(&&*pair[1])
    })?;
    let is_idx = |part: &String| part.starts_with("idx") || part == "ubyte";
    if !parts.get(at + 2).is_some_and(is_idx) || !parts[at + 2..].iter().all(is_idx) {
        return None;
    }
    let split = split_of_part(&parts[at]).unwrap_or(SplitName::Test);
    let role = match (split, parts[at + 1].starts_with("image")) {
        (SplitName::Train, true) => Role::TrainImages,
        (SplitName::Train, false) => Role::TrainLabels,
        (SplitName::Test, true) => Role::TestImages,
        (SplitName::Test, false) => Role::TestLabels,
        (SplitName::Val, true) => Role::ValImages,
        (SplitName::Val, false) => Role::ValLabels,
    };
    Some((parts[..at].join("-"), role))
}

/// Returns the IDX files in a folder, by the prefix of their names.
fn idx_families(folder: &Path, listing: &Listing) -> Result<BTreeMap<String, IdxFiles>, Error> {
    let mut files = listing.files.clone();
    // Some programs unpack each file into a folder of the same name.
    for nested in &listing.folders {
        if let Some(role) = idx_role(&name(nested)) {
            let inside = Listing::new(nested)?.files.into_iter();
            files.extend(inside.filter(|file| idx_role(&name(file)).as_ref() == Some(&role)));
        }
    }
    let mut families = BTreeMap::<String, IdxFiles>::new();
    for file in files {
        if let Some((family, role)) = idx_role(&name(&file)) {
            let files = families.entry(family.clone()).or_insert_with(|| IdxFiles {
                folder: folder.to_owned(),
                family,
                ..IdxFiles::default()
            });
            files.files[role as usize].push(file);
        }
    }
    Ok(families)
}

/// Returns the tables in a folder, by the prefix of their names.
fn tables(folder: &Path, listing: &Listing) -> BTreeMap<String, Tables> {
    let mut families = BTreeMap::<String, Tables>::new();
    let mut others = Vec::new();
    for file in &listing.files {
        let parts = parts(&name(file));
        if parts.last().is_none_or(|last| last != "csv") {
            continue;
        }
        let is_table = |file| table::is_table(BufReader::new(file));
        if !File::open(file).is_ok_and(is_table) {
            continue;
        }
        let stem = &parts[..parts.len() - 1];
        let Some((at, split)) = stem
            .iter()
            .enumerate()
            .find_map(|(at, part)| Some((at, split_of_part(part)?)))
        else {
            others.push((stem.join("-"), file));
            continue;
        };
        let family = stem[..at].join("-");
        let tables = families.entry(family).or_default();
        match split {
            SplitName::Train => tables.train.push(file.clone()),
            SplitName::Test => tables.test.push(file.clone()),
            SplitName::Val => tables.val.push(file.clone()),
        }
    }
    // A table whose name says neither training nor tests serves for both.
    if families.is_empty() {
        for (family, file) in others {
            families.entry(family).or_default().train.push(file.clone());
        }
    }
    for (family, tables) in &mut families {
        tables.folder = folder.to_owned();
        tables.family.clone_from(family);
    }
    families
}

/// The purpose of a folder or file, judged by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SplitName {
    Train,
    Test,
    Val,
}

fn split_of_part(part: &str) -> Option<SplitName> {
    match part {
        "train" | "training" | "trainset" => Some(SplitName::Train),
        "test" | "testing" | "testset" => Some(SplitName::Test),
        "val" | "valid" | "validation" | "valset" => Some(SplitName::Val),
        _ => None,
    }
}

/// Returns the purpose of a folder, and how much its name differs from the plain one.
fn split_of(name: &str) -> Option<(SplitName, usize)> {
    let parts = parts(name);
    let split = parts.iter().find_map(|part| split_of_part(part))?;
    let distance = match name {
        "train" | "test" | "val" => 0,
        _ => parts.len(),
    };
    Some((split, distance))
}

/// Returns the class folders in a folder, if there are any.
fn class_folders(folder: &Path, listing: &Listing) -> Result<Option<Folders>, Error> {
    // A folder with a plain name such as `test` need not have class folders; one with a less similar name must have pictures or class folders.
    let is_split = |folder: &Path, distance: usize| {
        idx_role(&name(folder)).is_none()
            && (distance <= 1 || has_pictures(folder) || class_root(folder, MAX_DEPTH).is_some())
    };
    let of = |wanted: SplitName| {
        let mut folders: Vec<(usize, &PathBuf)> = listing
            .folders
            .iter()
            .filter_map(|folder| match split_of(&name(folder)) {
                Some((split, distance)) if split == wanted && is_split(folder, distance) => {
                    Some((distance, folder))
                }
                _ => None,
            })
            .collect();
        folders.sort();
        folders
            .into_iter()
            .map(|(_, folder)| folder)
            .collect::<Vec<_>>()
    };
    let (mut flat, mut apart) = (Vec::new(), Vec::new());
    for split in [SplitName::Train, SplitName::Test, SplitName::Val] {
        let (with_pictures, with_folders): (Vec<_>, Vec<_>) = of(split)
            .into_iter()
            .partition(|folder| has_pictures(folder));
        flat.push(with_pictures);
        apart.push(with_folders);
    }
    let [train, test, val] = [0, 1, 2].map(|split| apart[split].first().copied());
    let pictures = || listing.folders.iter().filter(|folder| has_pictures(folder));
    let Some(train) = train else {
        // Folders of pictures, one of which may be called `train` because that is its class.
        let is_named = |folder: &&PathBuf| split_of(&name(folder)).is_some();
        let problem = match (flat[0].first(), test.or(val)) {
            (Some(train), _) if pictures().all(|folder| is_named(&folder)) => format!(
                "{} has pictures, but no class folders: the class of each is not known. Put them into a folder for each \
                 class",
                train.display()
            ),
            (None, Some(other)) if pictures().next().is_none() => format!(
                "{} is there, but no folder train; expected train/NAME/* and test/NAME/*",
                other.display()
            ),
            _ if pictures().next().is_none() => return Ok(None),
            _ => {
                return Ok(Some(Folders {
                    root: folder.to_owned(),
                    train: folder.to_owned(),
                    test: None,
                    is_apart: false,
                    unlabelled: None,
                    notes: Vec::new(),
                    warnings: Vec::new(),
                }));
            }
        };
        return Err(Error::Data {
            path: folder.to_owned(),
            problem,
        });
    };
    let mut notes = Vec::new();
    let mut used = vec![train];
    let mut unlabelled = None;
    let test = match (test, flat[1].first(), val) {
        (Some(test), ..) => Some(test),
        (None, Some(pictures), _) => {
            unlabelled = Some((*pictures).clone());
            None
        }
        (None, None, Some(val)) => {
            notes.push(format!(
                "no folder test: {} is used for tests",
                val.display()
            ));
            Some(val)
        }
        (None, None, None) => None,
    };
    used.extend(test);
    let mut warnings = Vec::new();
    for other in &listing.folders {
        let has_images = || has_pictures(other) || class_root(other, 1).is_some();
        if used.contains(&other) || unlabelled.as_ref() == Some(other) || !has_images() {
            continue;
        }
        let advice = match split_of(&name(other)) {
            Some((SplitName::Val, _)) => {
                "; to validate, --val-split holds out a share of the training images"
            }
            _ => "",
        };
        warnings.push(format!(
            "{} is ignored: {} is used for training{}{advice}",
            other.display(),
            train.display(),
            test.map_or(String::new(), |test| format!(
                ", {} for tests",
                test.display()
            )),
        ));
    }
    let root = |folder: &Path| class_root(folder, MAX_DEPTH).unwrap_or(folder.to_owned());
    let (train, mut test) = (root(train), test.map(|test| root(test)));
    // Test images without classes may be one level further down, as in `Final_Test/Images/*`.
    if let Some(only) = test.as_deref().and_then(only_with_pictures)
        && !train.join(name(&only)).is_dir()
        && only_with_pictures(&train).is_none()
    {
        (unlabelled, test) = (Some(only), None);
    }
    Ok(Some(Folders {
        root: folder.to_owned(),
        train,
        test,
        is_apart: true,
        unlabelled,
        notes,
        warnings,
    }))
}

/// Returns the only folder in a folder, if it has pictures.
fn only_with_pictures(folder: &Path) -> Option<PathBuf> {
    let listing = Listing::new(folder).ok()?;
    match &listing.folders[..] {
        [only] if has_pictures(only) => Some(only.clone()),
        _ => None,
    }
}

/// Returns the folder whose folders have pictures: this one, or the only one in it.
fn class_root(folder: &Path, depth: usize) -> Option<PathBuf> {
    let listing = Listing::new(folder).ok()?;
    if listing.folders.iter().any(|folder| has_pictures(folder)) {
        return Some(folder.to_owned());
    }
    match &listing.folders[..] {
        [only] if depth > 0 => class_root(only, depth - 1),
        _ => None,
    }
}

/// Returns whether a folder is that of a training run, which contains pictures too.
pub(super) fn is_run(folder: &Path) -> bool {
    let files = ["lenet.weights", "last.checkpoint"];
    files.iter().any(|file| folder.join(file).is_file())
}

/// Returns whether a folder directly contains a file with the name of a picture.
fn has_pictures(folder: &Path) -> bool {
    if is_run(folder) {
        return false;
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let is_hidden = |path: &Path| name(path).starts_with('.');
    let is_picture =
        |path: PathBuf| !is_hidden(&path) && image::has_picture_name(&path) && path.is_file();
    entries.flatten().any(|entry| is_picture(entry.path()))
}

/// Describes the content of a folder without a data set, and what to do.
fn nothing(listing: &Listing) -> String {
    let mut text = format!("no data set found in it. It has {listing}.\n");
    let hints = listing.files.iter().filter_map(|file| by_name(&name(file)));
    for hint in hints.take(MOST_HINTS) {
        let _ = writeln!(text, "{hint}.");
    }
    text + FORMS
}

/// What [`find`] recognises.
pub(super) const FORMS: &str = "A data set is four IDX files (train-images-idx3-ubyte, train-labels-idx1-ubyte, \
     t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; gzipped or not), or class folders of PNG, JPEG, BMP or PNM files \
     (train/NAME/* and test/NAME/*, or NAME/* with --test-split), or tables (NAME_train.csv and NAME_test.csv with a \
     label and the pixels in each row)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_idx_files_are_known_as_people_write_them() {
        for (name, family, role) in [
            ("train-images-idx3-ubyte", "", Role::TrainImages),
            ("train-images.idx3-ubyte", "", Role::TrainImages),
            ("T10K-LABELS-IDX1-UBYTE.GZ", "", Role::TestLabels),
            ("test-images-idx3-ubyte.gz", "", Role::TestImages),
            ("train_labels.idx1", "", Role::TrainLabels),
            ("val-images-idx3-ubyte", "", Role::ValImages),
            (
                "emnist-letters-train-labels-idx1-ubyte.gz",
                "emnist-letters",
                Role::TrainLabels,
            ),
        ] {
            assert_eq!(idx_role(name), Some((family.to_owned(), role)), "{name}");
        }
        for name in [
            "train-images-idx3-ubyte.zip",
            "train-images-idx3-ubyte (1).gz",
            "train-images.png",
            "images-idx3-ubyte",
            "train-images",
            "trainer-images-idx3-ubyte",
        ] {
            assert_eq!(idx_role(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_folders_say_what_they_are_for() {
        for (name, split, distance) in [
            ("train", SplitName::Train, 0),
            ("Train", SplitName::Train, 1),
            ("training", SplitName::Train, 1),
            ("training_set", SplitName::Train, 2),
            ("seg_train", SplitName::Train, 2),
            ("Final_Test", SplitName::Test, 2),
            ("testing", SplitName::Test, 1),
            ("val", SplitName::Val, 0),
            ("Validation", SplitName::Val, 1),
        ] {
            assert_eq!(split_of(name), Some((split, distance)), "{name}");
        }
        for name in ["trainers", "contest", "value", "t-shirt"] {
            assert_eq!(split_of(name), None, "{name}");
        }
    }
}
