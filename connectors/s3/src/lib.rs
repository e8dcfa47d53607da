//! S3 sink
