//! The task behind a publisher: it alone sends on the channel, so that messages get lapin's
//! delivery tags in the order in which they reach the wire, and it polls every confirm, so that
//! the return of a message is seen wherever lapin attaches it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Confirmation as Confirm, message::BasicReturnMessage, options::BasicPublishOptions};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep},
};

use super::{
    error::unavailable, link::OwnChannel, publisher::Outgoing, settings::Endpoint,
    verdicts::Verdicts,
};
use crate::{
    broker::{BrokerError, Confirmation},
    observe::names,
};

/// How many messages are handed to the connection before confirmations are looked at again.
const TURN: usize = 64;

/// How long a channel is kept after its publisher, for answers that are under way.
const LINGER: Duration = Duration::from_secs(30);

/// Of a message that was sent: its number, and what lapin said.
type Answer = (u64, lapin::Result<Confirm>);

/// Whoever waits for a confirmation.
struct Waiter {
    route: &'static str,
    reply: oneshot::Sender<Result<Confirmation, BrokerError>>,
}

pub(super) struct Task {
    channel: OwnChannel,
    endpoint: Arc<Endpoint>,
    confirm_timeout: Duration,
    sent: u64,
    in_flight: FuturesUnordered<BoxFuture<'static, Answer>>,
    verdicts: Verdicts,
    waiters: BTreeMap<u64, Waiter>,
    deadlines: VecDeque<(Instant, u64)>,
}

impl Task {
    pub(super) fn new(
        channel: OwnChannel,
        endpoint: Arc<Endpoint>,
        confirm_timeout: Duration,
    ) -> Self {
        Self {
            channel,
            endpoint,
            confirm_timeout,
            sent: 0,
            in_flight: FuturesUnordered::new(),
            verdicts: Verdicts::default(),
            waiters: BTreeMap::new(),
            deadlines: VecDeque::new(),
        }
    }

    /// Runs until the publisher is gone and everything is answered.
    pub(super) async fn run(mut self, mut incoming: mpsc::Receiver<Outgoing>) {
        let mut batch = Vec::with_capacity(TURN);
        let alarm = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(alarm);
        let mut alarm_is_set = false;
        loop {
            tokio::select! {
                received = incoming.recv_many(&mut batch, TURN) => {
                    if received == 0 {
                        break;
                    }
                    for message in batch.drain(..) {
                        self.send(message);
                    }
                }
                Some(answer) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.record(answer);
                }
                () = &mut alarm, if alarm_is_set => alarm_is_set = false,
            }
            self.settle();
            alarm_is_set = alarm_is_set || self.set_alarm(alarm.as_mut());
        }
        self.linger().await;
    }

    /// The publisher is gone. Closing the channel now would overtake what lapin has not yet
    /// written, and a message on a closed channel is a protocol error that costs the connection.
    async fn linger(mut self) {
        while !self.in_flight.is_empty() {
            match tokio::time::timeout(LINGER, self.in_flight.next()).await {
                Ok(Some(answer)) => self.record(answer),
                // A blocked connection wakes up some day and then sends all of it.
                Err(_) if self.channel.connection().blocked() => {}
                Ok(None) | Err(_) => break,
            }
            self.settle();
        }
    }

    fn send(&mut self, message: Outgoing) {
        self.sent += 1;
        let number = self.sent;
        self.verdicts.sent(number, message.id);
        self.waiters.insert(number, Waiter { route: message.route, reply: message.reply });
        self.deadlines.push_back((Instant::now() + self.confirm_timeout, number));
        let channel = lapin::Channel::clone(&self.channel);
        let mut sending = async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let (exchange, key) = (message.exchange, message.routing_key);
            let sent =
                channel.basic_publish(exchange, key, options, &message.body, message.properties);
            let confirm = match sent.await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (number, confirm)
        }
        .boxed();
        // The first poll takes the delivery tag and queues the frames: it must happen now, in order.
        match (&mut sending).now_or_never() {
            Some(answer) => self.record(answer),
            None => self.in_flight.push(sending),
        }
    }

    fn record(&mut self, (number, answer): Answer) {
        let (acked, returned) = match answer {
            Ok(Confirm::Ack(returned)) => (true, returned),
            Ok(Confirm::Nack(returned)) => (false, returned),
            Ok(Confirm::NotRequested) => {
                let text = "the channel is not in confirm mode".to_owned();
                return self.fail(number, BrokerError::Unavailable(text));
            }
            Err(error) => return self.fail(number, unavailable(&self.endpoint, &error)),
        };
        self.verdicts.confirmed(number, acked, returned.as_ref().map(message_id));
    }

    fn fail(&mut self, number: u64, error: BrokerError) {
        self.verdicts.forget(number, true);
        self.answer(number, Err(error));
    }

    /// Reads all answers that have arrived, says what is certain, gives up what is overdue.
    fn settle(&mut self) {
        while let Some(Some(answer)) = self.in_flight.next().now_or_never() {
            self.record(answer);
        }
        for (number, verdict) in self.verdicts.end_round() {
            self.answer(number, Ok(verdict));
        }
        let now = Instant::now();
        while let Some((due, number)) = self.deadlines.front().copied() {
            if self.waiters.contains_key(&number) {
                if due > now {
                    break;
                }
                self.verdicts.forget(number, false);
                self.answer(number, Err(BrokerError::ConfirmTimeout(self.confirm_timeout)));
            }
            self.deadlines.pop_front();
        }
    }

    fn set_alarm(&self, alarm: std::pin::Pin<&mut Sleep>) -> bool {
        let next = self.deadlines.front();
        if let Some((due, _)) = next {
            alarm.reset(*due);
        }
        next.is_some()
    }

    fn answer(&mut self, number: u64, verdict: Result<Confirmation, BrokerError>) {
        let Some(waiter) = self.waiters.remove(&number) else { return };
        let result = match &verdict {
            Ok(Confirmation::Published) => "published",
            Ok(Confirmation::Unroutable) => "unroutable",
            Ok(Confirmation::Refused) => "refused",
            Err(BrokerError::ConfirmTimeout(_)) => "timeout",
            Err(_) => "unavailable",
        };
        metrics::counter!(names::BROKER_PUBLISHED_TOTAL, "route" => waiter.route, "result" => result)
            .increment(1);
        // A caller that no longer waits has decided already.
        let _ = waiter.reply.send(verdict);
    }
}

/// The outbox row's id; what carries none was not sent by us and matches nothing.
fn message_id(returned: &BasicReturnMessage) -> i64 {
    let id = returned.delivery.properties.message_id().as_ref();
    id.and_then(|id| id.as_str().parse().ok()).unwrap_or(i64::MIN)
}
