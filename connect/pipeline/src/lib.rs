//! YAML pipelines: parse, check, plan
