//! The control plane of nlb: watch, translate, check targets, fill the maps.

pub mod model;
pub mod problem;
pub mod ring;
