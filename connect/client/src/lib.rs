//! The runtime's view of a Kafka cluster
