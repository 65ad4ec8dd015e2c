//! All layers together, against clients of each.

mod arrivals;
mod client;
#[cfg(feature = "tls")]
mod tls;
