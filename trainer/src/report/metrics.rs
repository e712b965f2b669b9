//! The metrics of a run by column, read from its `metrics.csv`, whichever columns it has.

use crate::error::Error;
use std::path::Path;

/// The largest epoch: more than anybody trains, and few enough to draw.
const MAX_EPOCH: f64 = 1e6;

/// Named columns of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    names: Vec<String>,
    /// One row per epoch, as long as `names`; NaN where the file has no value.
    rows: Vec<Vec<f64>>,
}

impl Metrics {
    /// Reads the file.
    ///
    /// # Errors
    /// * `Io`: the file cannot be read
    /// * `Data`: the file is not a table of numbers with a column `epoch`
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io("cannot be read", path))?;
        Self::parse(&text).map_err(|problem| Error::Data {
            path: path.to_owned(),
            problem,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let names: Vec<String> = lines
            .next()
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect();
        let mut rows = Vec::new();
        for (number, line) in (2..).zip(lines) {
            let row: Vec<f64> = line
                .split(',')
                .map(|cell| {
                    if cell.is_empty() {
                        Ok(f64::NAN)
                    } else {
                        cell.parse()
                    }
                })
                .collect::<Result<_, _>>()
                .map_err(|_| format!("line {number} is \"{line}\"; expected numbers"))?;
            if row.len() != names.len() {
                return Err(format!(
                    "line {number} has {} cells; expected {}, as its first line",
                    row.len(),
                    names.len()
                ));
            }
            rows.push(row);
        }
        let metrics = Self { names, rows };
        match metrics.column("epoch") {
            Some(epochs) if !epochs.is_empty() => {
                match epochs.iter().all(|epoch| (1.0..=MAX_EPOCH).contains(epoch)) {
                    true => Ok(metrics),
                    false => Err(format!(
                        "column `epoch` holds other numbers than 1 to {MAX_EPOCH}"
                    )),
                }
            }
            _ => Err("no epoch in it; expected a column `epoch` and a line an epoch".to_owned()),
        }
    }

    /// Returns the numbers in the column of that name.
    pub fn column(&self, name: &str) -> Option<Vec<f64>> {
        let index = self.names.iter().position(|found| found == name)?;
        Some(self.rows.iter().map(|row| row[index]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_may_have_gaps() {
        let metrics = Metrics::parse("epoch,val_acc,test_acc\n1,0.5,\n2,0.75,0.625\n").unwrap();
        assert_eq!(metrics.column("val_acc"), Some(vec![0.5, 0.75]));
        let test = metrics.column("test_acc").unwrap();
        assert!(test[0].is_nan() && test[1] == 0.625);
        assert_eq!(metrics.column("train_loss"), None);
    }

    #[test]
    fn a_file_that_is_not_a_table_of_epochs_is_rejected() {
        let refused = |text| Metrics::parse(text).unwrap_err();
        let empty = "no epoch in it; expected a column `epoch` and a line an epoch";
        assert_eq!(refused(""), empty);
        assert_eq!(refused("epoch,train_loss\n"), empty);
        assert_eq!(refused("step,loss\n1,2\n"), empty);
        assert_eq!(
            refused("epoch,train_loss\n1,two\n"),
            "line 2 is \"1,two\"; expected numbers"
        );
        assert_eq!(
            refused("epoch\nNaN\n"),
            "column `epoch` holds other numbers than 1 to 1000000"
        );
        assert_eq!(
            refused("epoch,train_loss\n1,2\n2\n"),
            "line 3 has 1 cells; expected 2, as its first line"
        );
    }
}
