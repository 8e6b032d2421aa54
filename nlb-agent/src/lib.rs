//! The control plane of nlb: watch, translate, check targets, fill the maps.

pub mod check;
pub mod inputs;
pub mod manifests;
pub mod model;
pub mod problem;
pub mod translate;
pub mod vips;
