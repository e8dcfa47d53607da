//! File sink
