//! Parameters in a NumPy archive (`.npz`), under the names of PyTorch's `state_dict`.

use crate::safetensors::{floats, names};
use crate::state_dict::{self, Named};
use bytemuck::zeroed_box;
use half::f16;
use lenet_core::network::{Params, TENSORS};
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// The size in bytes above which the arrays of an archive are not those of a network. The parameters of the largest network take
/// 4 MiB in f32.
const MAX_BYTES: u64 = 64 << 20;

/// Returns whether bytes are a NumPy archive: a ZIP archive that contains only arrays.
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04")
        && ZipArchive::new(Cursor::new(bytes)).is_ok_and(|archive| {
            let array = |name: &str| name.ends_with(".npy");
            archive
                .file_names()
                .all(|name| name.is_ok_and(|name| array(&name)))
                && !archive.is_empty()
        })
}

/// Reads the parameters in a NumPy archive, and returns notes on how they were found.
///
/// # Errors
/// A sentence; if the tensors differ from those expected, it lists both.
pub fn read_params(bytes: &[u8]) -> Result<(Box<Params>, Vec<String>), String> {
    let broken = |error: &dyn std::fmt::Display| format!("broken NumPy archive: {error}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(&error))?;
    let mut tensors = Vec::new();
    let mut left = MAX_BYTES;
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(|error| broken(&error))?;
        let name = file.name().map_err(|error| broken(&error))?;
        let name = name.trim_end_matches(".npy").to_owned();
        let mut array = Vec::new();
        let read = file.take(left + 1).read_to_end(&mut array);
        read.map_err(|error| broken(&error))?;
        left = left.checked_sub(array.len() as u64).ok_or(
            "the arrays in the NumPy archive take more than 64 MiB, expected the tensors of this network",
        )?;
        let array = read_array(&array)
            .ok_or_else(|| format!("{name} in the NumPy archive: no array that can be read"))?;
        tensors.push(Named { name, ..array });
    }
    let mut params: Box<Params> = zeroed_box();
    let notes = state_dict::read(tensors, &names(), &TENSORS, params.as_flat_mut())?;
    Ok((params, notes))
}

/// Reads an array in the `.npy` format, whose header is a Python dictionary with `descr`, `fortran_order` and `shape`.
fn read_array(bytes: &[u8]) -> Option<Named> {
    let (&[major, _], rest) = bytes.strip_prefix(b"\x93NUMPY")?.split_first_chunk()?;
    let (len, rest) = match major {
        1 => rest
            .split_first_chunk()
            .map(|(&len, rest)| (u16::from_le_bytes(len).into(), rest))?,
        _ => rest
            .split_first_chunk()
            .map(|(&len, rest)| (u32::from_le_bytes(len) as usize, rest))?,
    };
    let (header, data) = rest.split_at_checked(len)?;
    let header = std::str::from_utf8(header).ok()?;
    let field = |name: &str| {
        let (_, rest) = header.split_once(&format!("'{name}':"))?;
        Some(rest.trim_start())
    };
    let kind = field("descr")?.strip_prefix('\'')?.split('\'').next()?;
    let shape = field("shape")?.strip_prefix('(')?.split(')').next()?;
    let dims = shape
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty());
    let dims: Vec<usize> = dims.map(|dim| dim.parse().ok()).collect::<Option<_>>()?;
    let (kind, values) = match kind {
        "<f4" => ("F32", Some(floats(data, f32::from_le_bytes))),
        "<f8" => (
            "F64",
            Some(floats(data, |bytes| f64::from_le_bytes(bytes) as f32)),
        ),
        "<f2" => (
            "F16",
            Some(floats(data, |bytes| f16::from_le_bytes(bytes).to_f32())),
        ),
        other => (other, None),
    };
    let count = dims
        .iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim))?;
    let values = match values {
        Some(values) if values.len() != count => return None,
        Some(values) if field("fortran_order")?.starts_with("True") => {
            Some(by_rows(&values, &dims))
        }
        values => values,
    };
    Some(Named {
        name: String::new(),
        kind: kind.to_owned(),
        dims,
        values,
    })
}

/// Converts values from column-major order (first dimension innermost) to row-major order.
fn by_rows(values: &[f32], dims: &[usize]) -> Vec<f32> {
    // If a dimension is 0, nothing limits the others, whose indices might not fit into memory.
    if values.is_empty() {
        return Vec::new();
    }
    let mut indices = vec![0];
    let mut stride = 1;
    let strides = dims.iter().map(|&dim| {
        let this = stride;
        stride *= dim;
        (dim, this)
    });
    // A dimension of 1 changes no index, and a damaged file can have many of them.
    for (dim, stride) in strides.filter(|&(dim, _)| dim != 1) {
        indices = indices
            .iter()
            .flat_map(|&index| (0..dim).map(move |step| index + step * stride))
            .collect();
    }
    indices
        .into_iter()
        .map(|index: usize| values[index])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::initial_params;
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn array(kind: &str, fortran: &str, dims: &[usize], data: &[u8]) -> Vec<u8> {
        let dims: String = dims.iter().map(|dim| format!("{dim}, ")).collect();
        let header =
            format!("{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': ({dims}), }}\n");
        let len = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn an_archive_holds_the_parameters_in_rows_or_columns_compressed_or_not() {
        let params = initial_params(3);
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (index, (name, tensor)) in names().iter().zip(TENSORS).enumerate() {
            let method = match index % 2 {
                0 => zip::CompressionMethod::Stored,
                _ => zip::CompressionMethod::Deflated,
            };
            let options = SimpleFileOptions::default().compression_method(method);
            archive.start_file(format!("{name}.npy"), options).unwrap();
            let values = &params.as_flat()[tensor.offset..][..tensor.len()];
            let bytes = match tensor.dims() {
                // As numpy.save writes a transposed matrix.
                &[rows, columns] => {
                    let turned: Vec<f32> = (0..columns)
                        .flat_map(|c| (0..rows).map(move |r| values[r * columns + c]))
                        .collect();
                    array("<f4", "True", tensor.dims(), bytemuck::cast_slice(&turned))
                }
                dims => array("<f4", "False", dims, bytemuck::cast_slice(values)),
            };
            archive.write_all(&bytes).unwrap();
        }
        let bytes = archive.finish().unwrap().into_inner();
        assert!(looks_like(&bytes));
        assert_eq!(read_params(&bytes).unwrap(), (params, Vec::new()));
        for end in (0..bytes.len()).step_by(997) {
            assert!(!looks_like(&bytes[..end]) && read_params(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn a_damaged_array_is_rejected_without_a_panic() {
        let good = array("<f2", "False", &[1], &[0, 0x3c]);
        let one = read_array(&good).unwrap();
        assert_eq!((one.kind.as_str(), one.values), ("F16", Some(vec![1.0])));
        for end in 0..good.len() {
            assert!(read_array(&good[..end]).is_none(), "{end} bytes");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let _ = read_array(&bytes);
            }
        }
        assert!(read_array(&array("<f4", "True", &[usize::MAX, 2], &[])).is_none());
        let none = read_array(&array("<f4", "True", &[1 << 50, 0], &[])).unwrap();
        assert_eq!((none.dims, none.values), (vec![1 << 50, 0], Some(vec![])));
        let ones = [&[1; 5000][..], &[2, 1, 2]].concat();
        let read = read_array(&array("<f2", "True", &ones, &[0, 60, 0, 64, 0, 66, 0, 68])).unwrap();
        assert_eq!(read.values, Some(vec![1.0, 3.0, 2.0, 4.0]));
        let integers = read_array(&array("<i8", "False", &[1], &[0; 8])).unwrap();
        assert_eq!((integers.kind.as_str(), integers.values), ("<i8", None));
    }

    #[test]
    fn an_archive_that_expands_to_more_than_any_network_is_rejected() {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        // Each array is within the limit.
        let bytes = array("<f4", "False", &[1 << 22], &[0; 1 << 24]);
        for name in ["a", "b", "c", "d"] {
            archive
                .start_file(format!("{name}.npy"), SimpleFileOptions::default())
                .unwrap();
            archive.write_all(&bytes).unwrap();
        }
        let bytes = archive.finish().unwrap().into_inner();
        assert!(bytes.len() < 1 << 18, "{} bytes", bytes.len());
        assert_eq!(
            read_params(&bytes),
            Err("the arrays in the NumPy archive take more than 64 MiB, expected the tensors of this network".to_owned())
        );
    }
}
