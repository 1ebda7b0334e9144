//! A store in memory. What intake and queries need is there; the rest panics.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    dead_letter::{DeadLetterId, DeadLetterKind},
    message::{
        CommandId, GroupName, LogId, MemberId, Offset, Outcome, OutcomeStatus, Partition,
        PartitionCount, Position, RawJson, StreamId, Timestamp, Version,
    },
    store::*,
};

/// What the store answers to one `accept`, instead of accepting.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Fails before anything took place.
    Fail(fn(String) -> StoreError),
    /// Accepts, then loses the reply.
    AcceptThenLose,
    /// Panics.
    Panic,
}

#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) commands: BTreeMap<CommandId, CommandRecord>,
    pub(crate) order: Vec<CommandId>,
    pub(crate) batches: Vec<usize>,
    pub(crate) script: VecDeque<Script>,
    pub(crate) checkpoints: HashMap<GroupName, Vec<Offset>>,
    pub(crate) views: BTreeMap<(String, String), ViewRecord>,
    pub(crate) events: Vec<(StreamId, StoredStreamEvent)>,
    pub(crate) parked: Vec<ParkedKey>,
    /// What the only member says of itself.
    pub(crate) member_stats: serde_json::Value,
    /// What commands that failed and are tried again have come to.
    pub(crate) failed_attempts: HashMap<CommandId, i32>,
    /// How many commands each call of `statuses` and of `commands_with_ids` was about.
    pub(crate) statuses_asked: Vec<usize>,
    pub(crate) records_asked: Vec<usize>,
    /// What commands answer that end from now on, instead of the usual.
    pub(crate) reply: Option<RawJson>,
    /// Every question fails with this.
    pub(crate) down: bool,
    pub(crate) questions: usize,
    pub(crate) recurring: BTreeMap<RecurringName, RecurringCommand>,
    /// So many changes of them find that somebody else was faster.
    pub(crate) lost_races: usize,
}

/// A store in memory. What intake and queries need is there; the rest panics.
pub(crate) struct MemoryStore {
    pub(crate) inside: Mutex<Inside>,
    pub(crate) outbox_rows: AtomicI64,
    pub(crate) accept_takes: Duration,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            inside: Mutex::default(),
            outbox_rows: AtomicI64::new(0),
            accept_takes: Duration::ZERO,
        }
    }
}

/// A payload with this text can never be stored.
pub(crate) const POISON: &str = "poison";

impl MemoryStore {
    pub(crate) fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn script(&self, script: impl IntoIterator<Item = Script>) {
        self.inside().script.extend(script);
    }

    pub(crate) fn end(&self, id: CommandId, status: OutcomeStatus) {
        let mut inside = self.inside();
        let mut outcome = outcome(status);
        if inside.reply.is_some() {
            outcome.reply.clone_from(&inside.reply);
        }
        inside.commands.get_mut(&id).unwrap().outcome = Some(outcome);
    }

    fn up(&self) -> Result<std::sync::MutexGuard<'_, Inside>, StoreError> {
        let mut inside = self.inside();
        inside.questions += 1;
        if inside.down { Err(StoreError::Unavailable("down".into())) } else { Ok(inside) }
    }
}

pub(crate) fn outcome(status: OutcomeStatus) -> Outcome {
    let failed = status != OutcomeStatus::Succeeded;
    Outcome {
        status,
        positions: vec![Position { partition: Partition(1), offset: Offset(7) }],
        version: Version(3),
        reply: (!failed).then(|| RawJson::from_trusted(r#"{"balance":12}"#.into())),
        error: failed.then(|| crate::message::Failure::new("insufficient_funds", "too little")),
        attempts: 1,
        completed_at: Timestamp::now_utc(),
    }
}

#[async_trait]
impl Intake for MemoryStore {
    async fn accept(&self, batch: Vec<NewCommand>) -> Result<Vec<Accepted>, StoreError> {
        if !self.accept_takes.is_zero() {
            tokio::time::sleep(self.accept_takes).await;
        }
        let mut inside = self.up()?;
        inside.batches.push(batch.len());
        let script = inside.script.pop_front();
        match script {
            Some(Script::Fail(error)) => return Err(error("scripted".into())),
            Some(Script::Panic) => {
                drop(inside);
                panic!("scripted");
            }
            Some(Script::AcceptThenLose) | None => {}
        }
        if batch.iter().any(|command| command.payload.as_str().contains(POISON)) {
            return Err(StoreError::Unstorable("poison".into()));
        }
        let mut accepted = Vec::new();
        for command in batch {
            if let Some(there) = inside.commands.get(&command.id) {
                accepted.push(Accepted::Occupied(Occupied {
                    content_hash: there.content_hash,
                    accepted_at: there.accepted_at,
                }));
                continue;
            }
            let accepted_at = Timestamp::now_utc();
            inside.order.push(command.id);
            inside.commands.insert(
                command.id,
                CommandRecord {
                    id: command.id,
                    partition: PartitionCount::DEFAULT.of(&command.stream),
                    command_type: command.command_type,
                    stream: command.stream,
                    lane: command.lane,
                    payload: command.payload,
                    metadata: command.metadata,
                    not_before: command.not_before,
                    not_after: command.not_after,
                    content_hash: command.content_hash,
                    accepted_at,
                    scheduled: command.not_before.is_some_and(|at| at > accepted_at),
                    waiting: false,
                    failed_attempts: 0,
                    failures: Vec::new(),
                    outcome: None,
                },
            );
            accepted.push(Accepted::New { accepted_at });
        }
        match script {
            Some(Script::AcceptThenLose) => Err(StoreError::Unknown("reply lost".into())),
            _ => Ok(accepted),
        }
    }

    async fn reject_messages(&self, _: Vec<RejectedMessage>) -> Result<(), StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Execution for MemoryStore {
    async fn load_streams(&self, _: &[(StreamId, i16)]) -> Result<Vec<LoadedStream>, StoreError> {
        unimplemented!()
    }
    async fn commit_commands(&self, _: CommandCommit) -> Result<CommittedCommands, StoreError> {
        unimplemented!()
    }
    async fn commit_exclusively(
        &self,
        _: &std::collections::BTreeSet<Partition>,
        _: &[(StreamId, i16)],
        _: &Entering,
        _: DecideAgain<'_>,
    ) -> Result<CommittedCommands, StoreError> {
        unimplemented!()
    }
    async fn accepted(&self, _: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        unimplemented!()
    }
    async fn held_by(
        &self,
        _: crate::message::MemberId,
        _: Duration,
        _: i64,
        _: i64,
    ) -> Result<Vec<HeldCommand>, StoreError> {
        unimplemented!()
    }
    async fn let_go_of_held(&self, _: &[(Partition, CommandId)]) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn held(&self, _: &[(Partition, CommandId)]) -> Result<Vec<CommandId>, StoreError> {
        unimplemented!()
    }
    async fn holds(&self, _: &[(Partition, StreamId)]) -> Result<Vec<Hold>, StoreError> {
        unimplemented!()
    }
    async fn outcomes(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, Outcome)>, StoreError> {
        let inside = self.up()?;
        let ended = |(_, id): &(Partition, CommandId)| {
            Some((*id, inside.commands.get(id)?.outcome.clone()?))
        };
        Ok(commands.iter().filter_map(ended).collect())
    }
}

#[async_trait]
impl Logs for MemoryStore {
    async fn read_log(
        &self,
        _: LogKind,
        _: Partition,
        _: Offset,
        _: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        unimplemented!()
    }
    async fn heads(&self) -> Result<Heads, StoreError> {
        drop(self.up()?);
        Ok(Heads { commands: vec![Offset(9); 8], events: vec![Offset(9); 8] })
    }
    async fn checkpoints(&self, group: &GroupName) -> Result<Vec<Offset>, StoreError> {
        let inside = self.up()?;
        let none = || vec![Offset(0); 8];
        Ok(inside.checkpoints.get(group).cloned().unwrap_or_else(none))
    }
    async fn record_foreign(&self, _: &[ForeignMessage]) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn purge_checkpoints(&self, _: i64) -> Result<u64, StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Views for MemoryStore {
    async fn load_documents(&self, _: &str, _: &[String]) -> Result<ViewDocuments, StoreError> {
        unimplemented!()
    }
    async fn commit_view(&self, _: ViewCommit) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn fold_shared(&self, _: FoldRequest, _: FoldDocuments<'_>) -> Result<(), StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl ParkedKeys for MemoryStore {
    async fn parked_streams(
        &self,
        _: &GroupName,
        _: Partition,
        _: usize,
    ) -> Result<Vec<StreamId>, StoreError> {
        unimplemented!()
    }
    async fn which_are_parked(
        &self,
        _: &GroupName,
        _: &[StreamId],
    ) -> Result<Vec<StreamId>, StoreError> {
        unimplemented!()
    }
    async fn parked_keys(
        &self,
        group: &GroupName,
        _: Option<&KeyName>,
        limit: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        let inside = self.up()?;
        let keys = inside.parked.iter().filter(|key| key.name.group == *group);
        Ok(keys.take(limit).cloned().collect())
    }
    async fn parked_counts(&self) -> Result<Vec<ParkedCount>, StoreError> {
        let mut counts: BTreeMap<GroupName, i64> = BTreeMap::new();
        for key in &self.up()?.parked {
            *counts.entry(key.name.group.clone()).or_default() += 1;
        }
        Ok(counts.into_iter().map(|(group, keys)| ParkedCount { group, keys }).collect())
    }
    async fn ask_for_replay(
        &self,
        _: DeadLetterId,
        _: Replay,
        _: &ActedBy,
    ) -> Result<ReplayAsked, StoreError> {
        unimplemented!()
    }
    async fn keys_to_replay(
        &self,
        _: &[(GroupName, Partition)],
        _: usize,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        unimplemented!()
    }
    async fn begin_replay(
        &self,
        _: &ParkedKey,
        _: crate::message::MemberId,
    ) -> Result<i32, StoreError> {
        unimplemented!()
    }
    async fn waiting_events(
        &self,
        _: &ParkedKey,
        _: usize,
    ) -> Result<Vec<WaitingEvent>, StoreError> {
        unimplemented!()
    }
    async fn replay(
        &self,
        _: ReplayStep,
        _: FoldDocuments<'_>,
    ) -> Result<ReplayProgress, StoreError> {
        unimplemented!()
    }
    async fn park_again(&self, _: &ParkedKey, _: EventFailure) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn event_progress(
        &self,
        group: &GroupName,
    ) -> Result<(Timestamp, Vec<EventProgress>), StoreError> {
        let checkpoints = self.checkpoints(group).await?;
        let now = Timestamp::UNIX_EPOCH + Duration::from_mins(1);
        let progress = checkpoints.into_iter().map(|checkpoint| EventProgress {
            checkpoint,
            head: Offset(9),
            waiting_since: (checkpoint < Offset(9)).then_some(Timestamp::UNIX_EPOCH),
        });
        Ok((now, progress.collect()))
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn read_outbox(
        &self,
        _: &[Partition],
        _: u64,
        _: &[i64],
        _: i64,
    ) -> Result<OutboxPage, StoreError> {
        unimplemented!()
    }
    async fn drop_aged(&self, _: &[Partition], _: i64, _: i64) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn delete_outbox(&self, _: &[i64]) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn outbox_depth(&self, limit: i64) -> Result<(i64, i64), StoreError> {
        drop(self.up()?);
        Ok((self.outbox_rows.load(Ordering::Relaxed).min(limit), 5))
    }
    async fn promote_due(&self, _: &[Partition], _: Duration, _: i64) -> Result<usize, StoreError> {
        unimplemented!()
    }
    async fn claim_due(
        &self,
        _: &[Partition],
        _: MemberId,
        _: i64,
    ) -> Result<Vec<ClaimedCommand>, StoreError> {
        Ok(Vec::new())
    }
    async fn take_over(&self, _: &[Partition], _: Duration, _: i64) -> Result<usize, StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Members for MemoryStore {
    async fn heartbeat(
        &self,
        _: &Heartbeat,
        _: Duration,
    ) -> Result<(Timestamp, Vec<Member>), StoreError> {
        unimplemented!()
    }
    async fn live_members(&self, _: Duration) -> Result<Vec<Member>, StoreError> {
        drop(self.up()?);
        Ok(vec![Member {
            id: crate::message::MemberId(uuid::Uuid::nil()),
            name: "host:1".into(),
            release: "0.1.0".into(),
            roles: vec![Role::Ingress, Role::CommandWorker],
            groups: vec![GroupName::commands()],
            draining: false,
            started_at: Timestamp::UNIX_EPOCH,
            heartbeat_at: Timestamp::UNIX_EPOCH,
            stats: self.inside().member_stats.clone(),
        }])
    }
    async fn notify_members(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn leave(&self, _: crate::message::MemberId) -> Result<(), StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Suspects for MemoryStore {
    async fn take_partition(
        &self,
        _: &GroupName,
        _: Partition,
        _: crate::message::MemberId,
        _: bool,
    ) -> Result<Taken, StoreError> {
        unimplemented!()
    }
    async fn release_partition(
        &self,
        _: &GroupName,
        _: Partition,
        _: crate::message::MemberId,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn begin_suspect(
        &self,
        _: &GroupName,
        _: Partition,
        _: Offset,
    ) -> Result<i32, StoreError> {
        unimplemented!()
    }
    async fn end_suspects(&self, _: &GroupName, _: Partition) -> Result<(), StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Notices for MemoryStore {
    async fn dead_letter_counts(&self, _: i64) -> Result<Vec<DeadLetterCount>, StoreError> {
        unimplemented!()
    }
    async fn group_lag(&self, _: &GroupName, _: LogKind) -> Result<GroupLag, StoreError> {
        unimplemented!()
    }
    async fn lost_members(
        &self,
        _: Duration,
        _: Duration,
        _: i64,
    ) -> Result<Vec<Member>, StoreError> {
        unimplemented!()
    }
    async fn report_conditions(
        &self,
        _: &ConditionReport,
    ) -> Result<Vec<ConditionChange>, StoreError> {
        unimplemented!()
    }
    async fn firing_conditions(&self) -> Result<Vec<(String, i64)>, StoreError> {
        unimplemented!()
    }
    async fn claim_notification(
        &self,
        _: &str,
        _: i32,
        _: Duration,
    ) -> Result<Option<ClaimedNotification>, StoreError> {
        unimplemented!()
    }
    async fn end_notification(
        &self,
        _: uuid::Uuid,
        _: i32,
        _: NotificationEnd,
    ) -> Result<bool, StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Housekeeping for MemoryStore {
    async fn remove_log_entries(
        &self,
        _: Partition,
        _: Duration,
        _: i64,
    ) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn remove_ended_commands(
        &self,
        _: Duration,
        _: Option<CommandCursor>,
        _: i64,
    ) -> Result<EndedRemoved, StoreError> {
        unimplemented!()
    }
    async fn remove_finished_outbox(
        &self,
        _: &[GroupName],
        _: Duration,
        _: i64,
    ) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn remove_leftovers(&self, _: Leftover, _: Duration, _: i64) -> Result<u64, StoreError> {
        unimplemented!()
    }
    async fn bound_foreign(&self, _: i64, _: i64) -> Result<u64, StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Queries for MemoryStore {
    async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, StoreError> {
        Ok(self.up()?.commands.get(&id).cloned())
    }
    async fn statuses(
        &self,
        commands: &[(Partition, CommandId)],
    ) -> Result<Vec<(CommandId, CommandProgress)>, StoreError> {
        let mut inside = self.up()?;
        inside.statuses_asked.push(commands.len());
        let progress = |(_, id): &(Partition, CommandId)| {
            let progress = inside.commands.get(id).map(CommandRecord::progress).unwrap_or_default();
            let failed_attempt = inside.failed_attempts.get(id).copied().unwrap_or_default();
            (*id, CommandProgress { failed_attempt, ..progress })
        };
        Ok(commands.iter().map(progress).collect())
    }
    async fn commands_with_ids(&self, ids: &[CommandId]) -> Result<Vec<CommandRecord>, StoreError> {
        let mut inside = self.up()?;
        inside.records_asked.push(ids.len());
        Ok(ids.iter().filter_map(|id| inside.commands.get(id).cloned()).collect())
    }
    async fn commands(
        &self,
        filter: &CommandFilter,
        _: Option<&str>,
        limit: i64,
    ) -> Result<Page<CommandRecord>, StoreError> {
        let inside = self.up()?;
        let fits = |record: &&CommandRecord| {
            filter.status.is_none_or(|status| record.status() == status)
                && filter.command_type.as_ref().is_none_or(|kind| record.command_type == *kind)
                && filter.stream.as_ref().is_none_or(|stream| record.stream == *stream)
        };
        let newest = inside.order.iter().rev().filter_map(|id| inside.commands.get(id));
        let items = newest.filter(fits).take(limit as usize).cloned().collect();
        Ok(Page { items, next: Some("cursor".into()) })
    }
    async fn stream_events(
        &self,
        stream: &StreamId,
        after: Version,
        limit: i64,
    ) -> Result<Vec<StoredStreamEvent>, StoreError> {
        let inside = self.up()?;
        let events =
            inside.events.iter().filter(|(of, event)| of == stream && event.version > after);
        Ok(events.take(limit as usize).map(|(_, event)| event.clone()).collect())
    }
    async fn view(&self, view: &str, key: &str) -> Result<Option<ViewRecord>, StoreError> {
        Ok(self.up()?.views.get(&(view.to_owned(), key.to_owned())).cloned())
    }
    async fn view_at(
        &self,
        view: &str,
        key: &str,
        position: Position,
    ) -> Result<ViewAt, StoreError> {
        let record = self.view(view, key).await?;
        let parked = self.up()?.parked.iter().any(|parked| {
            parked.name.group == GroupName::projection(view)
                && parked.failed.partition == position.partition
                && parked.failed.offset <= position.offset
        });
        Ok(ViewAt { record, parked })
    }
    async fn views(
        &self,
        view: &str,
        prefix: &str,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<ViewRecord>, StoreError> {
        let inside = self.up()?;
        let documents = inside.views.iter().filter(|((of, key), _)| {
            of == view && key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        });
        Ok(documents.take(limit as usize).map(|(_, record)| record.clone()).collect())
    }
}

#[async_trait]
impl DeadLetters for MemoryStore {
    async fn dead_letters(
        &self,
        _: &DeadLetterFilter,
        _: Option<&str>,
        _: i64,
    ) -> Result<Page<DeadLetter>, StoreError> {
        drop(self.up()?);
        Ok(Page { items: Vec::new(), next: None })
    }
    async fn dead_letter_groups(
        &self,
        _: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterGroup>, StoreError> {
        drop(self.up()?);
        Ok(Vec::new())
    }
    async fn dead_letter(&self, _: DeadLetterId) -> Result<Option<DeadLetterDetails>, StoreError> {
        drop(self.up()?);
        Ok(None)
    }
    async fn open_dead_letters(&self) -> Result<Vec<(DeadLetterKind, i64)>, StoreError> {
        Ok(Vec::new())
    }
    async fn retry_dead_commands(
        &self,
        requests: &[RetryRequest],
        _: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        match self.up()?.script.pop_front() {
            Some(Script::Fail(error)) => Err(error("scripted".into())),
            _ => Ok(vec![Acted::NotFound; requests.len()]),
        }
    }
    async fn discard_dead_letters(
        &self,
        ids: &[DeadLetterId],
        _: &ActedBy,
    ) -> Result<Vec<Acted>, StoreError> {
        match self.up()?.script.pop_front() {
            Some(Script::Fail(error)) => Err(error("scripted".into())),
            _ => Ok(vec![Acted::NotFound; ids.len()]),
        }
    }
}

#[async_trait]
impl Jobs for MemoryStore {
    async fn create_job(&self, _: &NewJob) -> Result<Job, StoreError> {
        unimplemented!()
    }
    async fn create_walking_job(
        &self,
        job: &NewJob,
        walk: &Walk,
        total: i64,
    ) -> Result<Job, StoreError> {
        drop(self.up()?);
        Ok(Job {
            id: JobId::generate(),
            asked: job.clone(),
            state: JobState::Running,
            note: None,
            newest: DeadLetterId(uuid::Uuid::nil()),
            total,
            done: 0,
            failed: 0,
            cursor: None,
            walk: Some(walk.clone()),
            canary: None,
            owner: None,
            heartbeat_at: None,
            created_at: Timestamp::now_utc(),
            finished_at: None,
        })
    }
    async fn job(&self, _: JobId) -> Result<Option<Job>, StoreError> {
        drop(self.up()?);
        Ok(None)
    }
    async fn jobs(&self, _: Option<&str>, _: i64) -> Result<Page<Job>, StoreError> {
        drop(self.up()?);
        Ok(Page { items: Vec::new(), next: None })
    }
    async fn cancel_job(&self, _: JobId) -> Result<Option<Cancelled>, StoreError> {
        drop(self.up()?);
        Ok(None)
    }
    async fn claim_job(
        &self,
        _: crate::message::MemberId,
        _: Duration,
    ) -> Result<Option<Job>, StoreError> {
        Ok(None)
    }
    async fn next_of_job(&self, _: &Job, _: i64) -> Result<Vec<DeadLetterId>, StoreError> {
        unimplemented!()
    }
    async fn move_job(
        &self,
        _: JobId,
        _: crate::message::MemberId,
        _: &JobMove,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Recurring for MemoryStore {
    async fn recurring(
        &self,
        name: &RecurringName,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        Ok(self.up()?.recurring.get(name).cloned())
    }
    async fn all_recurring(
        &self,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page<RecurringCommand>, StoreError> {
        let inside = self.up()?;
        let later = inside
            .recurring
            .values()
            .filter(|it| after.is_none_or(|after| it.name().as_str() > after));
        let items: Vec<_> = later.take(limit as usize).cloned().collect();
        let last = items.last().filter(|_| items.len() as i64 == limit);
        Ok(Page { next: last.map(|last| last.name().to_string()), items })
    }
    async fn put_recurring(
        &self,
        name: &RecurringName,
        terms: &RecurringTerms,
        next_due: NextDue,
        revision: Option<i64>,
        by: &str,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        let mut inside = self.up()?;
        if let Some(Script::Fail(error)) = inside.script.pop_front() {
            return Err(error("scripted".into()));
        }
        if inside.lost_races > 0 {
            inside.lost_races -= 1;
            return Ok(None);
        }
        let found = inside.recurring.get(name).cloned();
        if found.as_ref().map(|found| found.revision) != revision {
            return Ok(None);
        }
        let now = Timestamp::now_utc();
        let next_due_at = match next_due {
            NextDue::Keep => found.as_ref().and_then(|found| found.next_due_at),
            NextDue::At(time) => time,
        };
        let written = RecurringCommand {
            turn: Turn {
                name: name.clone(),
                created_at: found.as_ref().map_or(now, |found| found.turn.created_at),
                turn: found.as_ref().map_or(1, |found| found.turn.turn + 1),
            },
            terms: terms.clone(),
            revision: revision.unwrap_or_default() + 1,
            next_due_at,
            owed: Vec::new(),
            runs: 0,
            missed: 0,
            last_due_at: None,
            last_command_id: None,
            created_by: found.map_or(by.to_owned(), |found| found.created_by),
            changed_at: now,
            changed_by: by.to_owned(),
        };
        inside.recurring.insert(name.clone(), written.clone());
        Ok(Some(written))
    }
    async fn remove_recurring(
        &self,
        name: &RecurringName,
        _: Option<i64>,
    ) -> Result<Option<RecurringCommand>, StoreError> {
        Ok(self.up()?.recurring.remove(name))
    }
    async fn due_recurring(&self, _: &[RecurringName], _: i64) -> Result<DueRecurring, StoreError> {
        unimplemented!()
    }
    async fn decide_runs(&self, _: &[DecidedRuns]) -> Result<Vec<bool>, StoreError> {
        unimplemented!()
    }
    async fn settle_runs(&self, _: &[SettledRuns]) -> Result<Vec<bool>, StoreError> {
        unimplemented!()
    }
}

#[async_trait]
impl Callbacks for MemoryStore {
    async fn partitions_with_callbacks(
        &self,
        _: &[Partition],
    ) -> Result<Vec<Partition>, StoreError> {
        Ok(Vec::new())
    }
    async fn callback_hosts(
        &self,
        _: Partition,
        _: Option<&str>,
        _: i64,
    ) -> Result<Vec<CallbackHost>, StoreError> {
        unimplemented!()
    }
    async fn claim_callbacks(
        &self,
        _: Partition,
        _: &[(String, i64)],
        _: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        unimplemented!()
    }
    async fn claim_aged_callbacks(
        &self,
        _: Partition,
        _: &[String],
        _: Duration,
        _: i64,
        _: Duration,
    ) -> Result<Vec<ClaimedCallback>, StoreError> {
        unimplemented!()
    }
    async fn end_callback(&self, _: &ClaimedCallback, _: CallbackEnd) -> Result<bool, StoreError> {
        unimplemented!()
    }
    async fn past_outcome(
        &self,
        _: Partition,
        _: CommandId,
        _: i32,
    ) -> Result<Option<PastOutcome>, StoreError> {
        unimplemented!()
    }
    async fn act_on_callback(
        &self,
        _: DeadLetterId,
        _: CallbackAction,
        _: &ActedBy,
    ) -> Result<Acted, StoreError> {
        unimplemented!()
    }
    async fn callback_backlog(&self, _: &[Partition]) -> Result<CallbackBacklog, StoreError> {
        Ok(CallbackBacklog::default())
    }
}

#[async_trait]
impl Cancellation for MemoryStore {
    async fn cancel_commands(
        &self,
        commands: &[CommandId],
        by: &CancelledBy,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        let mut inside = self.up()?;
        if let Some(Script::Fail(error)) = inside.script.pop_front() {
            return Err(error("scripted".into()));
        }
        let answer = |id: &CommandId| {
            let Some(record) = inside.commands.get_mut(id) else { return CancelAnswer::NotFound };
            if let Some(outcome) = &record.outcome {
                return CancelAnswer::AlreadyEnded(outcome.status);
            }
            let ended = outcome(OutcomeStatus::Cancelled);
            let positions = Vec::new();
            record.outcome = Some(Outcome { positions, error: Some(by.failure()), ..ended });
            CancelAnswer::Cancelled { command_type: record.command_type.clone() }
        };
        Ok(commands.iter().map(answer).collect())
    }

    async fn undecided(&self, walk: &Walk, limit: i64) -> Result<UndecidedPage, StoreError> {
        let inside = self.up()?;
        let open = inside.commands.values().filter(|record| record.outcome.is_none());
        let open = open.filter(|record| walk.logs.iter().any(|(it, _)| *it == record.partition));
        let commands = open.take(limit as usize).map(|record| Undecided {
            partition: record.partition,
            id: record.id,
            command_type: record.command_type.clone(),
            stream: record.stream.clone(),
            accepted_at: record.accepted_at,
        });
        Ok(UndecidedPage { commands: commands.collect(), next: None })
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn identity(&self) -> Identity {
        Identity { log_id: LogId(uuid::Uuid::nil()), partitions: PartitionCount::DEFAULT }
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        drop(self.up()?);
        Ok(Timestamp::now_utc())
    }
}
