//! The control plane of nlb: watch, translate, check targets, fill the maps.

pub mod args;
pub mod capacity;
pub mod cli;
pub mod contents;
pub mod control;
pub mod health;
pub mod host;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod problem;
pub mod report;
pub mod ring;
pub mod slots;
pub mod socket;
