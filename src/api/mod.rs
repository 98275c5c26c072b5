//! What clients use: the HTTP API.

mod http;

pub use http::{HttpOptions, HttpServer};
