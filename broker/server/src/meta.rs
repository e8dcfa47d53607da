//! The cluster's metadata: records, the image they make, the controller that decides, and the raft log that keeps them.

pub mod controller;
mod encoding;
pub mod image;
pub mod records;
