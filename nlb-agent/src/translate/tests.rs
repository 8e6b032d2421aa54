//! Whole Services in, models out.
