//! A process's way to the store: every call may come late, fail before or after it took place, be
//! reported as unknown, or be the last thing that the process does.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Fault,
    trace::Noted,
    world::{Gate, World},
};
use crate::{
    message::{
        CommandId, GroupName, MemberId, Offset, Outcome, Partition, StreamId, Timestamp, Version,
    },
    store::{
        Accepted, CommandCommit, CommandFilter, CommandProgress, CommandRecord, CommittedCommands,
        DecideAgain, Entry, Execution, FoldDocuments, FoldRequest, ForeignMessage, Heads,
        Heartbeat, Identity, Intake, LoadedStream, LogKind, Logs, Member, Members, NewCommand,
        Outbox, OutboxPage, Page, Queries, RejectedMessage, Store, StoreError, StoredStreamEvent,
        ViewCommit, ViewDocuments, ViewRecord, Views, sqlite::SqliteStore,
    },
};

pub(super) struct SimulatedStore {
    pub(super) world: Arc<World>,
    pub(super) gate: Arc<Gate>,
}

impl SimulatedStore {
    fn inner(&self) -> &SqliteStore {
        &self.world.store
    }

    /// A call that changes nothing.
    async fn read<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let world = &self.world;
        self.arrive(10).await?;
        let done = work.await;
        world.dawdle().await;
        self.gate.pass().await;
        if self.gate.is_cut_off() {
            return Err(StoreError::Unavailable("simulated: the answer was lost".into()));
        }
        done
    }

    /// A call that writes.
    async fn write<T: Debug>(
        &self,
        what: &str,
        asked: Noted,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let world = &self.world;
        self.arrive(25).await?;
        if world.strikes(Fault::StoreRolledBack, 60) {
            return Err(StoreError::Transient("simulated: deadlock".into()));
        }
        if world.strikes(Fault::CommitLost, 60) {
            world.store.loses_next_commit(true);
        }
        let done = work.await;
        world.store.loses_next_commit(false);
        world.step(&self.gate.name, what, &asked, &done);
        if world.strikes(Fault::CrashAfterCall, 15) {
            self.gate.kill();
        }
        world.dawdle().await;
        self.gate.pass().await;
        let took_place = done.is_ok();
        let cut_off = self.gate.is_cut_off() && world.is_armed();
        if took_place && (cut_off || world.strikes(Fault::CommitUnknown, 80)) {
            return Err(StoreError::Unknown("simulated: the reply was lost".into()));
        }
        done
    }

    /// The way to the store, on which a process may die.
    async fn arrive(&self, crashes: u64) -> Result<(), StoreError> {
        let world = &self.world;
        self.gate.pass().await;
        if world.strikes(Fault::CrashBeforeCall, crashes) {
            self.gate.kill();
        }
        world.dawdle().await;
        self.gate.pass().await;
        // At times requests still arrive, and only their replies are lost.
        if self.gate.is_cut_off() && !world.dice().happens(2_000) {
            // A connection that cannot be made takes its time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Err(StoreError::Unavailable("simulated: cut off".into()));
        }
        if world.strikes(Fault::StoreUnavailable, 60) {
            return Err(StoreError::Unavailable("simulated: no connection".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Intake for SimulatedStore {
    async fn accept(&self, batch: Vec<NewCommand>) -> Result<Vec<Accepted>, StoreError> {
        self.write("accept", Noted::of(&batch), self.inner().accept(batch)).await
    }

    async fn reject_messages(&self, messages: Vec<RejectedMessage>) -> Result<(), StoreError> {
        let asked = Noted::of(&messages);
        self.write("reject_messages", asked, self.inner().reject_messages(messages)).await
    }
}

#[async_trait]
impl Execution for SimulatedStore {
    async fn load_streams(
        &self,
        streams: &[(StreamId, i16)],
    ) -> Result<Vec<LoadedStream>, StoreError> {
        self.read(self.inner().load_streams(streams)).await
    }

    async fn commit_commands(
        &self,
        commit: CommandCommit,
    ) -> Result<CommittedCommands, StoreError> {
        let asked = Noted::of(&commit);
        self.write("commit_commands", asked, self.inner().commit_commands(commit)).await
    }

    async fn commit_exclusively(
        &self,
        partitions: &BTreeSet<Partition>,
        streams: &[(StreamId, i16)],
        decide: DecideAgain<'_>,
    ) -> Result<CommittedCommands, StoreError> {
        let asked = Noted::of(&streams);
        let work = self.inner().commit_exclusively(partitions, streams, decide);
        self.write("commit_exclusively", asked, work).await
    }

    async fn outcomes(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, Outcome)>, StoreError> {
        self.read(self.inner().outcomes(commands)).await
    }
}

#[async_trait]
impl Logs for SimulatedStore {
    async fn read_log(
        &self,
        log: LogKind,
        partition: Partition,
        from: Offset,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(self.inner().read_log(log, partition, from, limit)).await
    }

    async fn heads(&self) -> Result<Heads, StoreError> {
        self.read(self.inner().heads()).await
    }

    async fn checkpoints(&self, group: &GroupName) -> Result<Vec<Offset>, StoreError> {
        self.read(self.inner().checkpoints(group)).await
    }

    async fn record_foreign(&self, messages: &[ForeignMessage]) -> Result<(), StoreError> {
        let asked = Noted::of(&messages);
        self.write("record_foreign", asked, self.inner().record_foreign(messages)).await
    }

    async fn purge_checkpoints(&self, limit: i64) -> Result<u64, StoreError> {
        let asked = Noted::of(&limit);
        self.write("purge_checkpoints", asked, self.inner().purge_checkpoints(limit)).await
    }
}

#[async_trait]
impl Views for SimulatedStore {
    async fn load_documents(
        &self,
        view: &str,
        keys: &[String],
    ) -> Result<ViewDocuments, StoreError> {
        self.read(self.inner().load_documents(view, keys)).await
    }

    async fn commit_view(&self, commit: ViewCommit) -> Result<(), StoreError> {
        let asked = Noted::of(&commit);
        self.write("commit_view", asked, self.inner().commit_view(commit)).await
    }

    async fn fold_shared(
        &self,
        request: FoldRequest,
        fold: FoldDocuments<'_>,
    ) -> Result<(), StoreError> {
        let asked = Noted::of(&request);
        self.write("fold_shared", asked, self.inner().fold_shared(request, fold)).await
    }
}

#[async_trait]
impl Outbox for SimulatedStore {
    async fn read_outbox(
        &self,
        partitions: &[Partition],
        bound: u64,
        known: &[i64],
        limit: i64,
    ) -> Result<OutboxPage, StoreError> {
        self.read(self.inner().read_outbox(partitions, bound, known, limit)).await
    }

    async fn drop_aged(
        &self,
        partitions: &[Partition],
        age_ms: i64,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let asked = Noted::of(&(partitions, age_ms, limit));
        self.write("drop_aged", asked, self.inner().drop_aged(partitions, age_ms, limit)).await
    }

    async fn delete_outbox(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.write("delete_outbox", Noted::of(&ids), self.inner().delete_outbox(ids)).await
    }

    async fn outbox_depth(&self, limit: i64) -> Result<(i64, i64), StoreError> {
        self.read(self.inner().outbox_depth(limit)).await
    }

    async fn promote_due(&self, partitions: &[Partition], limit: i64) -> Result<usize, StoreError> {
        let asked = Noted::of(&(partitions, limit));
        self.write("promote_due", asked, self.inner().promote_due(partitions, limit)).await
    }
}

#[async_trait]
impl Members for SimulatedStore {
    async fn heartbeat(
        &self,
        beat: &Heartbeat,
        ttl: Duration,
    ) -> Result<(Timestamp, Vec<Member>), StoreError> {
        self.write("heartbeat", Noted::of(beat), self.inner().heartbeat(beat, ttl)).await
    }

    async fn live_members(&self, ttl: Duration) -> Result<Vec<Member>, StoreError> {
        self.read(self.inner().live_members(ttl)).await
    }

    async fn notify_members(&self) -> Result<(), StoreError> {
        self.read(self.inner().notify_members()).await
    }

    async fn leave(&self, id: MemberId) -> Result<(), StoreError> {
        self.write("leave", Noted::of(&id), self.inner().leave(id)).await
    }
}

#[async_trait]
impl Queries for SimulatedStore {
    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        self.read(self.inner().command(id)).await
    }

    async fn statuses(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, CommandProgress)>, StoreError> {
        self.read(self.inner().statuses(commands)).await
    }

    async fn commands_with_ids(&self, ids: &[CommandId]) -> Result<Vec<CommandRecord>, StoreError> {
        self.read(self.inner().commands_with_ids(ids)).await
    }

    async fn commands(
        &self,
        filter: &CommandFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<CommandRecord>, StoreError> {
        self.read(self.inner().commands(filter, after, limit)).await
    }

    async fn stream_events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: i64,
    ) -> Result<Vec<StoredStreamEvent>, StoreError> {
        self.read(self.inner().stream_events(stream, after, limit)).await
    }

    async fn view(&self, view: &str, key: &str) -> Result<Option<ViewRecord>, StoreError> {
        self.read(self.inner().view(view, key)).await
    }

    async fn views(
        &self,
        view: &str,
        prefix: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ViewRecord>, StoreError> {
        self.read(self.inner().views(view, prefix, after, limit)).await
    }
}

#[async_trait]
impl Store for SimulatedStore {
    fn identity(&self) -> Identity {
        self.inner().identity()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.read(self.inner().now()).await
    }
}
