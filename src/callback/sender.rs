//! The loop: looks for what is due, takes as much of it in hand as there is room for, host by host,
//! and starts a task for each.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    CallbackParts,
    deliver::{Delivery, Tried},
    hosts::Hosts,
};
use crate::{
    message::Partition,
    observe::names,
    signals::Signals,
    store::{ClaimedCallback, Store, StoreError},
    webhook::WebhookClient,
};

/// How many hosts are looked at in one question.
const PAGE: i64 = 256;
/// How much longer a callback is in hand than a try may take.
const LEASE_SPARE: Duration = Duration::from_secs(20);
/// How often what waits is counted, and what is too old given up.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// How many that are too old are given up in one go.
const AGED: i64 = 100;

pub(super) struct Sender {
    delivery: Arc<Delivery>,
    signals: Signals,
    partitions: watch::Receiver<Vec<Partition>>,
    stop: CancellationToken,
    hosts: Hosts,
    under_way: JoinSet<Tried>,
    /// Where the next look at the hosts of a partition begins, if the last one did not see all.
    after: BTreeMap<Partition, String>,
    turn: usize,
    count_at: Instant,
}

impl Sender {
    pub(super) fn new(parts: CallbackParts, client: WebhookClient) -> Self {
        let CallbackParts { store, signals, partitions, write, settings, stop } = parts;
        let hosts = Hosts::new(settings.concurrency, settings.per_host, settings.breaker);
        let secrets = settings.secrets.clone().into();
        Self {
            delivery: Arc::new(Delivery { store, client, secrets, write, settings }),
            signals,
            partitions,
            stop,
            hosts,
            under_way: JoinSet::new(),
            after: BTreeMap::new(),
            turn: 0,
            count_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            match self.look().await {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(error) => {
                    tracing::debug!(%error, "callbacks wait for the store");
                    self.wait().await;
                }
            }
            while let Some(tried) = self.under_way.try_join_next() {
                self.note(tried);
            }
        }
        // What is in hand is finished; what is not comes again, by another process.
        while self.under_way.join_next().await.is_some() {}
    }

    /// Until there may be something to do.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            Some(tried) = self.under_way.join_next() => self.note(tried),
            () = self.signals.callback_hint() => {}
            () = tokio::time::sleep(self.delivery.settings.poll) => {}
        }
    }

    fn note(&mut self, tried: Result<Tried, tokio::task::JoinError>) {
        match tried {
            Ok(Tried { host, worked }) => self.hosts.end(&host, worked, Instant::now()),
            Err(error) => tracing::error!(%error, "a try to deliver a callback broke off"),
        }
    }

    /// Takes in hand what is due and has room; whether to look again at once.
    async fn look(&mut self) -> Result<bool, StoreError> {
        let mut owned = self.partitions.borrow().clone();
        if Instant::now() >= self.count_at {
            self.count_at = Instant::now() + COUNT_EVERY;
            self.give_up_aged(&owned).await?;
            self.count(&owned).await?;
        }
        if owned.is_empty() || self.free() == 0 {
            return Ok(false);
        }
        // No partition is always the first one.
        self.turn = (self.turn + 1) % owned.len();
        owned.rotate_left(self.turn);
        let mut again = false;
        for partition in self.store().partitions_with_callbacks(&owned).await? {
            again |= self.serve(partition).await?;
        }
        Ok(again && self.free() > 0)
    }

    /// Goes through the hosts of a partition, from where the last time ended; whether there may be
    /// more to do.
    async fn serve(&mut self, partition: Partition) -> Result<bool, StoreError> {
        let began_within = self.after.contains_key(&partition);
        let mut took = false;
        while self.free() > 0 && !self.stop.is_cancelled() {
            let after = self.after.get(&partition).map(String::as_str);
            let page = self.store().callback_hosts(partition, after, PAGE).await?;
            let is_last = (page.len() as i64) < PAGE;
            let (mut free, mut doubtful) = (self.free(), 0);
            let mut wanted = Vec::new();
            let mut seen = None;
            for host in page {
                if free == 0 {
                    break;
                }
                if host.due {
                    let (room, doubt) = self.hosts.room(&host.host, doubtful, Instant::now());
                    let room = room.min(free);
                    free -= room;
                    doubtful += if doubt { room } else { 0 };
                    if room > 0 {
                        wanted.push((host.host.clone(), room as i64));
                    }
                }
                seen = Some(host.host);
            }
            match seen {
                Some(host) if free == 0 || !is_last => drop(self.after.insert(partition, host)),
                _ => drop(self.after.remove(&partition)),
            }
            if !wanted.is_empty() {
                let lease = self.lease();
                for claimed in self.store().claim_callbacks(partition, &wanted, lease).await? {
                    took = true;
                    self.start(claimed);
                }
            }
            if is_last && !self.after.contains_key(&partition) {
                break;
            }
        }
        // Those before the place where it began have not been seen yet.
        Ok(took || (began_within && !self.after.contains_key(&partition)))
    }

    fn start(&mut self, claimed: ClaimedCallback) {
        self.hosts.begin(&claimed.host);
        let (delivery, host) = (self.delivery.clone(), claimed.host.clone());
        self.under_way.spawn(async move {
            let tried = AssertUnwindSafe(delivery.run(claimed)).catch_unwind().await;
            tried.unwrap_or(Tried { host, worked: None })
        });
    }

    /// What waits for a host that fails is not tried, so its time must end otherwise.
    async fn give_up_aged(&self, owned: &[Partition]) -> Result<(), StoreError> {
        let failing = self.hosts.failing();
        metrics::gauge!(names::CALLBACK_HOSTS_FAILING).set(failing.len() as f64);
        if failing.is_empty() {
            return Ok(());
        }
        let age = self.delivery.settings.give_up_after;
        for partition in owned {
            let claim =
                self.store().claim_aged_callbacks(*partition, &failing, age, AGED, self.lease());
            for claimed in claim.await? {
                self.delivery.expire(&claimed).await;
            }
        }
        Ok(())
    }

    async fn count(&self, owned: &[Partition]) -> Result<(), StoreError> {
        let backlog = self.store().callback_backlog(owned).await?;
        metrics::gauge!(names::CALLBACKS_PENDING).set(backlog.pending as f64);
        metrics::gauge!(names::CALLBACKS_OLDEST_SECONDS).set(backlog.oldest.as_secs_f64());
        Ok(())
    }

    fn free(&self) -> usize {
        self.delivery.settings.concurrency.max(1).saturating_sub(self.under_way.len())
    }

    fn lease(&self) -> Duration {
        self.delivery.settings.limits.total + LEASE_SPARE
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.delivery.store
    }
}
