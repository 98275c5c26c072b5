//! The madsim engine: whole nodes (the async driver, the peer transport, hyper's HTTP server) as
//! tasks of madsim's executor, in its virtual time, over simulated disks, clocks and connections;
//! clients speak HTTP.
//!
//! madsim brings the executor, which picks among ready tasks at random from the seed, the timers,
//! and nodes whose tasks can be killed and paused. Connections are this module's own
//! (`connections`): madsim's never break, take every write whole, and end cleanly through a
//! partition.

mod alarms;
mod archivist;
mod attendance;
mod book;
mod budgets;
mod certificate_files;
mod certificates;
mod client;
mod connections;
mod course;
mod cut_off;
mod door;
mod env;
mod exam;
mod faults;
mod figures;
mod glance;
mod http;
mod inspect;
mod joins;
mod keyspace;
mod laws;
mod leasing;
mod limits;
mod listening;
mod machine;
mod metrics;
mod mirror;
mod moves;
mod operator;
mod pipes;
mod probe;
mod readiness;
mod reflections;
mod releases;
mod removed;
mod rest;
mod reverts;
mod rights;
mod rulers;
mod run;
mod scrape;
mod scrubbing;
mod serving;
mod standing;
mod status_fields;
mod stopping;
mod store_figures;
mod text;
mod time;
mod upkeep;
mod wire_tap;
mod witness;
mod world;
mod written;

pub use course::run;
pub use limits::snapshot_worker_percent;
