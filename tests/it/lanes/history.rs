//! Commands drawn from a seed, with a model that knows the version of each stream.

use std::collections::{BTreeMap, BTreeSet};

use adjutant::{
    message::{CommandContent, CommandId, Version},
    store::NewCommand,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{commands, domain::LIMIT};

/// How many plain commands are sent together at most.
const TOGETHER: usize = 25;

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Added,
    OverLimit,
    ExpectedVersion,
    WrongVersion,
    FailsOnce,
    Dead,
    Strict,
    StrictFailsOnce,
}

/// A command as it was drawn.
struct Drawn {
    id: CommandId,
    stream: usize,
    kind: Kind,
    amount: i64,
    version: i64,
}

/// Commands of a stream that are sent together, or one that is sent when nothing is under way.
pub enum Part {
    Together(Vec<NewCommand>),
    Alone(Box<NewCommand>),
}

pub struct History {
    streams: usize,
    drawn: Vec<Drawn>,
}

impl History {
    pub fn new(seed: u64, streams: usize, count: usize) -> Self {
        let mut random = Random(seed);
        let mut versions = vec![0_i64; streams];
        let mut drawn = Vec::with_capacity(count);
        for n in 0..count {
            let stream = random.below(streams as u64) as usize;
            let kind = match random.below(1_000) {
                0..20 => Kind::OverLimit,
                20..80 => Kind::ExpectedVersion,
                80..120 => Kind::WrongVersion,
                120..128 => Kind::FailsOnce,
                128..132 => Kind::Dead,
                132..140 => Kind::Strict,
                140..144 => Kind::StrictFailsOnce,
                _ => Kind::Added,
            };
            let version = versions[stream];
            let amount = 1 + random.below(50) as i64;
            if !matches!(kind, Kind::OverLimit | Kind::WrongVersion | Kind::Dead) {
                versions[stream] += 1;
            }
            // The same ids in both lanes: outcomes are compared by them.
            let id = CommandId(Uuid::from_u64_pair(seed, n as u64 + 1));
            drawn.push(Drawn { id, stream, kind, amount, version });
        }
        Self { streams, drawn }
    }

    /// The commands of each stream, in their order. `run` names what fails in this run.
    pub fn streams(&self, run: &str) -> Vec<Vec<Part>> {
        let mut streams: Vec<Vec<Part>> = (0..self.streams).map(|_| Vec::new()).collect();
        for drawn in &self.drawn {
            let parts = &mut streams[drawn.stream];
            let command = drawn.command(run);
            if drawn.is_alone() {
                parts.push(Part::Alone(Box::new(command)));
                continue;
            }
            match parts.last_mut() {
                Some(Part::Together(some)) if some.len() < TOGETHER => some.push(command),
                _ => parts.push(Part::Together(vec![command])),
            }
        }
        streams
    }

    /// Those that fail, or would: what they answer depends on how often they were tried.
    pub fn failing(&self) -> BTreeSet<Uuid> {
        let failing = |it: &&Drawn| matches!(it.kind, Kind::FailsOnce | Kind::StrictFailsOnce);
        self.drawn.iter().filter(failing).map(|it| it.id.0).collect()
    }

    pub fn to_text(&self) -> String {
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        for drawn in &self.drawn {
            *counts.entry(drawn.kind).or_default() += 1;
        }
        format!("{} streams, {counts:?}", self.streams)
    }
}

impl Drawn {
    /// Retried ones would be overtaken by others, and strict ones may change the lane.
    fn is_alone(&self) -> bool {
        matches!(self.kind, Kind::FailsOnce | Kind::Strict | Kind::StrictFailsOnce)
    }

    fn command(&self, run: &str) -> NewCommand {
        let counter = format!("c{:02}", self.stream);
        let flaky = |fails: u32, how: &str| json!({ "key": format!("{run} {}", self.id), "fails": fails, "how": how, "amount": self.amount });
        let add = json!({ "amount": self.amount });
        let new = |name: &str, payload: Value| commands::command(self.id, name, &counter, payload);
        match self.kind {
            Kind::Added => new("counter.add", add),
            Kind::OverLimit => new("counter.add", json!({ "amount": LIMIT + self.amount })),
            Kind::ExpectedVersion => expecting(new("counter.add", add.clone()), &add, self.version),
            Kind::WrongVersion => {
                expecting(new("counter.add", add.clone()), &add, self.version + 1)
            }
            Kind::FailsOnce => new("counter.flaky", flaky(1, "retryable")),
            Kind::Dead => new("counter.flaky", flaky(u32::MAX, "fatal")),
            Kind::Strict => new("counter.in_order", flaky(0, "retryable")),
            Kind::StrictFailsOnce => new("counter.in_order", flaky(1, "retryable")),
        }
    }
}

fn expecting(command: NewCommand, payload: &Value, version: i64) -> NewCommand {
    let expected_version = Some(Version(version));
    let content = CommandContent {
        command_type: &command.command_type,
        stream: &command.stream,
        payload,
        not_before: None,
        not_after: None,
        expected_version,
    };
    let content_hash = content.hash().expect("hash");
    NewCommand { expected_version, content_hash, ..command }
}

impl Part {
    pub fn commands(&self) -> Vec<NewCommand> {
        match self {
            Self::Together(commands) => commands.clone(),
            Self::Alone(command) => vec![(**command).clone()],
        }
    }

    pub fn ids(&self) -> Vec<CommandId> {
        self.commands().iter().map(|command| command.id).collect()
    }
}

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
