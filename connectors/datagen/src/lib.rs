//! Generated records
