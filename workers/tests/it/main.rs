//! The bank's behaviour as processes on real services. PostgreSQL and RabbitMQ are where
//! `DATABASE_URL` and `AMQP_URL` say, else on this machine; each test has its own database, by a
//! role that may create some, and its own prefix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod absence;
mod audit;
mod bench;
mod callbacks;
mod carry;
mod chaos;
mod config;
mod crashes;
mod demo;
mod embedded;
#[cfg(feature = "failpoints")]
mod failpoints;
mod failures;
mod files;
mod history;
mod kills;
mod paused;
mod roles;
#[cfg(feature = "planted-bugs")]
mod simulation;
mod support;
mod tampering;
mod trace;
