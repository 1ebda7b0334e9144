//! The bank's behaviour on real services. PostgreSQL is found by `ADJUTANT_TEST_DATABASE_URL`, a
//! URL that may create databases; each test has its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod database;
mod history;
