//! The control plane of nlb: watch, translate, check targets, fill the maps.

pub mod args;
pub mod bpf;
pub mod cli;
pub mod health;
pub mod host;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod problem;
pub mod report;
pub mod socket;
