//! Who may take traffic: health checks, the life of a target, and the choice among targets that follows from both.
//!
//! [`Health`] and [`forwardings`] are pure; [`Checker`] is the only part that opens sockets. The owner feeds every
//! [`Checked`] that comes out of the channel into [`Health::outcome`], and calls [`Health::update`] with each new model
//! and whenever [`Health::next_deadline`] has come.

mod checks;
mod choice;
mod ending;
mod lateness;
mod load;
mod outcome;
mod pool;
pub mod probe;
mod queue;
mod reason;
mod reuse;
mod saved;
mod scheduler;
mod sockets;
mod state;
mod status;
mod urgency;

pub use checks::{Check, checks, checks_of};
pub use choice::{Choice, Standings, forwardings, forwardings_of, unreachable_reason};
pub use lateness::Lateness;
pub use load::{LATE, Load};
pub use outcome::{Failure, Outcome, Tally};
pub use reason::{Reason, State};
pub use reuse::Forgotten;
pub(crate) use reuse::listener_of;
pub use saved::{Saved, SavedGroup, SavedTarget};
pub use scheduler::{Ask, Checked, Checker};
pub use state::Health;
pub use status::{Departure, Life, Standing, Status};

#[cfg(test)]
mod departed_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
