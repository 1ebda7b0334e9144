//! Reads the outbox and publishes it.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{
    RelayParts,
    clear::Clearer,
    merge::{Parcel, merge},
};
use crate::{
    broker::{BrokerError, Confirmation, LogHeaders, OutboundMessage, Publisher, Recorded},
    execute::RetryPolicy,
    message::Partition,
    observe::names,
    store::{OutboxRow, StoreError},
};

/// After how long a message is tried again that the broker did not take.
const POSTPONE: Duration = Duration::from_secs(5);

/// A page of this many bytes may have been cut short by the store's limit of 8 MiB.
const PAGE_BYTES: usize = 7 * 1024 * 1024;

/// Runs until stopped; after any error of the broker it begins anew with what is not confirmed.
pub(super) async fn run(mut parts: RelayParts) {
    let policy = RetryPolicy { initial: Duration::from_millis(50), ..RetryPolicy::forever() };
    let mut delays = policy.start();
    while !parts.stop.is_cancelled() {
        let error = match open(&parts).await {
            Ok(publisher) => {
                let mut session = Session::new(&mut parts, publisher);
                let ended = session.run().await;
                if session.confirmed_any {
                    delays = policy.start();
                }
                match ended {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        metrics::counter!("adjutant_relay_interruptions_total").increment(1);
        tracing::warn!(%error, "the relay is interrupted; intake goes on");
        wait_and_drop_aged(&mut parts, delays.next_delay().unwrap_or(policy.max_interval)).await;
    }
}

async fn open(parts: &RelayParts) -> Result<Box<dyn Publisher>, BrokerError> {
    match parts.broker.declare(&parts.groups).await {
        Err(error) if error.is_about_one() => {
            // Everything else is there. What is published to this one is returned, and its group
            // reads the log.
            tracing::error!(%error, "the relay goes on without a queue");
        }
        declared => declared?,
    }
    parts.broker.publisher().await
}

/// Rows whose groups have read the log meanwhile need no publishing any more.
async fn wait_and_drop_aged(parts: &mut RelayParts, delay: Duration) {
    tokio::select! {
        biased;
        () = parts.stop.cancelled() => return,
        () = tokio::time::sleep(delay) => {}
    }
    let partitions = parts.partitions.borrow().clone();
    let age = i64::try_from(parts.settings.give_up_after.as_millis()).unwrap_or(i64::MAX);
    match parts.store.drop_aged(&partitions, age, 5_000).await {
        Ok(0) => {}
        Ok(dropped) => metrics::counter!("adjutant_relay_aged_total").increment(dropped),
        Err(error) => tracing::debug!(%error, "aged rows stay for now"),
    }
}

/// So many rows within the time of a pace are load: those that come next wait for each other.
const MANY_ROWS: usize = 32;

/// A message on the road: its rows, its size, and whether it carries log entries.
struct OnTheRoad {
    ids: Vec<i64>,
    bytes: usize,
    carries_log: bool,
    is_reply: bool,
    result: Result<Confirmation, BrokerError>,
}

/// One publisher, until it fails.
struct Session<'a> {
    parts: &'a mut RelayParts,
    publisher: Box<dyn Publisher>,
    /// Rows that were read and are not deleted yet, with their transaction.
    held: BTreeMap<i64, u64>,
    /// The lower bound of the next read.
    bound: u64,
    in_flight: FuturesUnordered<BoxFuture<'static, OnTheRoad>>,
    in_flight_bytes: usize,
    clearer: Clearer,
    /// When the next read is due even without a hint.
    next_read: Instant,
    pace: Pace,
    confirmed_any: bool,
    /// Rows that the broker did not take, and when each is tried again.
    postponed: Vec<(Instant, i64)>,
}

impl<'a> Session<'a> {
    fn new(parts: &'a mut RelayParts, publisher: Box<dyn Publisher>) -> Self {
        let clearer = Clearer::start(parts.store.clone(), parts.settings.delete_within);
        Self {
            parts,
            publisher,
            held: BTreeMap::new(),
            bound: 0,
            in_flight: FuturesUnordered::new(),
            in_flight_bytes: 0,
            clearer,
            next_read: Instant::now(),
            pace: Pace::default(),
            confirmed_any: false,
            postponed: Vec::new(),
        }
    }

    async fn run(&mut self) -> Result<(), BrokerError> {
        let signals = self.parts.signals.clone();
        loop {
            // Rows that wait for their deletion count, too: memory stays bounded.
            let may_read = self.held.len() < 8 * self.parts.settings.in_flight
                && self.in_flight.len() < self.parts.settings.in_flight
                && self.in_flight_bytes < self.parts.settings.in_flight_bytes;
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => return self.drain().await,
                Some(on_the_road) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.confirmed(on_the_road)?;
                }
                Some(deleted) = self.clearer.deleted() => {
                    for id in deleted {
                        self.held.remove(&id);
                    }
                }
                changed = self.parts.partitions.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    // What other relays left unpublished may lie below the bound.
                    self.bound = 0;
                    self.next_read = Instant::now();
                }
                () = signals.outbox_hint(), if may_read && !self.pace.is_on() => self.read_and_publish().await?,
                () = sleep_until(self.next_read), if may_read => self.read_and_publish().await?,
            }
        }
    }

    async fn read_and_publish(&mut self) -> Result<(), BrokerError> {
        let settings = self.parts.settings.clone();
        self.take_up_postponed();
        self.next_read = Instant::now() + settings.poll;
        let partitions: Vec<Partition> = self.parts.partitions.borrow().clone();
        if partitions.is_empty() {
            return Ok(());
        }
        let known: Vec<i64> =
            self.held.iter().filter(|(_, xid)| **xid >= self.bound).map(|(id, _)| *id).collect();
        let room = settings.in_flight.saturating_sub(self.in_flight.len()).max(1);
        let limit = settings.page_rows.min(i64::try_from(room).unwrap_or(i64::MAX));
        let page = self.parts.store.read_outbox(&partitions, self.bound, &known, limit).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                self.report_read_error(&error);
                return Ok(());
            }
        };
        let bytes: usize = page.rows.iter().map(|row| row.body.len()).sum();
        let all_read = (page.rows.len() as i64) < limit && bytes < PAGE_BYTES;
        if all_read || planted!(BoundPassesRows) {
            self.bound = page.next_bound;
        } else {
            self.next_read = Instant::now(); // there may be more
        }
        metrics::histogram!(names::RELAY_PAGE_ROWS).record(page.rows.len() as f64);
        self.pace.took(page.rows.len(), settings.pace);
        if let Some(until) = self.pace.until.filter(|_| all_read) {
            self.next_read = self.next_read.min(until);
        }
        self.held.extend(page.rows.iter().map(|row| (row.id, row.transaction)));
        for parcel in merge(page.rows) {
            self.publish(parcel).await?;
        }
        Ok(())
    }

    /// Rows whose time has come are no longer held, and the bound goes back to find them.
    fn take_up_postponed(&mut self) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            self.postponed.drain(..).partition(|(at, _)| *at <= now);
        self.postponed = later;
        for (_, id) in due {
            self.held.remove(&id);
            self.bound = 0;
        }
    }

    fn report_read_error(&mut self, error: &StoreError) {
        tracing::warn!(%error, "the outbox cannot be read; trying again");
        self.next_read = Instant::now() + Duration::from_millis(500);
    }

    async fn publish(&mut self, parcel: Parcel) -> Result<(), BrokerError> {
        let Parcel { ids, recorded, row } = parcel;
        let give_up_ms = i64::try_from(self.parts.settings.give_up_after.as_millis());
        if row.first_offset.is_some() && row.age_ms > give_up_ms.unwrap_or(i64::MAX) {
            metrics::counter!("adjutant_relay_aged_total").increment(ids.len() as u64);
            self.clearer.delete(&ids);
            return Ok(());
        }
        let bytes = row.body.len();
        let carries_log = row.first_offset.is_some();
        let is_reply = matches!(row.route, crate::message::Route::Reply { .. });
        metrics::histogram!("adjutant_relay_row_age_seconds").record(row.age_ms as f64 / 1_000.0);
        if planted!(DeletesBeforeConfirm) {
            self.clearer.delete(&ids);
        }
        metrics::histogram!(names::RELAY_MESSAGE_ROWS).record(ids.len() as f64);
        let confirmation = self.publisher.publish(self.message(row, recorded)).await?;
        self.in_flight_bytes += bytes;
        self.in_flight.push(Box::pin(async move {
            let result = confirmation.await;
            OnTheRoad { ids, bytes, carries_log, is_reply, result }
        }));
        Ok(())
    }

    fn message(&self, row: OutboxRow, recorded: Vec<Recorded>) -> OutboundMessage {
        let log_id = self.parts.store.identity().log_id;
        OutboundMessage {
            id: row.id,
            route: row.route,
            log: row.first_offset.map(|first_offset| LogHeaders { log_id, first_offset, recorded }),
            correlation_id: row.correlation_id,
            content_type: row.content_type,
            headers: row.headers,
            body: row.body.into(),
        }
    }

    /// A row that carries log offsets needs the road only for speed: refused or unroutable, its
    /// groups read the log. A reply whose queue is gone has nobody to read it.
    fn confirmed(&mut self, done: OnTheRoad) -> Result<(), BrokerError> {
        self.in_flight_bytes -= done.bytes;
        let confirmation = done.result?;
        self.confirmed_any = true;
        let result = match confirmation {
            Confirmation::Published => "published",
            Confirmation::Unroutable => "unroutable",
            Confirmation::Refused => "refused",
        };
        metrics::counter!("adjutant_relay_messages_total", "result" => result).increment(1);
        match confirmation {
            Confirmation::Published => self.clearer.delete(&done.ids),
            _ if done.carries_log => self.clearer.delete(&done.ids),
            _ if done.is_reply => {
                metrics::counter!("adjutant_replies_dropped_total").increment(1);
                tracing::info!(outbox_id = ?done.ids, result, "nobody takes the reply; dropped");
                self.clearer.delete(&done.ids);
            }
            Confirmation::Unroutable | Confirmation::Refused => {
                // Only the intake's dead letters are left: the row stays, holds up no other, and
                // is tried again later.
                tracing::warn!(
                    outbox_id = ?done.ids,
                    result,
                    "a message that must not be lost waits"
                );
                let again = Instant::now() + POSTPONE;
                self.postponed.extend(done.ids.into_iter().map(|id| (again, id)));
            }
        }
        Ok(())
    }

    /// Waits for what is in flight and for its deletion; what is not confirmed stays in the outbox.
    async fn drain(&mut self) -> Result<(), BrokerError> {
        let deadline = Instant::now() + Duration::from_secs(3);
        while !self.in_flight.is_empty() {
            tokio::select! {
                biased;
                Some(on_the_road) = self.in_flight.next() => self.confirmed(on_the_road)?,
                () = sleep_until(deadline) => break,
            }
        }
        let finished = tokio::time::timeout_at(deadline, self.clearer.finish()).await;
        if finished.is_err() {
            tracing::info!("published rows were not deleted in time; they will be published again");
        }
        Ok(())
    }
}

/// Holds reading back under load, so that a page brings more rows, and messages carry more.
#[derive(Default)]
struct Pace {
    began: Option<Instant>,
    rows: usize,
    /// Until then a hint is no reason to read.
    until: Option<Instant>,
}

impl Pace {
    fn is_on(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// So many rows were read. Load is what comes within one `pace`.
    fn took(&mut self, rows: usize, pace: Duration) {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        if now.duration_since(began) > pace {
            (self.began, self.rows) = (Some(now), 0);
        }
        self.rows += rows;
        self.until = (self.rows >= MANY_ROWS).then(|| now + pace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn many_rows_at_once_are_load_and_few_are_not() {
        let mut pace = Pace::default();
        pace.took(MANY_ROWS - 1, PACE);
        assert!(!pace.is_on());
        pace.took(1, PACE);
        assert!(pace.is_on());
        tokio::time::advance(PACE).await;
        assert!(!pace.is_on(), "it is read again");
        tokio::time::advance(PACE).await;
        for _ in 0..100 {
            pace.took(1, PACE);
            assert!(!pace.is_on(), "one now and then is no load");
            tokio::time::advance(PACE / 10).await;
        }
    }
}
