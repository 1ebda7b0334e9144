//! AMQP intake: commands from the queue `{prefix}.intake`, accepted like those that come by HTTP.
//!
//! The body is the command resource of `POST /v1/commands`, as JSON or MessagePack by its content
//! type; `message-id` is the command's id, without which a redelivered message would be a second
//! command; `reply-to` and `correlation-id` are answered with the outcome. A message is acknowledged
//! after the commit. What can never be accepted leaves through the outbox to `{prefix}.intake.dlq`
//! with the reason in its headers; what cannot be accepted now waits, unacknowledged.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::{Answer, GroupCommit, Origin, Problem, ProblemCode, Refusal, Validator};
use crate::{
    broker::{Broker, BrokerError, IntakeConsumer, IntakeDelivery},
    execute::RetryPolicy,
    immediate::AsyncCommandProcessor,
    message::{CommandId, ReplyAddress, read_all},
    store::{NewCommand, RejectedMessage, Store, StoreError},
};

/// As many messages are accepted together, and unacknowledged.
const BATCH: u16 = 64;

/// What the AMQP intake needs.
pub struct AmqpIntakeParts {
    /// The road it reads from.
    pub broker: Arc<dyn Broker>,
    /// For messages that are refused.
    pub store: Arc<dyn Store>,
    /// Checks commands.
    pub validator: Validator,
    /// Accepts commands.
    pub commit: GroupCommit,
    /// The immediate lane, if this process has it.
    pub immediate: Option<AsyncCommandProcessor>,
    /// The largest body of a message, in bytes.
    pub max_body_bytes: usize,
    /// Ends it; what is not acknowledged comes again.
    pub stop: CancellationToken,
}

/// Runs until stopped; opens its consumer again after any error of the broker.
pub async fn run(parts: AmqpIntakeParts) {
    let policy = RetryPolicy { initial: Duration::from_millis(250), ..RetryPolicy::forever() };
    let mut delays = policy.start();
    while !parts.stop.is_cancelled() {
        let error = match parts.broker.consume_intake(BATCH).await {
            Ok(mut consumer) => {
                delays = policy.start();
                match parts.consume(consumer.as_mut()).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "the AMQP intake is interrupted");
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = tokio::time::sleep(delays.next_delay().unwrap_or(policy.max_interval)) => {}
        }
    }
}

/// A message after its check.
type Checked = (IntakeDelivery, Result<NewCommand, Problem>);

impl AmqpIntakeParts {
    async fn consume(&self, consumer: &mut dyn IntakeConsumer) -> Result<(), BrokerError> {
        loop {
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                delivery = consumer.next() => delivery?,
            };
            let mut batch = vec![self.check(first)];
            while batch.len() < usize::from(BATCH)
                && let Some(delivery) = consumer.next().now_or_never()
            {
                batch.push(self.check(delivery?));
            }
            let last = batch.last().map(|(delivery, _)| delivery.tag);
            if planted!(IntakeAcksBeforeCommit)
                && let Some(tag) = last
            {
                consumer.ack_through(tag).await?;
            }
            if !self.settle(batch).await {
                return Ok(());
            }
            if let Some(tag) = last.filter(|_| !planted!(IntakeAcksBeforeCommit)) {
                consumer.ack_through(tag).await?;
            }
        }
    }

    fn check(&self, delivery: IntakeDelivery) -> Checked {
        // Rules and deserialisers are user code.
        let checked = catch_unwind(AssertUnwindSafe(|| self.read(&delivery)));
        let panicked =
            |_| Err(Problem::new(ProblemCode::Internal, "checking the command panicked"));
        let checked = checked.unwrap_or_else(panicked);
        (delivery, checked)
    }

    fn read(&self, delivery: &IntakeDelivery) -> Result<NewCommand, Problem> {
        if delivery.body.len() > self.max_body_bytes {
            let detail = format!("the body is larger than {} bytes", self.max_body_bytes);
            return Err(Problem::new(ProblemCode::TooLarge, detail));
        }
        let id = delivery.message_id.as_deref().unwrap_or_default();
        let id: CommandId = id.parse().map_err(|_| {
            let detail = "`message-id` must be the command's id, a UUID".to_owned();
            Problem::new(ProblemCode::InvalidHeader, detail)
        })?;
        let origin = Origin {
            id: Some(id),
            traceparent: delivery.headers_traceparent.as_deref(),
            reply_to: delivery.reply_to.clone().map(|queue| ReplyAddress {
                queue,
                correlation_id: delivery.correlation_id.clone(),
            }),
        };
        match delivery.content_type.as_deref() {
            None | Some("application/json") => self.validator.check(&delivery.body, &origin),
            Some("application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack") => {
                let value: serde_json::Value = read_all(&delivery.body).map_err(|error| {
                    Problem::new(ProblemCode::MalformedJson, format!("not MessagePack: {error}"))
                })?;
                self.validator.check_value(&value, &origin)
            }
            Some(other) => {
                let detail = format!("`{other}`: use application/json or application/msgpack");
                Err(Problem::new(ProblemCode::UnsupportedMediaType, detail))
            }
        }
    }

    /// Accepts or refuses every message for good; `false` if it was told to stop before.
    async fn settle(&self, batch: Vec<Checked>) -> bool {
        let mut refused = Vec::new();
        let (mut deliveries, mut commands) = (Vec::new(), Vec::new());
        for (delivery, checked) in batch {
            match checked {
                Ok(command) => {
                    deliveries.push(delivery);
                    commands.push(command);
                }
                Err(problem) => refused.push((delivery, problem)),
            }
        }
        let mut delays = RetryPolicy::forever().start();
        while !commands.is_empty() {
            let answers = match self.accept_together(commands.clone()).await {
                Ok(answers) => answers,
                Err(refusal) => commands.iter().map(|_| Err(refusal.clone())).collect(),
            };
            let (mut later, mut later_commands) = (Vec::new(), Vec::new());
            for ((delivery, command), answer) in deliveries.into_iter().zip(commands).zip(answers) {
                match answer {
                    Ok(_) => {}
                    Err(refusal @ (Refusal::Conflict | Refusal::Unstorable(_))) => {
                        refused.push((delivery, refusal.into()));
                    }
                    Err(_) => {
                        later.push(delivery);
                        later_commands.push(command);
                    }
                }
            }
            (deliveries, commands) = (later, later_commands);
            if !commands.is_empty() && !self.wait(&mut delays).await {
                return false;
            }
        }
        self.send_to_dead_letters(refused).await
    }

    /// Each for the lane that it names.
    async fn accept_together(&self, commands: Vec<NewCommand>) -> Result<Vec<Answer>, Refusal> {
        match &self.immediate {
            Some(immediate) => immediate.dispatch_together(commands).await,
            None => self.commit.accept_together(commands).await,
        }
    }

    async fn send_to_dead_letters(&self, refused: Vec<(IntakeDelivery, Problem)>) -> bool {
        if refused.is_empty() {
            return true;
        }
        metrics::counter!("adjutant_intake_amqp_refused_total").increment(refused.len() as u64);
        // One by one: bodies may be as large as the broker allows.
        for refused in &refused {
            if !self.send_to_dead_letter(&rejected(refused)).await {
                return false;
            }
        }
        true
    }

    async fn send_to_dead_letter(&self, message: &RejectedMessage) -> bool {
        let mut delays = RetryPolicy::forever().start();
        loop {
            match self.store.reject_messages(vec![message.clone()]).await {
                Ok(()) => return true,
                // Written twice is better than lost: it is a dead letter, not an effect.
                Err(error) if error.is_retryable() || matches!(error, StoreError::Unknown(_)) => {
                    tracing::debug!(%error, "refused messages wait for the store");
                }
                Err(error) => tracing::error!(%error, "refused messages cannot be recorded"),
            }
            if !self.wait(&mut delays).await {
                return false;
            }
        }
    }

    async fn wait(&self, delays: &mut crate::execute::Retries) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(delays.next_delay().unwrap_or(Duration::from_secs(1))) => true,
        }
    }
}

fn rejected((delivery, problem): &(IntakeDelivery, Problem)) -> RejectedMessage {
    // PostgreSQL takes no U+0000, an AMQP short string at most 255 bytes.
    let printable = |text: &str| {
        let mut text = text.replace('\0', " ");
        text.truncate(text.floor_char_boundary(255));
        text
    };
    let mut headers = vec![
        ("adjutant-reason".to_owned(), problem.code.as_str().to_owned()),
        ("adjutant-detail".to_owned(), printable(&problem.detail)),
    ];
    if let Some(id) = &delivery.message_id {
        headers.push(("adjutant-message-id".to_owned(), printable(id)));
    }
    RejectedMessage {
        body: delivery.body.to_vec(),
        content_type: printable(delivery.content_type.as_deref().unwrap_or("application/json")),
        headers,
    }
}
