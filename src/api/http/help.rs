//! `GET /`: what can be asked.

use crate::api::http::answer::Answer;
use crate::api::http::route::Route;
use crate::runtime::Env;
use hyper::StatusCode;
use std::fmt::Write;

/// What a route is for stands here, if its command is not longer.
const ABOUT_COLUMN: usize = 34;
const NOTE: &str = "  \
  (-i shows the headers: infinitystore-reason says why something was refused, infinitystore-outcome
  whether a write that failed may still happen)
";

/// The page: commands with what to send first, then what can be looked at.
pub(super) fn page<E: Env>(routes: impl Iterator<Item = &'static Route<E>>) -> Answer {
    let (mut commands, mut views) = (String::new(), String::new());
    for operation in routes.flat_map(|route| route.operations) {
        for example in operation.examples {
            if example.len() < ABOUT_COLUMN {
                writeln!(views, "  {example:<ABOUT_COLUMN$}{}", operation.about)
            } else {
                writeln!(commands, "  {example}")
            }
            .expect("a String takes everything");
        }
    }
    Answer::text(StatusCode::OK, format!("InfinityStore\n\n{commands}{NOTE}\n{views}"))
}
