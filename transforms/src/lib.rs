//! Built-in transforms and predicates
