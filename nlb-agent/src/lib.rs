//! The control plane of nlb: watch, translate, check targets, fill the maps.

pub mod capacity;
pub mod contents;
pub mod control;
pub mod model;
pub mod plan;
pub mod problem;
pub mod ring;
pub mod slots;
