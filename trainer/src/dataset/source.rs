//! The data set: reads it in any of its forms, and records what identifies it.

use super::folder::{self, Folder};
use super::listing::Listing;
use super::locate::{self, FORMS, Folders, Form, Found, IDX_NAMES, IdxFiles, Role, Tables};
use super::names;
use super::shape::{SHAPE, bytes};
use super::table;
use super::{ImageOptions, Split};
use crate::error::Error;
use lenet_core::network::CLASSES;
use lenet_pictures::idx::{self, Idx};
use lenet_pictures::table::Table;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Classes of Fashion-MNIST, in the order of its labels.
pub const FASHION_MNIST_CLASSES: [&str; 10] = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// The SHA-256 of the uncompressed files of Fashion-MNIST, in the order of [`Role`].
const PUBLISHED: [&str; 4] = [
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
];

/// The name of the published data set.
const FASHION_MNIST: &str = "fashion-mnist";
/// The folder into which Debian's package `dataset-fashion-mnist` puts the files.
const DEBIAN: &str = "/usr/share/datasets/fashion-mnist";

/// How the files of a data set are converted to images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReadOptions {
    /// Whether files of Fashion-MNIST may differ from the published ones.
    pub allow_modified: bool,
    /// The share of each class to test on, in 0..1, for a data set without test images.
    pub test_split: Option<f64>,
    /// How pictures are converted.
    pub images: ImageOptions,
}

/// Training and test images, and what identifies them.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// `fashion-mnist` if the files are the published ones, else the folder's name.
    pub name: String,
    /// The folder in which it was found; see [`find`].
    pub folder: PathBuf,
    /// Names of the classes; empty for a class without a name.
    pub classes: [String; CLASSES],
    /// The SHA-256 of two SHA-256 values: of the uncompressed training images, and of the labels, each as an IDX file.
    pub sha256: [u8; 32],
    /// Whether the files are exactly those of Fashion-MNIST.
    pub published: bool,
    /// The options with which it was read.
    pub options: ReadOptions,
    /// Changes made to the data that the user may want to know.
    pub notes: Vec<String>,
    /// Warnings about files that were not read or look wrong; [`check::warnings`](super::check::warnings) adds those about the
    /// images.
    pub warnings: Vec<String>,
    /// The classes and splits (0 for training, 1 for tests) whose folder is empty according to [`warnings`](Self::warnings).
    pub empty_folders: BTreeSet<(usize, usize)>,
    /// The training images.
    pub train: Split,
    /// The validation images: `None` before [`hold_out`](Self::hold_out).
    pub val: Option<Split>,
    /// The test images.
    pub test: Split,
}

/// Looks for the data set: in the given folder, else in `data/fashion-mnist` of the repository, else in Debian's folder. Reads
/// no images. Returns a path for [`open`]: a folder, perhaps followed by a prefix of file names.
///
/// # Errors
/// * `NoDataset`: there is none; the error lists every place searched
/// * `Data`: there is none at the given path, or there are several
pub fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    Ok(locate(given)?.0.path)
}

fn locate(given: Option<&Path>) -> Result<(Found, Form), Error> {
    if let Some(given) = given {
        return locate::find(given);
    }
    let places = [
        PathBuf::from("data").join(FASHION_MNIST),
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../data")
            .join(FASHION_MNIST),
        PathBuf::from(DEBIAN),
    ];
    let mut searched = String::new();
    for place in places.iter().filter(|place| place.exists()) {
        match locate::find(place) {
            Ok(found) => return Ok(found),
            Err(error) => searched += &format!("  {error}\n"),
        }
    }
    for place in places.iter().filter(|place| !place.exists()) {
        searched += &format!("  {}: no such folder\n", place.display());
    }
    Err(Error::NoDataset { searched })
}

/// Finds a data set, as IDX files, class folders of pictures, or tables, and reads it.
///
/// # Errors
/// * `NoDataset`: there is none; the error lists every place searched
/// * `Settings`: `options` are not for this kind of data set
/// * `MissingFile`: a file is missing
/// * `Io`: a file cannot be read
/// * `Data`: a file is invalid; the sentence says why
pub fn open(given: Option<&Path>, options: ReadOptions) -> Result<Dataset, Error> {
    let (found, form) = locate(given)?;
    let kind = match &form {
        Form::Idx(_) => "IDX files",
        Form::Tables(_) => "tables",
        Form::Folders(folders) => return open_folders(found, folders, options),
    };
    for (given, option) in [
        (options.images.resize, "--resize"),
        (options.images.invert, "--invert"),
    ] {
        if given {
            return Err(Error::Settings(format!(
                "{option} is for pictures in class folders; {} has {kind}",
                found.path.display()
            )));
        }
    }
    match form {
        Form::Idx(files) => open_idx(found, files, options),
        Form::Tables(tables) => open_tables(found, &tables, options),
        Form::Folders(_) => unreachable!("opened above"),
    }
}

impl Dataset {
    /// Creates a data set of images in memory.
    pub fn new(name: &str, classes: [String; CLASSES], train: Split, test: Split) -> Self {
        Self {
            name: name.to_owned(),
            folder: PathBuf::new(),
            classes,
            sha256: combined(&hashes_of(&train)),
            published: false,
            options: ReadOptions::default(),
            notes: Vec::new(),
            warnings: Vec::new(),
            empty_folders: BTreeSet::new(),
            train,
            val: None,
            test,
        }
    }

    /// Reads the four files of a folder. If one of them is Fashion-MNIST's, or the folder has that name, all must be the
    /// published ones, unless `allow_modified` is set.
    ///
    /// # Errors
    /// Those of [`open`]
    pub fn load(folder: &Path, allow_modified: bool) -> Result<Self, Error> {
        let Some((found, files)) = locate::idx_in(folder)? else {
            return Err(missing(folder, Role::TrainImages));
        };
        let options = ReadOptions {
            allow_modified,
            ..ReadOptions::default()
        };
        open_idx(found, files, options)
    }

    /// Moves a share of the training images, drawn by the seed, to the validation split.
    ///
    /// # Errors
    /// `Settings`: no image would be left to train or to validate on.
    pub fn hold_out(&mut self, share: f64, seed: u64) -> Result<(), Error> {
        let held_out = self.train.share(share, seed);
        let val = held_out.iter().filter(|&&held_out| held_out).count();
        let train = self.train.len() - val;
        if train == 0 || val == 0 {
            return Err(Error::Settings(format!(
                "--val-split {share} leaves {train} images for training and {val} for validation"
            )));
        }
        self.val = Some(self.train.take(&held_out));
        Ok(())
    }

    /// Returns the SHA-256 of the test images and labels, computed like [`sha256`](Self::sha256) of the training images.
    pub fn test_sha256(&self) -> [u8; 32] {
        combined(&hashes_of(&self.test))
    }

    /// Returns the split on which each epoch is measured: the validation images if there are any, else the test images.
    pub fn held_out(&self) -> &Split {
        self.val.as_ref().unwrap_or(&self.test)
    }
}

/// Reads class folders.
fn open_folders(found: Found, folders: &Folders, options: ReadOptions) -> Result<Dataset, Error> {
    let mut warnings = found.warnings;
    let root = found.path.display();
    let remedy = "say with --test-split F which share of each class to test on";
    match (&folders.test, options.test_split, &folders.unlabelled) {
        (Some(test), Some(_), _) => return Err(has_test(&found.path, &test.display().to_string())),
        (None, None, Some(unlabelled)) => {
            return Err(Error::Settings(format!(
                "{}: pictures without class folders, so that their classes are not known. Put them into a folder for each \
                 class, or {remedy}",
                unlabelled.display()
            )));
        }
        (None, None, None) if folders.is_apart => {
            return Err(Error::Settings(format!(
                "{root} has no folder test. Put class folders into it, or {remedy}"
            )));
        }
        (None, None, None) => {
            let hint = match locate::folder_above(&found.path) {
                None => String::new(),
                Some(above) => format!(". Or name the folder above: --data {}", above.display()),
            };
            return Err(Error::Settings(format!(
                "{root} has no folder train. Put the class folders into train and test, or {remedy}{hint}"
            )));
        }
        (None, Some(_), Some(unlabelled)) => warnings.push(format!(
            "{}: ignored, because its pictures are not in class folders",
            unlabelled.display()
        )),
        (None, Some(_), None) | (Some(_), None, _) => {}
    }
    let test = folders.test.as_deref();
    let Folder {
        classes,
        mut train,
        test,
        notes,
        warnings: of_files,
        empty_folders,
    } = folder::read(&folders.train, test, options.images)?;
    warnings.extend(of_files);
    let test = match test {
        Some(test) => test,
        None => set_aside(&mut train, &found.path, options.test_split)?,
    };
    Ok(Dataset {
        folder: found.path,
        options,
        notes: [found.notes, notes].concat(),
        warnings,
        empty_folders,
        ..Dataset::new(&found.name, classes, train, test)
    })
}

/// Returns the warning that the validation data is not read.
fn left_out_val(path: &Path) -> String {
    format!(
        "{}: ignored; to validate, --val-split holds out a share of the training images",
        path.display()
    )
}

/// Returns the error that `--test-split` is for data sets without tests.
fn has_test(path: &Path, test: &str) -> Error {
    Error::Settings(format!(
        "{} has test images of its own ({test}); --test-split is for data sets without them",
        path.display()
    ))
}

fn set_aside(train: &mut Split, path: &Path, share: Option<f64>) -> Result<Split, Error> {
    let share = share.expect("given, or there are test images");
    let set_aside = train.share_of_each_class(share);
    let test = train.take(&set_aside);
    match test.is_empty() {
        false => Ok(test),
        true => Err(Error::Settings(format!(
            "--test-split {share} leaves no image of {} to test on",
            path.display()
        ))),
    }
}

/// Images and labels as stored in files.
struct Raw {
    images: Vec<u8>,
    labels: Vec<u8>,
    /// The file of the labels.
    path: PathBuf,
    /// The hashes of the uncompressed files, if they are IDX files.
    sha256: Option<[[u8; 32]; 2]>,
}

/// Reads IDX files.
fn open_idx(mut found: Found, mut files: IdxFiles, options: ReadOptions) -> Result<Dataset, Error> {
    if let Some(val) = files.files[Role::ValImages as usize].first() {
        let (notes, warnings) = (&mut found.notes, &mut found.warnings);
        match files.has_test() {
            false => {
                notes.push(format!(
                    "no t10k-images-idx3-ubyte: {} is used for tests",
                    val.display()
                ));
                let [_, _, test_images, test_labels, val_images, val_labels] = &mut files.files;
                std::mem::swap(test_images, val_images);
                std::mem::swap(test_labels, val_labels);
            }
            true => warnings.push(left_out_val(val)),
        }
    }
    if options.test_split.is_some() && files.has_test() {
        let test = files.files[2..4].concat();
        let test = test.first().and_then(|path| path.file_name());
        return Err(has_test(
            &found.path,
            &test.unwrap_or_default().to_string_lossy(),
        ));
    }
    let wanted = match options.test_split {
        Some(_) => &Role::ALL[..2],
        None => &Role::ALL[..],
    };
    if let Some(&role) = wanted
        .iter()
        .find(|&&role| files.files[role as usize].is_empty())
    {
        return Err(missing(&files.folder, role));
    }
    // The training images take most of the time, so they are unpacked in parallel with the rest.
    let read_role = |role: Role| match files.files[role as usize].is_empty() {
        true => Ok(None),
        false => read_idx(&files.files[role as usize], role).map(Some),
    };
    let (train_images, others) = rayon::join(
        || read_role(Role::TrainImages),
        || {
            Ok::<_, Error>([
                read_role(Role::TrainLabels)?,
                read_role(Role::TestImages)?,
                read_role(Role::TestLabels)?,
            ])
        },
    );
    let train_images = train_images?;
    let [train_labels, test_images, test_labels] = others?;

    let read = [&train_images, &train_labels, &test_images, &test_labels];
    let published: Vec<bool> = read
        .iter()
        .zip(PUBLISHED)
        .map(|(idx, known)| idx.as_ref().is_some_and(|idx| hex(&idx.sha256) == known))
        .collect();
    if !options.allow_modified
        && (published.contains(&true) || found.name == FASHION_MNIST)
        && let Some(file) = (0..4).find(|&file| !published[file] && read[file].is_some())
    {
        let problem = format!(
            "SHA-256 of the uncompressed file is {}, Fashion-MNIST's is {}; copy it again, or pass --allow-modified",
            hex(&read[file]
                .as_ref()
                .expect("found as one that is there")
                .sha256),
            PUBLISHED[file]
        );
        return Err(Error::Data {
            path: files.files[file][0].clone(),
            problem,
        });
    }
    let is_published = !published.contains(&false);
    let raw = |images: Option<Idx>, labels: Option<Idx>, role: Role| {
        let (images, labels) = images.zip(labels)?;
        Some(Raw {
            sha256: Some([images.sha256, labels.sha256]),
            images: images.bytes,
            labels: labels.bytes,
            path: files.files[role as usize][0].clone(),
        })
    };
    let train = raw(train_images, train_labels, Role::TrainLabels).expect("both were wanted");
    let test = raw(test_images, test_labels, Role::TestLabels);
    assemble(
        found,
        &files.folder,
        &files.family,
        is_published,
        train,
        test,
        options,
    )
}

/// Reads tables.
fn open_tables(mut found: Found, tables: &Tables, options: ReadOptions) -> Result<Dataset, Error> {
    let remedy = "say with --test-split F which share of each class to test on";
    let Some(train_path) = tables.train.first() else {
        return Err(Error::Data {
            path: tables.folder.clone(),
            problem: format!("a table for tests, but none to train on. {FORMS}"),
        });
    };
    let mut train = read_table(&tables.train)?;
    let Some(labels) = train.labels.take() else {
        return Err(Error::Data {
            path: train_path.clone(),
            problem: "no column of labels in front of the pixels".to_owned(),
        });
    };
    let (test_files, val) = match (tables.test.is_empty(), tables.val.first()) {
        (true, Some(val)) => {
            found.notes.push(format!(
                "no table test: {} is used for tests",
                val.display()
            ));
            (&tables.val, None)
        }
        (_, val) => (&tables.test, val),
    };
    if let Some(val) = val {
        found.warnings.push(left_out_val(val));
    }
    let mut test = None;
    if let Some(path) = test_files.first() {
        let Table { images, labels } = read_table(test_files)?;
        match (labels, options.test_split) {
            (Some(_), Some(_)) => return Err(has_test(&found.path, &path.display().to_string())),
            (Some(labels), None) => {
                test = Some(Raw {
                    images,
                    labels,
                    path: path.clone(),
                    sha256: None,
                });
            }
            (None, Some(_)) => found.warnings.push(format!(
                "{}: ignored, because it has no column of labels",
                path.display()
            )),
            (None, None) => {
                return Err(Error::Settings(format!(
                    "{}: no column of labels, so it cannot be used for tests; {remedy}",
                    path.display()
                )));
            }
        }
    } else if options.test_split.is_none() {
        return Err(Error::Settings(format!(
            "{} has no table of test images beside {}; {remedy}",
            found.path.display(),
            train_path.display()
        )));
    }
    let train = Raw {
        images: train.images,
        labels,
        path: train_path.clone(),
        sha256: None,
    };
    assemble(
        found,
        &tables.folder,
        &tables.family,
        false,
        train,
        test,
        options,
    )
}

/// Makes a data set from the content of files: transposes EMNIST's images, counts labels from 0, names the classes, splits off
/// tests.
fn assemble(
    mut found: Found,
    folder: &Path,
    family: &str,
    is_published: bool,
    mut train: Raw,
    mut test: Option<Raw>,
    options: ReadOptions,
) -> Result<Dataset, Error> {
    let is_emnist = family.split('-').any(|part| part == "emnist");
    let parts = || std::iter::once(&train).chain(&test);
    for Raw {
        images,
        labels,
        path,
        ..
    } in parts()
    {
        let images = images.len() / SHAPE.len();
        if images != labels.len() {
            let problem = format!("{} labels for {images} images", labels.len());
            return Err(Error::Data {
                path: path.clone(),
                problem,
            });
        }
    }
    let labels = || parts().flat_map(|part| part.labels.iter().copied());
    let (least, largest) = (labels().min().unwrap_or(0), labels().max().unwrap_or(0));
    let counts_from_1 = usize::from(largest) == CLASSES || is_emnist && family.ends_with("letters");
    let first = u8::from(least >= 1 && counts_from_1);
    if first == 1 {
        let note = "the labels count from 1: each is shifted by one, so that they count from 0";
        found.notes.push(note.to_owned());
        for part in std::iter::once(&mut train).chain(&mut test) {
            part.labels.iter_mut().for_each(|label| *label -= 1);
        }
    }
    if is_emnist {
        let note = "EMNIST stores its images transposed: they are transposed back";
        found.notes.push(note.to_owned());
        for part in std::iter::once(&mut train).chain(&mut test) {
            SHAPE.transpose(&mut part.images);
        }
    }
    for Raw { labels, path, .. } in std::iter::once(&train).chain(&test) {
        idx::check_labels(labels, first, CLASSES).map_err(|problem| Error::Data {
            path: path.clone(),
            problem,
        })?;
    }
    let names = class_names(folder, family, first, is_published, largest - first)?;
    let hashes = train
        .sha256
        .filter(|_| first == 0 && !is_emnist && test.is_some());
    let mut train = Split::new(train.images, train.labels);
    let test = match test {
        Some(test) => Split::new(test.images, test.labels),
        None => set_aside(&mut train, &found.path, options.test_split)?,
    };
    Ok(Dataset {
        name: match is_published {
            true => FASHION_MNIST.to_owned(),
            false => found.name,
        },
        folder: found.path,
        classes: names,
        sha256: combined(&hashes.unwrap_or_else(|| hashes_of(&train))),
        published: is_published,
        options,
        notes: found.notes,
        warnings: found.warnings,
        empty_folders: BTreeSet::new(),
        train,
        val: None,
        test,
    })
}

/// Returns the error that one of the four files is missing, with what the folder contains.
fn missing(folder: &Path, role: Role) -> Error {
    let there = Listing::new(folder).map(|listing| listing.to_string());
    Error::MissingFile {
        folder: folder.to_owned(),
        name: IDX_NAMES[role as usize],
        there: there.unwrap_or_default(),
    }
}

/// Returns a function that makes the error for a problem of a file.
fn data(path: &Path) -> impl Fn(String) -> Error {
    move |problem| Error::Data {
        path: path.to_owned(),
        problem,
    }
}

fn open_file(path: &Path) -> Result<(BufReader<File>, u64), Error> {
    let file = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, file) = file.map_err(Error::io("cannot be read", path))?;
    Ok((BufReader::new(file), len))
}

/// Reads the first of the files; the others must have the same content.
fn read_idx(paths: &[PathBuf], role: Role) -> Result<Idx, Error> {
    let (file, len) = open_file(&paths[0])?;
    let idx = match role {
        Role::TrainImages | Role::TestImages | Role::ValImages => idx::images(file, len, SHAPE),
        Role::TrainLabels | Role::TestLabels | Role::ValLabels => idx::labels(file, len),
    };
    let idx = idx.map_err(data(&paths[0]))?;
    same_content(paths, idx.sha256)?;
    Ok(idx)
}

/// Does the same as [`read_idx`], for tables.
fn read_table(paths: &[PathBuf]) -> Result<Table, Error> {
    let path = &paths[0];
    if paths.len() > 1 {
        let first = idx::content_sha256(open_file(path)?.0).map_err(data(path))?;
        same_content(paths, first)?;
    }
    let line = table::peek(open_file(path)?.0).map_err(data(path))?;
    table::read(open_file(path)?.0, &line, SHAPE).map_err(data(path))
}

/// Refuses files with the same role whose content differs from that of the first.
fn same_content(paths: &[PathBuf], first: [u8; 32]) -> Result<(), Error> {
    for path in &paths[1..] {
        let sha256 = idx::content_sha256(open_file(path)?.0).map_err(data(path))?;
        if sha256 != first {
            let problem = format!(
                "not the content of {}, uncompressed, though either could be read; remove the wrong one",
                paths[0].display()
            );
            return Err(data(path)(problem));
        }
    }
    Ok(())
}

/// Returns the hashes that the files of a split would have.
fn hashes_of(split: &Split) -> [[u8; 32]; 2] {
    idx::sha256(bytes(split.images()), split.labels(), SHAPE)
}

/// Returns the hash of both hashes, as in [`Dataset::sha256`].
fn combined(hashes: &[[u8; 32]; 2]) -> [u8; 32] {
    Sha256::digest(hashes.as_flattened()).into()
}

/// Returns the names from `classes.txt`, one per line; else the published names, else EMNIST's characters, else the labels.
fn class_names(
    folder: &Path,
    family: &str,
    first: u8,
    is_published: bool,
    largest: u8,
) -> Result<[String; CLASSES], Error> {
    let listing = Listing::new(folder)?;
    let named = |wanted: &str| {
        let is_wanted = |path: &&PathBuf| {
            path.file_name()
                .is_some_and(|name| name.eq_ignore_ascii_case(wanted))
        };
        listing.files.iter().find(is_wanted)
    };
    let mut names: Vec<String> = match named("classes.txt") {
        Some(path) => {
            let names = names::read_list(path)?;
            if names.len() <= usize::from(largest) {
                let problem = format!(
                    "{} names, but there are labels up to {}; expected a name for each class",
                    names.len(),
                    largest + first
                );
                return Err(data(path)(problem));
            }
            names
        }
        None if is_published => FASHION_MNIST_CLASSES.map(str::to_owned).to_vec(),
        None => match named(&format!("{family}-mapping.txt")) {
            Some(path) => names::read_mapping(path, first)?,
            None if first == 1 && family.ends_with("letters") => {
                ('A'..='Z').map(String::from).collect()
            }
            None => (0..CLASSES)
                .map(|class| (class + usize::from(first)).to_string())
                .collect(),
        },
    };
    names.truncate(CLASSES);
    names.resize(CLASSES, String::new());
    Ok(names.try_into().expect("as many as there are classes"))
}

/// Returns bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
