//! The library's behaviour on real services, a module each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    clippy::pedantic
)]

mod amqp_intake;
mod broker;
mod callbacks;
mod cancellation;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "embedded")]
mod conformance;
mod dead_letters;
mod documents;
mod due_lane;
mod faults;
mod http;
mod immediate;
#[cfg(feature = "embedded")]
mod in_process_road;
mod lanes;
mod main_path;
#[cfg(all(feature = "embedded", feature = "http"))]
mod notification;
mod parking;
mod promises;
mod readme;
mod recurring;
mod releases;
mod retries;
mod self_healing;
mod store_laws;
mod strict_order;
mod support;
