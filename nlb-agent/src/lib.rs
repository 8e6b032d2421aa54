//! The control plane of nlb: watch, translate, check targets, fill the maps.

pub mod args;
pub mod bpf;
pub mod capacity;
pub mod check;
pub mod cli;
pub mod contents;
pub mod control;
pub mod health;
pub mod host;
pub mod http;
pub mod inputs;
pub mod logging;
pub mod manifests;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod problem;
pub mod report;
pub mod ring;
pub mod slots;
pub mod socket;
pub mod translate;
pub mod vips;
