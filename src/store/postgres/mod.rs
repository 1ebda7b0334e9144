//! The truth on PostgreSQL.
