//! Kafka protocol codec and record-batch view, sans-IO
