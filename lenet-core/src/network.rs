//! The network that this build is for: `lenet`, or the one that `LENET_NETWORK` named when the crate was built.
//!
//! Its description is a file in `networks/`; everything here is made from it by [`network!`](crate::network!).
//!
//! [`description!`](crate::description!) hands the description on to a macro of another crate, which derives from it what
//! belongs there, such as gradients:
//!
//! ```ignore
//! lenet_core::description!(my_crate::gradient);
//! ```

/// Expands the description twice: as a network, and as a macro that hands it on.
macro_rules! network {
    ($($description:tt)*) => {
        $crate::network! { $($description)* }

        /// Expands the macro of this path with the description of the network that this build is for.
        #[macro_export]
        macro_rules! description {
            ($callback:path) => { $callback! { $($description)* } };
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/network.rs"));
