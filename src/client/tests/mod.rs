//! The client against a server that says what a script tells it to.

mod bad_answers;
mod calls;
mod endpoints;
mod foreign;
mod keyspace;
mod scripted;
mod since;
mod watch;
mod writes;
