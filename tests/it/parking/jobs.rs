//! Jobs over parked keys.

use std::time::Duration;

use adjutant::{
    dead_letter::{DeadLetterId, DeadLetterState},
    ingress::IngressSettings,
    message::MemberId,
    store::{
        Acted, ActedBy, DeadLetterFilter, DeadLetters, JobAction, JobFilter, JobState, JobStep,
        Jobs, NewJob, RetryRequest,
    },
};

use super::{
    Bed,
    moody::{self, Harm, POISON},
    streams,
};
use crate::support::{eventually, http::Api};

/// A job's process dies, behind the transaction in which the job passes a key and before the key's
/// replay is asked for. Broken by not looking at what was passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_taken_up_asks_for_what_its_last_owner_left_out() {
    let bed = Bed::new().await;
    bed.moods.set("counters", Harm::Fatal);
    let process = bed.start().await;
    let counters: Vec<String> = (0..6).map(|n| format!("c{n}")).collect();
    let each = |amount: i64| counters.iter().map(|it| (it.as_str(), amount)).collect::<Vec<_>>();
    for action in [JobAction::Retry, JobAction::Discard] {
        bed.moods.set("counters", Harm::Fatal);
        bed.send(&process, &each(POISON)).await;
        bed.site.until_applied().await;
        bed.until_parked(&streams(), 6).await;
        bed.moods.heal();
        let store = &bed.site.store;
        let open =
            DeadLetterFilter { state: Some(DeadLetterState::Open), ..DeadLetterFilter::default() };
        let asked = NewJob {
            action,
            filter: JobFilter::DeadLetters(open),
            rate: 1_000,
            canary: 0,
            max_failed_share: 0.5,
            who: "ada".to_owned(),
            reason: Some("mended".to_owned()),
        };
        let made = store.create_job(&asked).await.expect("make");
        // What its owner does up to its death: a step over the first four.
        let owner = MemberId::generate();
        let job = store.claim_job(owner, Duration::ZERO).await.expect("claim").expect("the job");
        let letters = store.next_of_job(&job, 4).await.expect("next");
        let step = JobStep { id: made.id, owner, cursor: letters[3], canary: false };
        let by = ActedBy { who: "ada".to_owned(), reason: asked.reason, job: Some(step) };
        let acted = match action {
            JobAction::Retry => {
                let request = |id: &DeadLetterId| RetryRequest { id: *id, payload: None };
                let requests: Vec<_> = letters.iter().map(request).collect();
                store.retry_dead_commands(&requests, &by).await
            }
            JobAction::Discard => store.discard_dead_letters(&letters, &by).await,
            JobAction::Cancel => panic!("no action on dead letters"),
        };
        assert_eq!(acted.expect("step"), [Acted::ParkedKey; 4]);
        assert_eq!(store.job(made.id).await.expect("look").expect("is there").done, 4);

        let silent = "UPDATE adjutant.dead_letter_jobs
                         SET heartbeat_at = heartbeat_at - interval '1 minute'";
        sqlx::query(silent).execute(&bed.site.database.pool().await).await.expect("silence");
        let api = Api::start(
            moody::service(&bed.moods),
            store.clone(),
            process.signals(),
            IngressSettings::default(),
        );
        let ended = eventually("the job ends", async || {
            let job = store.job(made.id).await.ok()??;
            (job.state != JobState::Running).then_some(job)
        })
        .await;
        assert_eq!((ended.state, ended.done, ended.failed), (JobState::Done, 6, 0));
        bed.until_unparked().await;
        let by_it = "SELECT count(*) FROM adjutant.dead_letter_audit WHERE job_id = $1";
        let pool = bed.site.database.pool().await;
        let by_it = sqlx::query_scalar::<_, i64>(by_it).bind(made.id.0).fetch_one(&pool).await;
        assert_eq!(by_it.expect("count"), 6, "the audit names the job");
        drop(api);
    }
    for counter in &counters {
        assert_eq!(bed.sum("counters", counter).await, (1, POISON), "{counter}: one was discarded");
    }
    process.stop(Duration::from_secs(10)).await;
}
