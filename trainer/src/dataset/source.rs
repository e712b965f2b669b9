//! Where the data set is found, and whether it is the published one.

use super::Split;
use super::idx::{Idx, read_images, read_labels};
use crate::error::Error;
use lenet_core::arch::{CLASSES, Pixels};
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

/// Training and test images with what identifies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// `fashion-mnist` where the files are the published ones, else the folder's name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// Names of the classes; empty where there is none.
    pub classes: [String; CLASSES],
    /// SHA-256 over two SHA-256: of the uncompressed training images, and of the training labels.
    pub sha256: [u8; 32],
    /// What is trained on.
    pub train: Split,
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
    match places.iter().find(|place| {
        FILES
            .iter()
            .any(|(name, _)| existing(place, name).is_some())
    }) {
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

impl Dataset {
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
        let folder_name = folder
            .file_name()
            .map_or("data", |name| name.to_str().unwrap_or("data"));
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

        let mut sha256 = Sha256::new();
        sha256.update(train_images.sha256);
        sha256.update(train_labels.sha256);
        Ok(Self {
            name: if is_published {
                FASHION_MNIST.to_owned()
            } else {
                folder_name.to_owned()
            },
            classes: class_names(folder, is_published)?,
            sha256: sha256.finalize().into(),
            train: pair(train_images, train_labels, &paths[1])?,
            test: pair(test_images, test_labels, &paths[3])?,
            folder: folder.to_owned(),
        })
    }
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
            true => FASHION_MNIST_CLASSES.map(str::to_owned),
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
    if names.is_empty() || names.len() > CLASSES || longest > MAX_CLASS_NAME {
        let problem = format!(
            "{} names of up to {longest} bytes; expected 1 to {CLASSES}, one a line, of at most {MAX_CLASS_NAME} bytes",
            names.len()
        );
        return Err(Error::Data { path, problem });
    }
    Ok(std::array::from_fn(|class| {
        names.get(class).copied().unwrap_or_default().to_owned()
    }))
}

/// Longest name of a class in bytes: short enough for a board's display and for the file.
const MAX_CLASS_NAME: usize = 32;

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
