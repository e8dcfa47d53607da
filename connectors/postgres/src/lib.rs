//! PostgreSQL change data capture source
