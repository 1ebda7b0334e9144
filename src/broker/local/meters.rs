//! What is counted. Handles are looked up once per queue and publisher, not per message; so the
//! recorder must be installed before queues are declared.

use metrics::{Counter, Gauge, counter, gauge};

use crate::{broker::Confirmation, message::Route, observe::names};

/// Why a message left its queue without an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// It was delivered too often.
    DeliveryLimit,
    /// It was the oldest of a full queue.
    MaxLength,
}

impl Death {
    /// As RabbitMQ calls it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DeliveryLimit => "delivery_limit",
            Self::MaxLength => "maxlen",
        }
    }
}

/// What is counted of a queue.
pub(super) struct QueueMeters {
    pub(super) depth: Gauge,
    dropped: Counter,
    delivery_limit: Counter,
    max_length: Counter,
}

impl QueueMeters {
    pub(super) fn new(queue: &str) -> Self {
        let dead = |reason: Death| {
            counter!(
                names::BROKER_DEAD_LETTERED_TOTAL,
                "queue" => queue.to_owned(), "reason" => reason.as_str()
            )
        };
        Self {
            depth: gauge!(names::QUEUE_MESSAGES, "queue" => queue.to_owned()),
            dropped: counter!(names::BROKER_DROPPED_TOTAL, "queue" => queue.to_owned()),
            delivery_limit: dead(Death::DeliveryLimit),
            max_length: dead(Death::MaxLength),
        }
    }

    /// A message is gone for ever.
    pub(super) fn dropped(&self) {
        self.dropped.increment(1);
    }

    /// A message went to the dead-letter queue.
    pub(super) fn dead_lettered(&self, reason: Death) {
        match reason {
            Death::DeliveryLimit => self.delivery_limit.increment(1),
            Death::MaxLength => self.max_length.increment(1),
        }
    }
}

/// What is counted of a publisher, by route and result.
pub(super) struct PublisherMeters {
    commands: RouteMeters,
    events: RouteMeters,
    reply: RouteMeters,
    intake_dead_letters: RouteMeters,
}

struct RouteMeters {
    published: Counter,
    unroutable: Counter,
    refused: Counter,
}

impl PublisherMeters {
    pub(super) fn new() -> Self {
        let route = |route: &'static str| {
            let result = |result: &'static str| counter!(names::BROKER_PUBLISHED_TOTAL, "route" => route, "result" => result);
            RouteMeters {
                published: result("published"),
                unroutable: result("unroutable"),
                refused: result("refused"),
            }
        };
        Self {
            commands: route("commands"),
            events: route("events"),
            reply: route("reply"),
            intake_dead_letters: route("intake_dlq"),
        }
    }

    pub(super) fn count(&self, route: &Route, confirmation: Confirmation) {
        let meters = match route {
            Route::Commands(_) => &self.commands,
            Route::Events(_) => &self.events,
            Route::Reply { .. } => &self.reply,
            Route::IntakeDeadLetter => &self.intake_dead_letters,
        };
        let counter = match confirmation {
            Confirmation::Published => &meters.published,
            Confirmation::Unroutable => &meters.unroutable,
            Confirmation::Refused => &meters.refused,
        };
        counter.increment(1);
    }
}

/// Messages handed to consumers of a group.
pub(super) fn deliveries(group: &str) -> Counter {
    counter!(names::BROKER_DELIVERIES_TOTAL, "group" => group.to_owned())
}
