//! The walk over what has not ended, and jobs that cancel what it meets.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use adjutant::{
    message::{CommandId, GroupName, Lane, MemberId, Offset},
    store::{
        CancelFilter, CancelStep, CancelledBy, CheckpointMove, CommandCommit, CommandStatus, Fence,
        HoldState, Job, JobAction, JobFilter, JobMove, JobState, Leftover, NewCommand, NewJob,
        Store, StoreError, Walk, WhenDue, Whereabouts,
    },
};

use super::{
    Open, Truth,
    cancellation::{accepted, by, cancelled, delayed, held, hold, place, retry},
    look::{self, appended, assert_fenced},
};
use crate::support::commands::{add, stream};

const SILENT: Duration = Duration::from_secs(10);

/// A walk that begins now.
async fn begin(store: &Arc<dyn Store>) -> Walk {
    let finished = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
    Walk::through(look::all(store).into_iter().zip(finished).collect())
}

/// Goes on to the end; what it meets, in order.
async fn rest(store: &Arc<dyn Store>, walk: Walk, limit: i64) -> Vec<CommandId> {
    let (mut walk, mut met) = (Some(walk), Vec::new());
    while let Some(at) = walk {
        let page = store.undecided(&at, limit).await.expect("walk");
        assert!(page.commands.len() as i64 <= limit);
        met.extend(page.commands.iter().map(|command| command.id));
        // Where it stands outlives the process.
        let kept = page.next.map(|walk| serde_json::to_string(&walk).expect("JSON"));
        walk = kept.map(|text| serde_json::from_str(&text).expect("JSON"));
    }
    met
}

/// A walk that has looked at what is held and what waits, and comes to the schedule; and what it met.
async fn up_to_the_schedule(store: &Arc<dyn Store>) -> (BTreeSet<CommandId>, Walk) {
    let (mut met, mut walk) = (BTreeSet::new(), begin(store).await);
    while walk.at != Whereabouts::Scheduled {
        let page = store.undecided(&walk, 100).await.expect("walk");
        met.extend(page.commands.iter().map(|command| command.id));
        walk = page.next.expect("it goes on");
    }
    (met, walk)
}

async fn finish(store: &Arc<dyn Store>, command: &NewCommand, to: i64) {
    let partition = place(store, command);
    let from = store.checkpoints(&GroupName::commands()).await.expect("checkpoints");
    let moved = CheckpointMove {
        group: GroupName::commands(),
        partition,
        from: from[partition.index()],
        to: Offset(to),
    };
    let commit = CommandCommit { checkpoints: vec![moved], ..CommandCommit::default() };
    store.commit_commands(commit).await.expect("move the checkpoint");
}

/// Commands in every state, one of which has ended; of the counter `a`: 1 ended, 2 is retried, 3 waits
/// behind it, 4 and 5 are in the log.
async fn some(store: &Arc<dyn Store>) -> (Vec<NewCommand>, Vec<NewCommand>) {
    let commands = accepted(store, 5).await;
    let place = place(store, &commands[0]);
    let mut ended = appended(store, "a", 1);
    ended.events[0].command_id = commands[0].id;
    ended.outcomes[0].command_id = commands[0].id;
    store.commit_commands(ended).await.expect("commit");
    let mut commit = retry(place, commands[1].id, 2, 3_600_000);
    commit.holds = vec![
        hold(place, commands[1].id, 2, HoldState::Holds),
        hold(place, commands[2].id, 3, HoldState::Waits),
    ];
    store.commit_commands(commit).await.expect("commit");
    finish(store, &commands[0], 3).await;
    let mut others = vec![delayed(store, "d").await];
    for n in 0..3 {
        others.push(held(store, &format!("h{n}")).await);
    }
    let many: Vec<_> = (0..10).map(|n| add(&format!("c{n}"), 1)).collect();
    store.accept(many.clone()).await.expect("accept");
    others.extend(many);
    (commands, others)
}

pub async fn a_walk_meets_every_command_that_has_not_ended(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    assert!(rest(store, begin(store).await, 10).await.is_empty());
    let (own, others) = some(store).await;
    let expected: BTreeSet<_> = own[1..].iter().chain(&others).map(|it| it.id).collect();
    // The walk comes twice to what is scheduled or held.
    let twice = 1 + others[..4].len();
    for limit in [1, 2, 3, 100] {
        let met = rest(store, begin(store).await, limit).await;
        assert_eq!(met.len(), expected.len() + twice, "pages of {limit}");
        assert_eq!(met.into_iter().collect::<BTreeSet<_>>(), expected, "pages of {limit}");
    }
    let first = store.undecided(&begin(store).await, 1).await.expect("walk");
    let held = &others[1..4];
    let met = &first.commands[0];
    let same = held.iter().find(|it| it.id == met.id).expect("one that is held");
    assert_eq!((&met.command_type, &met.stream), (&same.command_type, &same.stream));
    assert_eq!(met.partition, place(store, same));
    let record = store.command(met.id).await.expect("query").expect("is there");
    assert_eq!(met.accepted_at, record.accepted_at);
    // Of one partition.
    let only = begin(store).await.logs.into_iter().filter(|(it, _)| *it == place(store, &own[0]));
    let met = rest(store, Walk::through(only.collect()), 2).await;
    assert!(own[1..].iter().all(|command| met.contains(&command.id)));
    let elsewhere = others.iter().filter(|it| place(store, it) != place(store, &own[0]));
    assert!(elsewhere.into_iter().all(|command| !met.contains(&command.id)));
}

/// A command that moves while the walk goes on is met at the latest in the log.
pub async fn a_walk_misses_nothing_that_moves(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let (own, others) = some(store).await;
    let expected: BTreeSet<_> = own[1..].iter().chain(&others).map(|it| it.id).collect();
    let (mut met, mut walk) = up_to_the_schedule(store).await;
    // What is scheduled enters the log; what the log holds is tried and comes back.
    let (schedule, due) =
        (truth.sql.table("schedule"), truth.sql.time(adjutant::message::Timestamp::UNIX_EPOCH));
    truth.sql.run(format!("UPDATE {schedule} SET due_at = {due}")).await.expect("hurry");
    assert_eq!(
        store.promote_due(&look::all(store), Duration::ZERO, 100).await.expect("promote"),
        2
    );
    let page = store.undecided(&walk, 100).await.expect("walk");
    assert!(page.commands.is_empty(), "the schedule is empty");
    walk = page.next.expect("it goes on");
    let place = place(store, &own[3]);
    store.commit_commands(retry(place, own[3].id, 4, 0)).await.expect("commit");
    finish(store, &own[3], 5).await;
    met.extend(rest(store, walk, 3).await);
    assert_eq!(met, expected);
}

/// What is claimed goes from where the walk comes later to where it was before.
pub async fn a_walk_misses_nothing_that_is_claimed(open: Open) {
    let truth = open(4).await;
    let store = &truth.store;
    let (own, others) = some(store).await;
    let due = NewCommand { lane: Lane::Immediate, when_due: WhenDue::Lane, ..add("lane", 1) };
    store.accept(vec![due.clone()]).await.expect("accept");
    let mut expected: BTreeSet<_> = own[1..].iter().chain(&others).map(|it| it.id).collect();
    expected.insert(due.id);
    let (mut met, walk) = up_to_the_schedule(store).await;
    let owner = MemberId::generate();
    let claimed = store.claim_due(&look::all(store), owner, 10).await.expect("claim");
    assert_eq!(claimed.len(), 1);
    met.extend(rest(store, walk, 3).await);
    assert_eq!(met, expected);
}

fn new_job() -> NewJob {
    NewJob {
        action: JobAction::Cancel,
        filter: JobFilter::Commands(CancelFilter {
            status: Some(CommandStatus::Waiting),
            command_type: Some("counter.add".into()),
            stream: Some(stream("a")),
            accepted_before: Some(time::macros::datetime!(2100-01-01 00:00 UTC)),
            accepted_after: None,
        }),
        rate: 7,
        canary: 0,
        max_failed_share: 1.0,
        who: "ann".into(),
        reason: Some("a mistake".into()),
    }
}

async fn step(
    store: &Arc<dyn Store>,
    job: &Job,
    owner: MemberId,
    walk: Walk,
    commands: &[CommandId],
) -> Result<Vec<adjutant::store::CancelAnswer>, StoreError> {
    let job = Some(CancelStep { id: job.id, owner, walk });
    store.cancel_commands(commands, &CancelledBy { job, ..by("ann") }).await
}

async fn look_at(truth: &Truth, job: &Job) -> Job {
    truth.other.job(job.id).await.expect("look").expect("is there")
}

pub async fn a_step_of_a_walking_job_moves_it(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let commands = accepted(store, 4).await;
    let walk = begin(store).await;
    let made = store.create_walking_job(&new_job(), &walk, 2).await.expect("make");
    assert_eq!((&made.asked, made.total, made.done, made.failed), (&new_job(), 2, 0, 0));
    assert_eq!(
        (made.walk.as_ref(), made.state, made.cursor),
        (Some(&walk), JobState::Running, None)
    );
    assert!(!made.needs_canary());
    assert_eq!(look_at(&truth, &made).await, made);
    assert_eq!(store.jobs(None, 10).await.expect("list").items, std::slice::from_ref(&made));
    let owner = MemberId::generate();
    let job = store.claim_job(owner, SILENT).await.expect("claim").expect("a job");
    assert_eq!(job.id, made.id);

    let further = store.undecided(&walk, 1).await.expect("walk").next.expect("it goes on");
    assert_ne!(further, walk);
    let ids: Vec<_> = commands.iter().map(|command| command.id).collect();
    let answers = step(store, &job, owner, further.clone(), &ids[..2]).await.expect("step");
    assert_eq!(answers, [cancelled(), cancelled()]);
    let now = look_at(&truth, &job).await;
    assert_eq!((now.total, now.done, now.failed), (2, 2, 0));
    assert_eq!(now.walk.as_ref(), Some(&further));
    // The same again, as after a crash, and one more: the total grows.
    step(store, &job, owner, further.clone(), &ids[1..3]).await.expect("step");
    let now = look_at(&truth, &job).await;
    assert_eq!((now.total, now.done, now.failed), (4, 3, 1));
    // Nothing to cancel on this page.
    assert!(step(store, &job, owner, walk.clone(), &[]).await.expect("step").is_empty());
    assert_eq!(look_at(&truth, &job).await.walk.as_ref(), Some(&walk));

    let stranger = MemberId::generate();
    assert_fenced(step(store, &job, stranger, further.clone(), &ids[3..]).await, Fence::Job);
    let record = store.command(ids[3]).await.expect("query").expect("is there");
    assert_eq!(record.outcome, None, "nothing was done");
    assert_eq!(look_at(&truth, &job).await.walk.as_ref(), Some(&walk));

    store.cancel_job(job.id).await.expect("cancel").expect("is there");
    assert_fenced(step(store, &job, owner, further, &ids[3..]).await, Fence::Job);
    assert_fenced(store.move_job(job.id, owner, &JobMove::Alive).await, Fence::Job);
    let record = store.command(ids[3]).await.expect("query").expect("is there");
    assert_eq!(record.outcome, None, "nothing was done");
    assert!(store.create_job(&new_job()).await.is_err(), "it has no dead letters");
    assert!(store.next_of_job(&job, 10).await.is_err());
}

pub async fn who_cancelled_is_kept_for_as_long_as_the_audit(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let commands = accepted(store, 3).await;
    for command in &commands {
        store.cancel_commands(&[command.id], &by("ann")).await.expect("cancel");
    }
    let remove = async |age, limit| {
        let removed = store.remove_leftovers(Leftover::Cancellations, age, limit).await;
        removed.expect("remove")
    };
    assert_eq!(remove(Duration::from_hours(1), 10).await, 0);
    assert_eq!(remove(Duration::ZERO, 2).await, 2);
    assert_eq!(remove(Duration::ZERO, 2).await, 1);
}
