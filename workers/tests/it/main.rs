//! The bank's behaviour on real services. PostgreSQL is where `DATABASE_URL` says, by a role that
//! may create databases; each test has its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod database;
mod history;
