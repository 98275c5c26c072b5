//! `GET /`: what can be asked.

use crate::api::http::answer::{Answer, Content};
use crate::api::http::route::Route;
use crate::runtime::Env;
use bytes::Bytes;
use std::fmt::Write;
use std::sync::OnceLock;

/// What a route is for stands here, if its command is not longer.
const ABOUT_COLUMN: usize = 34;
/// The width of a method in the list of routes, and of a path.
const METHOD_COLUMNS: usize = 7;
const PATH_COLUMNS: usize = 31;
const NOTE: &str = "  \
  (-i shows the headers: infinitystore-reason says why something was refused, infinitystore-outcome
  whether a write that failed may still happen)
";

/// The page, which is the same for all clients.
pub(super) fn page<E: Env>(routes: impl Iterator<Item = &'static Route<E>>) -> Answer {
    static PAGE: OnceLock<Bytes> = OnceLock::new();
    Answer::page(Content::Text, PAGE.get_or_init(|| text(routes).into()).clone())
}

/// Commands with what to send first, then what can be looked at, and then every route there is.
fn text<E: Env>(routes: impl Iterator<Item = &'static Route<E>>) -> String {
    let (mut commands, mut views, mut all) = (String::new(), String::new(), String::new());
    let operations =
        routes.flat_map(|route| route.operations.iter().map(|operation| (route.path, operation)));
    for (path, operation) in operations {
        let (method, about) = (operation.method, operation.about);
        writeln!(all, "  {method:<METHOD_COLUMNS$}{path:<PATH_COLUMNS$} {about}")
            .expect("a String takes everything");
        for example in operation.examples {
            if example.len() < ABOUT_COLUMN {
                writeln!(views, "  {example:<ABOUT_COLUMN$}{}", operation.about)
            } else {
                writeln!(commands, "  {example}")
            }
            .expect("a String takes everything");
        }
    }
    format!("InfinityStore\n\n{commands}{NOTE}\n{views}\nEvery route:\n{all}")
}
