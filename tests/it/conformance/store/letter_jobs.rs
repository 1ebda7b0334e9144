//! Jobs over dead letters: what they see, and who may move them.

use std::{sync::Arc, time::Duration};

use adjutant::{
    dead_letter::{DeadLetterId, DeadLetterState},
    message::{Failure, MemberId},
    store::{
        Acted, ActedBy, Cancelled, DeadLetter, DeadLetterFilter, Fence, Job, JobAction, JobFilter,
        JobMove, JobState, JobStep, NewJob, RetryRequest, Store,
    },
};

use super::{Open, Truth, letters::dead, look::assert_fenced};
use crate::support::{commands::add, letters::letter};

const SILENT: Duration = Duration::from_secs(10);

fn new_job(action: JobAction) -> NewJob {
    NewJob {
        action,
        filter: JobFilter::DeadLetters(DeadLetterFilter {
            state: Some(DeadLetterState::Open),
            ..Default::default()
        }),
        rate: 1_000,
        canary: 2,
        max_failed_share: 0.5,
        who: "ann".into(),
        reason: Some("because".into()),
    }
}

async fn some_dead(truth: &Truth, many: usize) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    for n in 0..many {
        letters.push(dead(truth, add(&format!("c{n}"), 1)).await);
    }
    letters
}

fn ids(letters: &[DeadLetter]) -> Vec<DeadLetterId> {
    letters.iter().map(|letter| letter.id).collect()
}

async fn step(
    store: &Arc<dyn Store>,
    job: &Job,
    owner: MemberId,
    letters: &[DeadLetterId],
    canary: bool,
) -> Result<Vec<Acted>, adjutant::store::StoreError> {
    let cursor = *letters.last().expect("a letter");
    let by = ActedBy {
        who: job.asked.who.clone(),
        reason: None,
        job: Some(JobStep { id: job.id, owner, cursor, canary }),
    };
    match job.asked.action {
        JobAction::Retry => {
            let requests: Vec<_> =
                letters.iter().map(|id| RetryRequest { id: *id, payload: None }).collect();
            store.retry_dead_commands(&requests, &by).await
        }
        JobAction::Discard => store.discard_dead_letters(letters, &by).await,
        JobAction::Cancel => panic!("not of dead letters"),
    }
}

pub async fn a_job_sees_the_letters_that_were_there_and_match(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let empty = store.create_job(&new_job(JobAction::Retry)).await.expect("make");
    assert_eq!((empty.total, empty.state), (0, JobState::Running));
    assert!(store.next_of_job(&empty, 10).await.expect("next").is_empty());

    let mut letters: Vec<_> = (0..10)
        .map(|n| letter(store, &format!("c{}", n % 2), Failure::new("broken", "no")))
        .collect();
    letters[3].state = DeadLetterState::Discarded;
    truth.sql.bury(&letters).await;
    let filter = DeadLetterFilter {
        state: Some(DeadLetterState::Open),
        key: Some("counter/c1".into()),
        ..Default::default()
    };
    let asked = NewJob { filter: JobFilter::DeadLetters(filter), ..new_job(JobAction::Retry) };
    let job = store.create_job(&asked).await.expect("make");
    assert_eq!((job.total, job.done, job.failed, &job.asked), (4, 0, 0, &asked));
    assert_eq!(store.job(job.id).await.expect("look").as_ref(), Some(&job));
    // Later ones: one by its id, one whose process has a slow clock by its time.
    let later = letter(store, "c1", Failure::new("broken", "no"));
    let mut slow_clock = letter(store, "c1", Failure::new("broken", "no"));
    slow_clock.id = DeadLetterId(uuid::Uuid::from_u128(letters[0].id.0.as_u128() + 1));
    slow_clock.died_at = job.created_at + time::Duration::seconds(1);
    truth.sql.bury(&[later, slow_clock]).await;
    let expected = [1, 5, 7, 9].map(|n| letters[n].id);
    assert_eq!(store.next_of_job(&job, 10).await.expect("next"), expected, "oldest first");
    assert_eq!(store.next_of_job(&job, 2).await.expect("next"), expected[..2]);
    let further = Job { cursor: Some(expected[1]), ..job.clone() };
    assert_eq!(store.next_of_job(&further, 10).await.expect("next"), expected[2..]);

    let newest = store.jobs(None, 1).await.expect("list");
    assert_eq!(newest.items, std::slice::from_ref(&job));
    let rest = store.jobs(newest.next.as_deref(), 10).await.expect("list");
    assert_eq!((rest.items.as_slice(), rest.next), (&[empty][..], None));
    assert!(store.jobs(Some("nonsense"), 10).await.is_err());
}

pub async fn a_step_moves_the_job_with_what_it_did(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let letters = some_dead(&truth, 4).await;
    let no_command = letter(store, "x", Failure::new("broken", "no"));
    truth.sql.bury(std::slice::from_ref(&no_command)).await;
    store.create_job(&new_job(JobAction::Retry)).await.expect("make");
    let owner = MemberId::generate();
    let job = store.claim_job(owner, SILENT).await.expect("claim").expect("a job");
    assert!(job.owner == Some(owner) && job.heartbeat_at.is_some() && job.needs_canary());
    // A canary that could not be sent is none.
    let acted = step(store, &job, owner, &[no_command.id], true).await.expect("step");
    assert_eq!(acted, [Acted::NothingToRetry]);
    let job = store.job(job.id).await.expect("look").expect("is there");
    assert!(job.needs_canary() && (job.done, job.failed) == (0, 1));

    let acted = step(store, &job, owner, &ids(&letters[..2]), true).await.expect("step");
    assert_eq!(acted, [Acted::Done; 2]);
    let job = store.job(job.id).await.expect("look").expect("is there");
    assert_eq!((job.total, job.done, job.failed), (5, 2, 1));
    assert_eq!(job.cursor, Some(letters[1].id));
    let canary = job.canary.as_ref().expect("a canary");
    let commands: Vec<_> =
        letters[..2].iter().map(|letter| (letter.partition, letter.command_id)).collect();
    assert_eq!((&canary.commands, canary.died_again), (&commands, None));
    assert!(canary.since >= job.created_at && !job.needs_canary());
    store.move_job(job.id, owner, &JobMove::CanaryPassed(1)).await.expect("move");
    step(store, &job, owner, &ids(&letters[2..]), false).await.expect("step");
    let note = Some("enough".to_owned());
    let end = JobMove::Ended { state: JobState::Done, note: note.clone(), died_again: None };
    store.move_job(job.id, owner, &end).await.expect("move");
    let job = store.job(job.id).await.expect("look").expect("is there");
    assert_eq!((job.state, job.note, job.done, job.owner), (JobState::Done, note, 4, None));
    assert_eq!(job.canary.and_then(|canary| canary.died_again), Some(1));
    assert!(job.finished_at.is_some());
    let found = store.dead_letter(letters[0].id).await.expect("look").expect("is there");
    assert_eq!(found.audit[0].job, Some(job.id));
    assert!(store.claim_job(owner, Duration::ZERO).await.expect("claim").is_none());

    let letters = some_dead(&truth, 2).await;
    store.create_job(&new_job(JobAction::Discard)).await.expect("make");
    let job = store.claim_job(owner, SILENT).await.expect("claim").expect("a job");
    assert_eq!((job.total, job.needs_canary()), (3, false));
    step(store, &job, owner, &ids(&letters), false).await.expect("step");
    let job = store.job(job.id).await.expect("look").expect("is there");
    assert_eq!((job.done, job.failed, job.cursor), (2, 0, Some(letters[1].id)));
}

pub async fn a_step_of_who_is_not_the_owner_does_nothing(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let letters = some_dead(&truth, 2).await;
    for action in [JobAction::Retry, JobAction::Discard] {
        store.create_job(&new_job(action)).await.expect("make");
        let owner = MemberId::generate();
        let job = store.claim_job(owner, SILENT).await.expect("claim").expect("a job");
        let stranger = MemberId::generate();
        let refused = step(store, &job, stranger, &ids(&letters), false).await;
        assert_fenced(refused, Fence::Job);
        assert_fenced(store.move_job(job.id, stranger, &JobMove::Alive).await, Fence::Job);
        let open_ones = store.next_of_job(&job, 10).await.expect("next");
        assert_eq!(open_ones, ids(&letters), "nothing was done");
        assert_eq!(store.job(job.id).await.expect("look").expect("is there").done, 0);
        store.move_job(job.id, owner, &JobMove::Alive).await.expect("the owner may");
    }
}

pub async fn a_job_whose_owner_is_silent_is_taken_up(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let letters = some_dead(&truth, 2).await;
    store.create_job(&new_job(JobAction::Retry)).await.expect("make");
    let (first, second) = (MemberId::generate(), MemberId::generate());
    let job = store.claim_job(first, SILENT).await.expect("claim").expect("a job");
    assert!(truth.other.claim_job(second, SILENT).await.expect("claim").is_none(), "it has one");
    let took = truth.other.claim_job(second, Duration::ZERO).await.expect("claim");
    assert_eq!(took.expect("the job").id, job.id);
    // The first one wakes up late.
    assert_fenced(step(store, &job, first, &ids(&letters), false).await, Fence::Job);
    step(store, &job, second, &ids(&letters), false).await.expect("step");

    // Many who look at once take each job once.
    for _ in 0..5 {
        store.create_job(&new_job(JobAction::Retry)).await.expect("make");
    }
    let looking = (0..10).map(|_| {
        let store = truth.other.clone();
        tokio::spawn(async move { store.claim_job(MemberId::generate(), SILENT).await })
    });
    let mut claimed = Vec::new();
    for claim in futures_util::future::join_all(looking).await {
        claimed.extend(claim.expect("joined").expect("claim").map(|job| job.id));
    }
    // Who finds a row locked passes it over, so that perhaps not all are taken at the first look.
    while let Some(job) = store.claim_job(second, SILENT).await.expect("claim") {
        claimed.push(job.id);
    }
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!(claimed.len(), 5);
}

pub async fn a_cancelled_job_does_nothing_more(open: Open) {
    let truth = open(8).await;
    let store = &truth.store;
    let letters = some_dead(&truth, 2).await;
    let made = store.create_job(&new_job(JobAction::Retry)).await.expect("make");
    let owner = MemberId::generate();
    let job = store.claim_job(owner, SILENT).await.expect("claim").expect("a job");
    let Some(Cancelled::Now(cancelled)) = store.cancel_job(made.id).await.expect("cancel") else {
        panic!("it ran")
    };
    assert!(cancelled.state == JobState::Cancelled && cancelled.finished_at.is_some());
    assert_fenced(step(store, &job, owner, &ids(&letters), false).await, Fence::Job);
    assert_fenced(store.move_job(job.id, owner, &JobMove::Alive).await, Fence::Job);
    assert!(store.claim_job(owner, Duration::ZERO).await.expect("claim").is_none());
    let again = store.cancel_job(made.id).await.expect("cancel");
    assert_eq!(again, Some(Cancelled::Ended(cancelled)));
    let unknown = adjutant::store::JobId::generate();
    assert_eq!(store.cancel_job(unknown).await.expect("cancel"), None);
}
