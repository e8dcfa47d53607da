//! Workers, herder, offset, config and status stores
