//! lapin's errors, sorted by what the caller must do.

use lapin::{Error, ErrorKind, types::ReplyCode};

use super::settings::Endpoint;
use crate::broker::BrokerError;

/// AMQP 0-9-1 reply codes (specification, section 1.2) that a person must look at.
const ACCESS_REFUSED: ReplyCode = 403;
const RESOURCE_LOCKED: ReplyCode = 405;
const PRECONDITION_FAILED: ReplyCode = 406;
/// And those by which the broker says that it cannot do it now. They close the connection.
const CANNOT: [ReplyCode; 4] = [506, 530, 540, 541];

/// Whatever broke: try again with a new connection.
pub(super) fn unavailable(endpoint: &Endpoint, error: &Error) -> BrokerError {
    BrokerError::Unavailable(endpoint.redact(&error.to_string()))
}

/// What `action` on the queue or exchange `name` failed with. If the broker holds something else
/// by that name, or forbids it, trying again does not help.
pub(super) fn declaring(endpoint: &Endpoint, what: &str, name: &str, error: &Error) -> BrokerError {
    let ErrorKind::ProtocolError(reply) = error.kind() else {
        return unavailable(endpoint, error);
    };
    let said = endpoint.redact(reply.get_message().as_str());
    match reply.get_id() {
        PRECONDITION_FAILED | RESOURCE_LOCKED => BrokerError::Incompatible(format!(
            "RabbitMQ at {endpoint} holds the {what} `{name}` with other properties than this \
             configuration declares. Delete it (of the queues of groups nothing is lost: the groups \
             read the log), give back the limits it was declared with, or choose another broker \
             prefix. RabbitMQ said: {said}"
        )),
        ACCESS_REFUSED => BrokerError::Incompatible(format!(
            "RabbitMQ at {endpoint} does not let this user declare or use the {what} `{name}`. \
             RabbitMQ said: {said}"
        )),
        code if CANNOT.contains(&code) => BrokerError::Undeclared(format!(
            "RabbitMQ at {endpoint} cannot declare the {what} `{name}` now; its group reads the log. \
             If this stays, delete it. RabbitMQ said: {said}"
        )),
        _ => unavailable(endpoint, error),
    }
}
