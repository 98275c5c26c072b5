//! What a node runs on: sockets, time, tasks and workers behind [`Env`], and what is counted of
//! them.
//!
//! # Code map
//! - [`Env`] is all that a node needs of its surroundings; `tokio_env` is the one for production.
//! - `work`: synchronous work with a queue and a thread of its own; `work_task`: the same as a
//!   task.
//! - `timer`: a deadline that moves often. `watch`: one value that changes. `door`: counts
//!   connections, for both ports.
//! - `gate`: lets strangers make the node work a little at a time. `refusals`: what is logged of
//!   callers that are turned away.
//! - `certificates`: the ports that speak TLS.
//! - `metrics`: counters and histograms; `status`: what a node says of itself; `repair`: how far a
//!   repair of its data directory is.
//!
//! # Absences
//! Nothing here knows what a node does with it.

mod alarms;
mod certificates;
pub(crate) mod door;
mod env;
#[cfg(test)]
pub(crate) mod faulty_env;
pub(crate) mod gate;
mod metrics;
pub(crate) mod refusals;
mod repair;
mod scrub;
mod status;
pub(crate) mod timer;
mod tokio_env;
pub(crate) mod watch;
pub mod work;
mod work_task;

pub use alarms::{Alarm, Alarms};
pub use certificates::Certificates;
pub use env::{Env, Listener, until};
pub use gate::Pace;
pub use metrics::{Histogram, Instruments, Metrics, Requests, RouteRequests};
pub use repair::{RepairProgress, RepairStatus};
pub use scrub::{ScrubProgress, ScrubStatus};
pub use status::NodeStatus;
pub use tokio_env::{TokioEnv, TokioListener};
pub use work_task::run_as_task;
