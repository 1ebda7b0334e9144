//! The bank's behaviour on real services. PostgreSQL is where `DATABASE_URL` says, by a role that
//! may create databases, and RabbitMQ where
//! `AMQP_URL` says; each test has a database and a prefix of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod binary;
mod broker;
mod database;
mod demo;
mod history;
