//! The same history through both lanes: the same commands in the same order per stream, once by the
//! queue and once executed where they are received. Streams, outcomes and views must be the same.

mod found;
mod history;

use std::time::Instant;

use adjutant::{ingress::Answer, message::CommandId, store::Queries};
use futures_util::future::join_all;

use crate::support::{
    eventually,
    lane::{Lane, immediate},
    process::{ALL, Site},
};
use found::Found;
use history::{History, Part};

const SEED: u64 = 7;
const COMMANDS: usize = 10_000;
const STREAMS: usize = 20;

/// How commands are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Queue,
    /// Some dispatched, some with a caller who waits.
    Immediate,
}

/// Sends a history through one lane, on a database of its own; answers what is there at the end.
async fn run(by: By, history: &History) -> Found {
    let began = Instant::now();
    let site = Site::new().await;
    let process = site.start(&ALL).await;
    let lane = Lane::of(&site, &process).await;
    let streams = history.streams(&format!("{by:?}"));
    join_all(streams.iter().map(|parts| send(by, &site, &lane, parts))).await;
    let all: Vec<_> = streams.iter().flatten().flat_map(Part::ids).collect();
    assert_eq!(all.len(), COMMANDS);
    site.until_ended(&all).await;
    site.until_applied().await;
    let found = Found::read(&site).await;
    println!("{by:?}: {COMMANDS} commands in {:.1} s", began.elapsed().as_secs_f64());
    found
}

/// Sends the commands of one stream in their order.
async fn send(by: By, site: &Site, lane: &Lane, parts: &[Part]) {
    let mut last = None;
    for (n, part) in parts.iter().enumerate() {
        // What is retried would be overtaken, in each lane by others: nobody is under way then.
        if let (Part::Alone(_), Some(last)) = (part, last) {
            until_ended(site, last).await;
        }
        let commands = part.commands();
        last = commands.last().map(|command| command.id);
        match by {
            By::Queue => accepted(lane.commit.accept_together(commands).await.expect("accepted")),
            By::Immediate if matches!(part, Part::Alone(_)) || n % 3 == 0 => {
                for executed in join_all(commands.into_iter().map(|it| lane.execute(it))).await {
                    executed.expect("accepted");
                }
            }
            By::Immediate => {
                let commands = commands.into_iter().map(immediate).collect();
                accepted(lane.processor.dispatch_together(commands).await.expect("room"));
            }
        }
        if let (Part::Alone(_), Some(last)) = (part, last) {
            until_ended(site, last).await;
        }
    }
}

fn accepted(answers: Vec<Answer>) {
    for answer in answers {
        assert!(!answer.expect("accepted").replay);
    }
}

async fn until_ended(site: &Site, id: CommandId) {
    eventually("it ends", async || {
        let record = site.store.command(id).await.ok()??;
        record.outcome.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_lanes_make_the_same_history_of_the_same_commands() {
    let history = History::new(SEED, STREAMS, COMMANDS);
    println!("{}", history.to_text());
    let queued = run(By::Queue, &history).await;
    let immediate = run(By::Immediate, &history).await;
    let logged = |found: &Found| found.command_log;
    assert!(logged(&queued) >= COMMANDS as i64, "all of them by the queue");
    assert!(logged(&immediate) < COMMANDS as i64 / 10, "{} by the queue", logged(&immediate));
    queued.assert_same(&immediate, &history.failing());
}
