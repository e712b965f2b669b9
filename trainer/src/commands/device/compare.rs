//! `trainer device compare`: finds the first layer and element in which a board differs from this computer.

use super::{ImageArgs, print_json};
use crate::commands::out::{Out, load_model};
use crate::device::{Classified, Difference, first_difference, ulps};
use crate::error::Error;
use lenet_core::network::LAYERS;
use serde::Serialize;

#[derive(Serialize)]
struct CompareReport {
    board: String,
    images: usize,
    difference: Option<(usize, &'static str, usize, f32, f32)>,
}

pub fn run(args: &ImageArgs) -> Result<(), Error> {
    let weights = load_model(&args.board.weights_path())?;
    let data = args.data.load()?;
    let count = args.count(&data, Some(10))?;
    let (board, difference) = args.board.with_board(Some(&weights), |client| {
        for (index, pixels) in data.test.images()[..count].iter().enumerate() {
            let host = weights.layers(pixels);
            let at = format!("image {index}");
            let Classified { image, .. } = client.classify(pixels, &at)?;
            let layers = (0..LAYERS.len())
                .map(|layer| client.layer(image, layer, weights.numbers(), &at))
                .collect::<Result<Vec<_>, _>>()?;
            if let Some(difference) = first_difference(&host, &layers) {
                return Ok((client.identity().board.clone(), Some((index, difference))));
            }
        }
        Ok((client.identity().board.clone(), None))
    })?;
    if args.board.json {
        print_json(&CompareReport {
            board: board.clone(),
            images: count,
            difference: difference
                .map(|(index, at)| (index, at.layer, at.element, at.host, at.board)),
        })?;
    }
    match difference {
        None if args.board.json => Ok(()),
        None => {
            writeln!(Out, "{board}: no difference in any layer of {count} images")?;
            Ok(())
        }
        Some((
            index,
            Difference {
                layer,
                element,
                host,
                board: found,
            },
        )) => {
            let apart = ulps(host, found).map_or("NaN".to_owned(), |ulps| format!("{ulps} ulp"));
            Err(Error::Mismatch(format!(
                "first difference: image {index}, layer {layer}, element {element}, host {host} ({:08x}), {board} {found} ({:08x}): {apart}",
                host.to_bits(),
                found.to_bits()
            )))
        }
    }
}
