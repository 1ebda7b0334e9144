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
    dead_letter::{DeadLetterId, DeadLetterKind},
    message::{
        CommandId, GroupName, MemberId, Offset, Outcome, Partition, Position, StreamId, Timestamp,
        Version,
    },
    store::{
        Accepted, Acted, ActedBy, CallbackAction, CallbackBacklog, CallbackEnd, CallbackHost,
        Callbacks, CancelAnswer, Cancellation, Cancelled, CancelledBy, ClaimedCallback,
        ClaimedCommand, ClaimedNotification, CommandCommit, CommandCursor, CommandFilter,
        CommandProgress, CommandRecord, CommittedCommands, ConditionChange, ConditionReport,
        DeadLetter, DeadLetterCount, DeadLetterDetails, DeadLetterFilter, DeadLetterGroup,
        DeadLetters, DecideAgain, DecidedRuns, DueRecurring, EndedRemoved, Entering, Entry,
        EventFailure, EventProgress, Execution, FoldDocuments, FoldRequest, ForeignMessage,
        GroupLag, Heads, Heartbeat, HeldCommand, Hold, Housekeeping, Identity, Intake, Job, JobId,
        JobMove, Jobs, KeyName, Leftover, LoadedStream, LogKind, Logs, Member, Members, NewCommand,
        NewJob, NextDue, Notices, NotificationEnd, Outbox, OutboxPage, Page, ParkedCount,
        ParkedKey, ParkedKeys, PastOutcome, Queries, Recurring, RecurringCommand, RecurringName,
        RecurringTerms, RejectedMessage, Replay, ReplayAsked, ReplayProgress, ReplayStep,
        RetryRequest, SettledRuns, Store, StoreError, StoredStreamEvent, Suspects, Taken,
        UndecidedPage, ViewAt, ViewCommit, ViewDocuments, ViewRecord, Views, WaitingEvent, Walk,
        sqlite::SqliteStore,
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
        self.arrive(3).await?;
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
        self.arrive(12).await?;
        if world.strikes(Fault::StoreRolledBack, 60) {
            return Err(StoreError::Transient("simulated: deadlock".into()));
        }
        if world.strikes(Fault::CommitLost, 60) {
            world.store.loses_next_commit(true);
        }
        let done = work.await;
        world.store.loses_next_commit(false);
        world.step(&self.gate.name, what, &asked, &done);
        if world.strikes(Fault::CrashAfterCall, 10) {
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
        entering: &Entering,
        decide: DecideAgain<'_>,
    ) -> Result<CommittedCommands, StoreError> {
        let asked = Noted::of(&(streams, entering));
        let work = self.inner().commit_exclusively(partitions, streams, entering, decide);
        self.write("commit_exclusively", asked, work).await
    }

    async fn accepted(&self, commands: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        self.read(self.inner().accepted(commands)).await
    }

    async fn held_by(
        &self,
        owner: MemberId,
        older_than: Duration,
        after: i64,
        limit: i64,
    ) -> Result<Vec<HeldCommand>, StoreError> {
        self.read(self.inner().held_by(owner, older_than, after, limit)).await
    }

    async fn let_go_of_held(&self, commands: &[(Partition, CommandId)]) -> Result<(), StoreError> {
        let asked = Noted::of(&commands);
        self.write("let_go_of_held", asked, self.inner().let_go_of_held(commands)).await
    }

    async fn held(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<CommandId>, StoreError> {
        self.read(self.inner().held(commands)).await
    }

    async fn holds(&self, streams: &[(Partition, StreamId)]) -> Result<Vec<Hold>, StoreError> {
        self.read(self.inner().holds(streams)).await
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
impl ParkedKeys for SimulatedStore {
    async fn parked_streams(
        &self,
        group: &GroupName,
        partition: Partition,
        limit: usize,
    ) -> Result<Vec<StreamId>, StoreError> {
        self.read(self.inner().parked_streams(group, partition, limit)).await
    }

    async fn which_are_parked(
        &self,
        group: &GroupName,
        streams: &[StreamId],
    ) -> Result<Vec<StreamId>, StoreError> {
        self.read(self.inner().which_are_parked(group, streams)).await
    }

    async fn parked_keys(
        &self,
        group: &GroupName,
        after: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        self.read(self.inner().parked_keys(group, after, limit)).await
    }

    async fn parked_counts(&self) -> Result<Vec<ParkedCount>, StoreError> {
        self.read(self.inner().parked_counts()).await
    }

    async fn ask_for_replay(
        &self,
        dead_letter: DeadLetterId,
        replay: Replay,
        by: &ActedBy,
    ) -> Result<ReplayAsked, StoreError> {
        let asked = Noted::of(&(dead_letter, replay));
        let work = self.inner().ask_for_replay(dead_letter, replay, by);
        self.write("ask_for_replay", asked, work).await
    }

    async fn keys_to_replay(
        &self,
        owned: &[(GroupName, Partition)],
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        self.read(self.inner().keys_to_replay(owned, limit)).await
    }

    async fn begin_replay(&self, key: &ParkedKey, member: MemberId) -> Result<i32, StoreError> {
        let asked = Noted::of(&(key.dead_letter, key.cursor));
        self.write("begin_replay", asked, self.inner().begin_replay(key, member)).await
    }

    async fn waiting_events(
        &self,
        key: &ParkedKey,
        limit: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        self.read(self.inner().waiting_events(key, limit)).await
    }

    async fn replay(
        &self,
        step: ReplayStep,
        fold: FoldDocuments<'_>,
    ) -> Result<ReplayProgress, StoreError> {
        let asked = Noted::of(&step);
        self.write("replay", asked, self.inner().replay(step, fold)).await
    }

    async fn park_again(&self, key: &ParkedKey, failure: EventFailure) -> Result<(), StoreError> {
        let asked = Noted::of(&failure);
        self.write("park_again", asked, self.inner().park_again(key, failure)).await
    }

    async fn event_progress(
        &self,
        group: &GroupName,
    ) -> Result<(Timestamp, Vec<EventProgress>), StoreError> {
        self.read(self.inner().event_progress(group)).await
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

    async fn promote_due(
        &self,
        partitions: &[Partition],
        lane_grace: Duration,
        limit: i64,
    ) -> Result<usize, StoreError> {
        let asked = Noted::of(&(partitions, lane_grace, limit));
        let promoting = self.inner().promote_due(partitions, lane_grace, limit);
        self.write("promote_due", asked, promoting).await
    }

    async fn claim_due(
        &self,
        partitions: &[Partition],
        owner: MemberId,
        limit: i64,
    ) -> Result<Vec<ClaimedCommand>, StoreError> {
        let asked = Noted::of(&(partitions, owner, limit));
        let work = async {
            let claimed = self.inner().claim_due(partitions, owner, limit).await;
            if claimed.as_ref().is_ok_and(|claimed| !claimed.is_empty()) {
                self.world.count(Fault::Claimed);
            }
            claimed
        };
        self.write("claim_due", asked, work).await
    }

    async fn take_over(
        &self,
        partitions: &[Partition],
        ttl: Duration,
        limit: i64,
    ) -> Result<usize, StoreError> {
        let asked = Noted::of(&(partitions, ttl, limit));
        let work = async {
            let moved = self.inner().take_over(partitions, ttl, limit).await;
            if matches!(moved, Ok(1..)) {
                self.world.count(Fault::TakenOver);
            }
            moved
        };
        self.write("take_over", asked, work).await
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

/// The processes of a simulation neither notify nor keep house; whoever asks is answered as it is.
#[async_trait]
impl Notices for SimulatedStore {
    async fn dead_letter_counts(&self, limit: i64) -> Result<Vec<DeadLetterCount>, StoreError> {
        self.read(self.inner().dead_letter_counts(limit)).await
    }

    async fn group_lag(&self, group: &GroupName, log: LogKind) -> Result<GroupLag, StoreError> {
        self.read(self.inner().group_lag(group, log)).await
    }

    async fn lost_members(
        &self,
        silent: Duration,
        until: Duration,
        limit: i64,
    ) -> Result<Vec<Member>, StoreError> {
        self.read(self.inner().lost_members(silent, until, limit)).await
    }

    async fn report_conditions(
        &self,
        report: &ConditionReport,
    ) -> Result<Vec<ConditionChange>, StoreError> {
        let asked = Noted::of(report);
        self.write("report_conditions", asked, self.inner().report_conditions(report)).await
    }

    async fn firing_conditions(&self) -> Result<Vec<(String, i64)>, StoreError> {
        self.read(self.inner().firing_conditions()).await
    }

    async fn claim_notification(
        &self,
        webhook: &str,
        per_minute: i32,
        lease: Duration,
    ) -> Result<Option<ClaimedNotification>, StoreError> {
        let asked = Noted::of(&(webhook, per_minute, lease));
        let work = self.inner().claim_notification(webhook, per_minute, lease);
        self.write("claim_notification", asked, work).await
    }

    async fn end_notification(
        &self,
        id: uuid::Uuid,
        attempt: i32,
        end: NotificationEnd,
    ) -> Result<bool, StoreError> {
        let asked = Noted::of(&(id, attempt, &end));
        let work = self.inner().end_notification(id, attempt, end);
        self.write("end_notification", asked, work).await
    }
}

#[async_trait]
impl Housekeeping for SimulatedStore {
    async fn remove_log_entries(
        &self,
        partition: Partition,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let asked = Noted::of(&(partition, age, limit));
        let work = self.inner().remove_log_entries(partition, age, limit);
        self.write("remove_log_entries", asked, work).await
    }

    async fn remove_ended_commands(
        &self,
        age: Duration,
        from: Option<CommandCursor>,
        limit: i64,
    ) -> Result<EndedRemoved, StoreError> {
        let asked = Noted::of(&(age, from, limit));
        let work = self.inner().remove_ended_commands(age, from, limit);
        self.write("remove_ended_commands", asked, work).await
    }

    async fn remove_finished_outbox(
        &self,
        events: &[GroupName],
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let asked = Noted::of(&(events, age, limit));
        let work = self.inner().remove_finished_outbox(events, age, limit);
        self.write("remove_finished_outbox", asked, work).await
    }

    async fn remove_leftovers(
        &self,
        what: Leftover,
        age: Duration,
        limit: i64,
    ) -> Result<u64, StoreError> {
        let asked = Noted::of(&(what, age, limit));
        let work = self.inner().remove_leftovers(what, age, limit);
        self.write("remove_leftovers", asked, work).await
    }

    async fn bound_foreign(&self, keep: i64, limit: i64) -> Result<u64, StoreError> {
        let asked = Noted::of(&(keep, limit));
        self.write("bound_foreign", asked, self.inner().bound_foreign(keep, limit)).await
    }
}

#[async_trait]
impl Suspects for SimulatedStore {
    async fn take_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
        by_force: bool,
    ) -> Result<Taken, StoreError> {
        let asked = Noted::of(&(group, partition, member, by_force));
        let work = self.inner().take_partition(group, partition, member, by_force);
        self.write("take_partition", asked, work).await
    }

    async fn release_partition(
        &self,
        group: &GroupName,
        partition: Partition,
        member: MemberId,
    ) -> Result<(), StoreError> {
        let asked = Noted::of(&(group, partition, member));
        let work = self.inner().release_partition(group, partition, member);
        self.write("release_partition", asked, work).await
    }

    async fn begin_suspect(
        &self,
        group: &GroupName,
        partition: Partition,
        offset: Offset,
    ) -> Result<i32, StoreError> {
        let asked = Noted::of(&(group, partition, offset));
        let work = self.inner().begin_suspect(group, partition, offset);
        self.write("begin_suspect", asked, work).await
    }

    async fn end_suspects(
        &self,
        group: &GroupName,
        partition: Partition,
    ) -> Result<(), StoreError> {
        let asked = Noted::of(&(group, partition));
        self.write("end_suspects", asked, self.inner().end_suspects(group, partition)).await
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

    async fn view_at(
        &self,
        view: &str,
        key: &str,
        position: Position,
    ) -> Result<ViewAt, StoreError> {
        self.read(self.inner().view_at(view, key, position)).await
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
impl DeadLetters for SimulatedStore {
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<DeadLetter>, StoreError> {
        self.read(self.inner().dead_letters(filter, after, limit)).await
    }

    async fn dead_letter_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterGroup>, StoreError> {
        self.read(self.inner().dead_letter_groups(filter)).await
    }

    async fn dead_letter(&self, id: DeadLetterId) -> Result<Option<DeadLetterDetails>, StoreError> {
        self.read(self.inner().dead_letter(id)).await
    }

    async fn open_dead_letters(&self) -> Result<Vec<(DeadLetterKind, i64)>, StoreError> {
        self.read(self.inner().open_dead_letters()).await
    }

    async fn retry_dead_commands(
        &self,
        requests: &[RetryRequest],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        let asked = Noted::of(&requests);
        self.write("retry_dead_commands", asked, self.inner().retry_dead_commands(requests, by))
            .await
    }

    async fn discard_dead_letters(
        &self,
        ids: &[DeadLetterId],
        by: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        let asked = Noted::of(&ids);
        self.write("discard_dead_letters", asked, self.inner().discard_dead_letters(ids, by)).await
    }
}

#[async_trait]
impl Jobs for SimulatedStore {
    async fn create_job(&self, job: &NewJob) -> Result<Job, StoreError> {
        self.write("create_job", Noted::of(job), self.inner().create_job(job)).await
    }

    async fn create_walking_job(
        &self,
        job: &NewJob,
        walk: &Walk,
        total: i64,
    ) -> Result<Job, StoreError> {
        let made = self.inner().create_walking_job(job, walk, total);
        self.write("create_walking_job", Noted::of(job), made).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read(self.inner().job(id)).await
    }

    async fn jobs(&self, after: Option<&str>, limit: i64) -> Result<Page<Job>, StoreError> {
        self.read(self.inner().jobs(after, limit)).await
    }

    async fn cancel_job(&self, id: JobId) -> Result<Option<Cancelled>, StoreError> {
        self.write("cancel_job", Noted::of(&id), self.inner().cancel_job(id)).await
    }

    async fn claim_job(
        &self,
        owner: MemberId,
        silent: Duration,
    ) -> Result<Option<Job>, StoreError> {
        self.write("claim_job", Noted::of(&owner), self.inner().claim_job(owner, silent)).await
    }

    async fn next_of_job(&self, job: &Job, limit: i64) -> Result<Vec<DeadLetterId>, StoreError> {
        self.read(self.inner().next_of_job(job, limit)).await
    }

    async fn move_job(
        &self,
        id: JobId,
        owner: MemberId,
        job_move: &JobMove,
    ) -> Result<(), StoreError> {
        self.write("move_job", Noted::of(&id), self.inner().move_job(id, owner, job_move)).await
    }
}

#[async_trait]
impl Recurring for SimulatedStore {
    async fn recurring(
        &self,
        name: &RecurringName,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        self.read(self.inner().recurring(name)).await
    }

    async fn all_recurring(
        &self,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<RecurringCommand>, StoreError> {
        self.read(self.inner().all_recurring(after, limit)).await
    }

    async fn put_recurring(
        &self,
        name: &RecurringName,
        terms: &RecurringTerms,
        next_due: NextDue,
        revision: Option<i64>,
        by: &str,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let work = self.inner().put_recurring(name, terms, next_due, revision, by);
        self.write("put_recurring", Noted::of(terms), work).await
    }

    async fn remove_recurring(
        &self,
        name: &RecurringName,
        revision: Option<i64>,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let work = self.inner().remove_recurring(name, revision);
        self.write("remove_recurring", Noted::of(name), work).await
    }

    async fn due_recurring(
        &self,
        passed_over: &[RecurringName],
        limit: i64,
    ) -> Result<DueRecurring, StoreError> {
        self.read(self.inner().due_recurring(passed_over, limit)).await
    }

    async fn decide_runs(&self, decided: &[DecidedRuns]) -> Result<Vec<bool>, StoreError> {
        self.write("decide_runs", Noted::of(&decided), self.inner().decide_runs(decided)).await
    }

    async fn settle_runs(&self, settled: &[SettledRuns]) -> Result<Vec<bool>, StoreError> {
        self.write("settle_runs", Noted::of(&settled), self.inner().settle_runs(settled)).await
    }
}

#[async_trait]
impl Callbacks for SimulatedStore {
    async fn partitions_with_callbacks(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<Partition>, StoreError> {
        self.read(self.inner().partitions_with_callbacks(partitions)).await
    }

    async fn callback_hosts(
        &self,
        partition: Partition,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<CallbackHost>, StoreError> {
        self.read(self.inner().callback_hosts(partition, after, limit)).await
    }

    async fn claim_callbacks(
        &self,
        partition: Partition,
        hosts: &[(String, i64)],
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        let asked = Noted::of(&(partition, hosts));
        let work = self.inner().claim_callbacks(partition, hosts, lease);
        self.write("claim_callbacks", asked, work).await
    }

    async fn claim_aged_callbacks(
        &self,
        partition: Partition,
        hosts: &[String],
        age: Duration,
        limit: i64,
        lease: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        let asked = Noted::of(&(partition, hosts));
        let work = self.inner().claim_aged_callbacks(partition, hosts, age, limit, lease);
        self.write("claim_aged_callbacks", asked, work).await
    }

    async fn end_callback(
        &self,
        claimed: &ClaimedCallback,
        end: CallbackEnd,
    ) -> Result<bool, StoreError> {
        let asked = Noted::of(&(claimed, &end));
        self.write("end_callback", asked, self.inner().end_callback(claimed, end)).await
    }

    async fn past_outcome(
        &self,
        partition: Partition,
        command: CommandId,
        attempts: i32,
    ) -> Result<Option<PastOutcome>, StoreError> {
        self.read(self.inner().past_outcome(partition, command, attempts)).await
    }

    async fn act_on_callback(
        &self,
        letter: DeadLetterId,
        action: CallbackAction,
        by: &ActedBy,
    ) -> Result<Acted, StoreError> {
        let asked = Noted::of(&(letter, action));
        self.write("act_on_callback", asked, self.inner().act_on_callback(letter, action, by)).await
    }

    async fn callback_backlog(
        &self,
        partitions: &[Partition],
    ) -> Result<CallbackBacklog, StoreError> {
        self.read(self.inner().callback_backlog(partitions)).await
    }
}

#[async_trait]
impl Cancellation for SimulatedStore {
    async fn cancel_commands(
        &self,
        commands: &[CommandId],
        by: &CancelledBy,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        let asked = Noted::of(&(commands, by));
        self.write("cancel_commands", asked, self.inner().cancel_commands(commands, by)).await
    }

    async fn undecided(&self, walk: &Walk, limit: i64) -> Result<UndecidedPage, StoreError> {
        self.read(self.inner().undecided(walk, limit)).await
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
