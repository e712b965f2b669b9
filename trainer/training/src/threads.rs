//! Thread pools. The system can refuse threads: it limits their number and their memory.

use crate::backend::Error;
use std::error::Error as _;

/// Starts a pool of `threads` threads; 0 means one per core.
///
/// # Errors
/// `Backend`: the system cannot start the threads.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, Error> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.build().map_err(refused(threads))
}

/// Starts the global thread pool, which runs everything without a pool of its own, unless it runs already; 0 means one thread
/// per core. Without this call, rayon would start it when first needed, and panic if it could not.
///
/// # Errors
/// `Backend`: the system cannot start the threads.
pub fn start_global(threads: usize) -> Result<(), Error> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    match builder.build_global() {
        // This error is not the system's: the threads run already.
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
