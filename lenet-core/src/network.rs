//! The network that the crate is built for: the one that the environment variable `LENET_NETWORK` names, or else `lenet`.
//!
//! Its description is a file in `networks/`, from which [`network!`](crate::network!) generates the items of this module.
//!
//! [`description!`](crate::description!) passes the description to a macro of another crate, which can derive more items
//! from it, such as gradients:
//!
//! ```ignore
//! lenet_core::description!(my_crate::gradient);
//! ```

/// Expands the description twice: as a network, and as a macro that passes it on.
macro_rules! network {
    ($($description:tt)*) => {
        $crate::network! { $($description)* }

        /// Invokes the macro at the given path with the description of the network that the crate is built for.
        #[macro_export]
        macro_rules! description {
            ($callback:path) => { $callback! { $($description)* } };
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/network.rs"));
