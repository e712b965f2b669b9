//! Where the data set is found, and whether it is the published one.

use super::folder::{self, Folder};
use super::idx::{self, Idx, read_images, read_labels};
use super::{MAX_CLASS_NAME, Split, is_class_name};
use crate::error::Error;
use lenet_core::network::{CLASSES, Pixels};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Classes of Fashion-MNIST, in the order of its labels.
pub const FASHION_MNIST_CLASSES: [&str; CLASSES] = [
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

/// The four files in the order of reading, with the SHA-256 of the uncompressed files of Fashion-MNIST.
const FILES: [(&str, &str); 4] = [
    (
        "train-images-idx3-ubyte",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    (
        "train-labels-idx1-ubyte",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    (
        "t10k-images-idx3-ubyte",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    (
        "t10k-labels-idx1-ubyte",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
];

/// Name of the published data set.
const FASHION_MNIST: &str = "fashion-mnist";
/// Where Debian's package `dataset-fashion-mnist` puts the files.
const DEBIAN: &str = "/usr/share/datasets/fashion-mnist";

/// What may be done to an image file so that it fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "program", derive(clap::Args))]
pub struct ImageOptions {
    /// Scale PNG and JPEG files of other sizes to 28x28: they keep their proportions, and the rest is black
    #[cfg_attr(feature = "program", arg(long))]
    pub resize: bool,
    /// Turn PNG and JPEG files from dark on white into bright on black, as Fashion-MNIST is
    #[cfg_attr(feature = "program", arg(long))]
    pub invert: bool,
}

/// How the files of a data set become images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReadOptions {
    /// Whether files of Fashion-MNIST may differ from the published ones.
    pub allow_modified: bool,
    /// Share of each class to test on, in 0..1, of class folders without `train` and `test`.
    pub test_split: Option<f64>,
    /// Of PNG and JPEG files.
    pub images: ImageOptions,
}

/// Training and test images with what identifies them.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// `fashion-mnist` where the files are the published ones, else the folder's name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Names of the classes; empty where there is none.
    pub classes: [String; CLASSES],
    /// SHA-256 over two SHA-256: of the uncompressed training images, and of the training labels, each as an IDX file.
    pub sha256: [u8; 32],
    /// Whether it is Fashion-MNIST to the byte.
    pub published: bool,
    /// How it was read.
    pub options: ReadOptions,
    /// What is trained on.
    pub train: Split,
    /// What is validated on: nothing before [`hold_out`](Self::hold_out).
    pub val: Option<Split>,
    /// What is tested on.
    pub test: Split,
}

/// Looks for the data set's folder: the one given, else `data/fashion-mnist` of the repository, else Debian's.
/// Reads nothing.
///
/// # Errors
/// `NoDataset` with every place looked at.
pub fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    let places = match given {
        Some(folder) => vec![folder.to_owned()],
        None => vec![
            PathBuf::from("data").join(FASHION_MNIST),
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../data")
                .join(FASHION_MNIST),
            PathBuf::from(DEBIAN),
        ],
    };
    match places
        .iter()
        .find(|place| has_idx(place) || folder::looks_like(place))
    {
        Some(place) => Ok(place.clone()),
        None => {
            let searched = places
                .iter()
                .map(|place| format!("  {}\n", place.display()))
                .collect();
            Err(Error::NoDataset { searched })
        }
    }
}

/// Finds a data set, as four IDX files or as class folders of PNG and JPEG files, and reads it.
///
/// # Errors
/// * `NoDataset`: there is none, with every place looked at
/// * `Settings`: `options` are not for this kind of data set
/// * what reading gives
pub fn open(given: Option<&Path>, options: ReadOptions) -> Result<Dataset, Error> {
    let folder = find(given)?;
    if !has_idx(&folder) {
        return Dataset::load_folders(&folder, options);
    }
    let ImageOptions { resize, invert } = options.images;
    for (given, option) in [
        (options.test_split.is_some(), "--test-split"),
        (resize, "--resize"),
        (invert, "--invert"),
    ] {
        if given {
            return Err(Error::Settings(format!(
                "{option} is for PNG and JPEG files in class folders; {} has IDX files",
                folder.display()
            )));
        }
    }
    Dataset::load(&folder, options.allow_modified)
}

impl Dataset {
    /// Reads class folders; see `folder.rs`.
    fn load_folders(folder: &Path, options: ReadOptions) -> Result<Self, Error> {
        let Folder {
            classes,
            train,
            test,
        } = folder::read(folder, options.test_split, options.images)?;
        Ok(Self {
            name: folder_name(folder),
            folder: folder.to_owned(),
            classes,
            sha256: combined(&idx::sha256(&train)),
            published: false,
            options,
            train,
            val: None,
            test,
        })
    }

    /// Takes a share of the training images, drawn by the seed, to validate on.
    ///
    /// # Errors
    /// `Settings`: it leaves no image to train or to validate on.
    pub fn hold_out(&mut self, share: f64, seed: u64) -> Result<(), Error> {
        let (train, val) = self.train.split(share, seed);
        if train.is_empty() || val.is_empty() {
            return Err(Error::Settings(format!(
                "--val-split {share} leaves {} images to train on and {} to validate on",
                train.len(),
                val.len()
            )));
        }
        (self.train, self.val) = (train, Some(val));
        Ok(())
    }

    /// What each epoch is measured on: the validation images if there are any, else the test images.
    pub fn held_out(&self) -> &Split {
        self.val.as_ref().unwrap_or(&self.test)
    }

    /// Reads the four files of a folder. Where one of them is Fashion-MNIST's, or the folder is called so, all must
    /// be, unless `allow_modified`.
    ///
    /// # Errors
    /// * `MissingFile`: a file is not there
    /// * `Io`: it cannot be read
    /// * `Data`: it is not what it should be: see the sentence
    pub fn load(folder: &Path, allow_modified: bool) -> Result<Self, Error> {
        let paths: Vec<PathBuf> = FILES
            .iter()
            .map(|(name, _)| {
                existing(folder, name).ok_or(Error::MissingFile {
                    folder: folder.to_owned(),
                    name,
                })
            })
            .collect::<Result<_, _>>()?;
        // The training images take most of the time: unpack them beside the rest.
        let (train_images, others) = rayon::join(
            || read(&paths[0], read_images),
            || {
                Ok::<_, Error>((
                    read(&paths[1], read_labels)?,
                    read(&paths[2], read_images)?,
                    read(&paths[3], read_labels)?,
                ))
            },
        );
        let train_images = train_images?;
        let (train_labels, test_images, test_labels) = others?;

        let found = [
            train_images.sha256,
            train_labels.sha256,
            test_images.sha256,
            test_labels.sha256,
        ];
        let published: Vec<bool> = FILES
            .iter()
            .zip(found)
            .map(|((_, known), found)| hex(&found) == *known)
            .collect();
        let folder_name = folder_name(folder);
        if !allow_modified
            && (published.contains(&true) || folder_name == FASHION_MNIST)
            && let Some(file) = published.iter().position(|published| !published)
        {
            let problem = format!(
                "SHA-256 of the uncompressed file is {}, Fashion-MNIST's is {}; copy it again, or go on with --allow-modified",
                hex(&found[file]),
                FILES[file].1
            );
            return Err(Error::Data {
                path: paths[file].clone(),
                problem,
            });
        }
        let is_published = !published.contains(&false);

        Ok(Self {
            name: if is_published {
                FASHION_MNIST.to_owned()
            } else {
                folder_name
            },
            classes: class_names(folder, is_published)?,
            sha256: combined(&[train_images.sha256, train_labels.sha256]),
            published: is_published,
            options: ReadOptions {
                allow_modified,
                ..ReadOptions::default()
            },
            train: pair(train_images, train_labels, &paths[1])?,
            val: None,
            test: pair(test_images, test_labels, &paths[3])?,
            folder: folder.to_owned(),
        })
    }
}

fn has_idx(folder: &Path) -> bool {
    FILES
        .iter()
        .any(|(name, _)| existing(folder, name).is_some())
}

fn folder_name(folder: &Path) -> String {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.unwrap_or("data").to_owned()
}

/// See [`Dataset::sha256`].
fn combined(hashes: &[[u8; 32]; 2]) -> [u8; 32] {
    Sha256::digest(hashes.as_flattened()).into()
}

/// The file under its name, or with `.gz` behind it.
fn existing(folder: &Path, name: &str) -> Option<PathBuf> {
    [folder.join(name), folder.join(format!("{name}.gz"))]
        .into_iter()
        .find(|path| path.is_file())
}

fn read(path: &Path, parse: fn(&[u8]) -> Result<Idx, String>) -> Result<Idx, Error> {
    let bytes = std::fs::read(path).map_err(Error::io("cannot be read", path))?;
    parse(&bytes).map_err(|problem| Error::Data {
        path: path.to_owned(),
        problem,
    })
}

fn pair(images: Idx, labels: Idx, labels_path: &Path) -> Result<Split, Error> {
    let images_len = images.bytes.len() / size_of::<Pixels>();
    if images_len != labels.bytes.len() {
        let problem = format!("{} labels for {images_len} images", labels.bytes.len());
        return Err(Error::Data {
            path: labels_path.to_owned(),
            problem,
        });
    }
    Ok(Split::new(images.bytes, labels.bytes))
}

/// From `classes.txt`, a name a line; else the published names, else the digits.
fn class_names(folder: &Path, is_published: bool) -> Result<[String; CLASSES], Error> {
    let path = folder.join("classes.txt");
    if !path.is_file() {
        return Ok(match is_published {
            true => std::array::from_fn(|class| {
                let name = FASHION_MNIST_CLASSES.get(class);
                name.copied().unwrap_or_default().to_owned()
            }),
            false => std::array::from_fn(|class| class.to_string()),
        });
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io("cannot be read", &path))?;
    let names: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
    if !(1..=CLASSES).contains(&names.len()) || !names.iter().all(|name| is_class_name(name)) {
        let problem = format!(
            "{} names of up to {longest} bytes; expected 1 to {CLASSES}, one a line, of at most {MAX_CLASS_NAME} bytes \
             without control characters",
            names.len()
        );
        return Err(Error::Data { path, problem });
    }
    Ok(std::array::from_fn(|class| {
        names.get(class).copied().unwrap_or_default().to_owned()
    }))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
