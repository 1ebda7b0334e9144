//! A PostgreSQL and a RabbitMQ of the run's own.

mod account;
mod postgres;
mod rabbitmq;

pub(super) use postgres::Postgres;
pub(super) use rabbitmq::{Rabbit, connect};
