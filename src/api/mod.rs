//! What clients use: a service, and its face in HTTP.

mod http;
mod service;

pub use http::{HttpOptions, HttpServer, take_apart_credentials, take_apart_request};
pub use service::{AuditLog, AuditSink, PasswordCost};
