//! What `check` prints and how it ends, on the examples and on broken input.
