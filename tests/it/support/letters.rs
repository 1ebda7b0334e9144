//! Dead letters to look at and to act on.

use std::sync::Arc;

use adjutant::{
    dead_letter::{DeadLetterId, DeadLetterKind, DeadLetterState, fingerprint},
    message::{CommandId, Failure, GroupName, Offset, OutcomeStatus, Timestamp, Version},
    store::{CommandCommit, DeadLetter, LogKind, NewCommand, NewOutcome, Store},
};

use super::{commands::stream, sql::Sql};

/// A dead letter of a command of this counter; nothing of it is in the store.
pub fn letter<S: Store + ?Sized>(store: &Arc<S>, counter: &str, error: Failure) -> DeadLetter {
    let stream = stream(counter);
    // The database's precision.
    let now = Timestamp::now_utc().replace_nanosecond(0).expect("a time");
    DeadLetter {
        id: DeadLetterId::generate(),
        partition: store.identity().partitions.of(&stream),
        kind: DeadLetterKind::Command,
        group: GroupName::commands(),
        key: stream.as_str().to_owned(),
        type_name: "counter.add".into(),
        command_id: CommandId::generate(),
        offset: Some(Offset(1)),
        fingerprint: fingerprint("counter.add", &error.code, &error.message),
        error,
        attempts: 1,
        died_at: now,
        state: DeadLetterState::Open,
        state_at: now,
    }
}

/// A command that is accepted and dead, and its dead letter. Nobody else accepts meanwhile.
pub async fn dead<S: Store + ?Sized>(store: &Arc<S>, sql: &Sql, command: NewCommand) -> DeadLetter {
    all_dead(store, sql, vec![command]).await.remove(0)
}

/// The same of many, at once.
pub async fn all_dead<S: Store + ?Sized>(
    store: &Arc<S>,
    sql: &Sql,
    commands: Vec<NewCommand>,
) -> Vec<DeadLetter> {
    let partitions = store.identity().partitions;
    let mut heads = store.heads().await.expect("heads").commands;
    store.accept(commands.clone()).await.expect("accept");
    let error = Failure::new("broken", "no answer");
    let (mut commit, mut letters) = (CommandCommit::default(), Vec::new());
    for command in commands {
        let partition = partitions.of(&command.stream);
        let head = &mut heads[partition.index()];
        *head = head.next();
        commit.outcomes.push(NewOutcome {
            command_id: command.id,
            partition,
            log_offset: Some(*head),
            decided_on: None,
            status: OutcomeStatus::Dead,
            events: 0,
            version: Version(0),
            reply: None,
            error: Some(error.clone()),
            attempts: 1,
            reply_to: None,
            callback: None,
        });
        let counter = command.stream.as_str().strip_prefix("counter/").expect("a counter");
        letters.push(DeadLetter {
            command_id: command.id,
            offset: Some(*head),
            type_name: command.command_type.clone(),
            fingerprint: fingerprint(&command.command_type, &error.code, &error.message),
            ..letter(store, counter, error.clone())
        });
    }
    store.commit_commands(commit).await.expect("commit");
    sql.bury(&letters).await;
    // The command worker does not execute them once more.
    for partition in partitions.all() {
        let head = store.heads().await.expect("heads").of(LogKind::Commands, partition);
        let reached = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
        let from = reached[partition.index()];
        if head > from {
            let checkpoint = adjutant::store::CheckpointMove {
                group: GroupName::commands(),
                partition,
                from,
                to: head,
            };
            let moved = CommandCommit { checkpoints: vec![checkpoint], ..CommandCommit::default() };
            store.commit_commands(moved).await.expect("move the checkpoint");
        }
    }
    letters
}
