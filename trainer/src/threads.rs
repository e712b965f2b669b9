//! Threads that may be refused: the system limits how many there are, and how much memory they take.

use crate::error::Error;
use std::error::Error as _;

/// Starts a pool of so many threads; 0 means one per core.
///
/// # Errors
/// `Backend`: the system refuses them.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, Error> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.build().map_err(refused(threads))
}

/// Starts the threads on which everything runs that has no pool of its own, if they do not run yet; 0 means one per core.
/// Left to itself, rayon starts them when they are first needed, and panics where it cannot.
///
/// # Errors
/// `Backend`: the system refuses them.
pub fn start_global(threads: usize) -> Result<(), Error> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    match builder.build_global() {
        // Not the system's error: they run already.
        Err(error) if error.source().is_none() => Ok(()),
        started => started.map_err(refused(threads)),
    }
}

fn refused(threads: usize) -> impl FnOnce(rayon::ThreadPoolBuildError) -> Error {
    let threads = match threads {
        0 => "one thread per core".to_owned(),
        1 => "a thread".to_owned(),
        threads => format!("{threads} threads"),
    };
    move |error| {
        Error::Backend(format!(
            "cannot start {threads}: {error}. Use fewer (--threads, or RAYON_NUM_THREADS), or raise the limit of \
             processes or of memory (ulimit -u, ulimit -v)"
        ))
    }
}
