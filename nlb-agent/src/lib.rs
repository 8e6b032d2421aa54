//! The control plane of nlb: watch, translate, check targets, fill the maps.

pub mod bpf;
pub mod model;
pub mod problem;
