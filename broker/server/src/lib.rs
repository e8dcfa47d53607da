//! The broker: partitions, metadata, coordinators, network
