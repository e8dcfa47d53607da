//! The REST API and metrics
