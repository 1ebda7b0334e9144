//! The bank: Adjutant's reference service. Its domain is in [`accounts`]; the rest runs it, drives
//! it, measures it and audits it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::pedantic))]

pub mod accounts;
pub mod bench;
pub mod carry;
pub mod chaos;
pub mod cli;
pub mod commands;
pub mod config;
pub mod database;
pub mod demo;
pub mod drill;
pub mod load;
pub mod log;
pub mod run;
mod settings;
#[cfg(feature = "simulation")]
pub mod simulate;
mod tokens;
pub mod verify;
mod welcome;
