//! A PostgreSQL and a RabbitMQ of the run's own.

mod account;
mod postgres;
mod rabbitmq;

pub use postgres::Postgres;
pub use rabbitmq::{Rabbit, connect};
