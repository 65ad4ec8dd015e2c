//! All layers together, against clients of each.

mod arrivals;
mod client;
mod speed;
#[cfg(feature = "tls")]
mod tls;
