//! The source against an API server that misbehaves.

mod server;
