//! Schema, Value, Record, component traits, ConfigDef and ErrorKind
