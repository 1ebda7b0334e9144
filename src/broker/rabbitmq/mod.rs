//! The road on RabbitMQ.
