//! Converters between records and bytes
