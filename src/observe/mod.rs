//! What a process shows of itself: metrics, and whether it is well.

#[cfg(feature = "http")]
pub mod admin;
mod health;
mod metrics;
pub mod names;
pub mod notify;

pub use self::{
    health::{
        BreakersCheck, BrokerCheck, CheckReport, Health, HealthCheck, HealthReport, ParkedCheck,
        StoreCheck,
    },
    metrics::{MetricsError, MetricsHandle, install_metrics},
};
