//! Commands from their JSON Schema, kept if they keep their rules.

use proptest::{
    prelude::*,
    strategy::{Union, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::Value;

use super::{
    diff::fail,
    schema::values,
    wire::{nul_pointers, survives},
};
use crate::{
    domain::{Aggregate, MessageKind, MessageSet},
    message::RawJson,
};

/// Commands of all types, each as often as the others: values that fit the JSON Schema of the
/// command and keep its rules; the others are dropped.
///
/// Panics if hardly any value of some type keeps its rules. Then say in the schema what the rules
/// demand (schemars reads garde's attributes where it knows them), or bring a strategy of your own.
#[track_caller]
pub fn commands<A: Aggregate>() -> BoxedStrategy<A::Command> {
    let kinds: Vec<_> = A::Command::KINDS.iter().map(commands_of::<A>).collect();
    if kinds.is_empty() {
        fail(&format!("`{}` has no commands", A::TYPE));
    }
    let mut runner = runner_that_rejects(0, 1, 10_000);
    for (kind, strategy) in A::Command::KINDS.iter().zip(&kinds) {
        if strategy.new_tree(&mut runner).is_err() {
            fail(&format!(
                "no value generated from the JSON Schema of `{}.{}` keeps its rules{}\nsay in the \
                 schema what they demand, or use `assert_replayable_with` and a strategy of your own",
                A::TYPE,
                kind.name,
                why_not::<A>(kind, &mut runner)
            ));
        }
    }
    Union::new(kinds).boxed()
}

fn commands_of<A: Aggregate>(kind: &'static MessageKind) -> BoxedStrategy<A::Command> {
    values(&(kind.json_schema)())
        .prop_filter_map(kind.name, move |value| read::<A>(kind, &value).ok())
        .boxed()
}

/// The value as a command that the ingress accepts, or why it refuses.
fn read<A: Aggregate>(kind: &'static MessageKind, value: &Value) -> Result<A::Command, String> {
    let data = RawJson::encode(value).map_err(|error| error.to_string())?;
    let command = A::Command::decode(kind.name, kind.schema_version, &data);
    let command = command.map_err(|error| error.to_string())?;
    if let Some(pointer) = nul_pointers(&data).first() {
        return Err(format!("{pointer} holds the character U+0000"));
    }
    match command.violations().first() {
        None => Ok(command),
        Some(broken) => Err(format!("{}: {}", broken.pointer, broken.message)),
    }
}

/// An example of a value that was dropped.
fn why_not<A: Aggregate>(kind: &'static MessageKind, runner: &mut TestRunner) -> String {
    let Ok(tree) = values(&(kind.json_schema)()).new_tree(runner) else { return String::new() };
    let value = tree.current();
    match read::<A>(kind, &value) {
        Err(reason) => format!("; for example {value}: {reason}"),
        Ok(_) => String::new(),
    }
}

/// An event from its JSON Schema.
pub(super) fn sample_event<A: Aggregate>(kind: &MessageKind) -> Option<Value> {
    let strategy = values(&(kind.json_schema)());
    let mut runner = runner(0, 1);
    let mut next = || -> Option<Value> {
        let value = strategy.new_tree(&mut runner).ok()?.current();
        let data = RawJson::encode(&value).ok()?;
        let event = A::Event::decode(kind.name, kind.schema_version, &data).ok()?;
        Some(survives(A::TYPE, &event).ok()?.data.to_value())
    };
    (0..100).find_map(|_| next())
}

/// A runner that draws the same values for the same seed.
pub(super) fn runner(seed: u64, cases: u32) -> TestRunner {
    runner_that_rejects(seed, cases, 1_000_000)
}

/// `most_rejects` values may break their rules, over all cases.
fn runner_that_rejects(seed: u64, cases: u32, most_rejects: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 1024,
        max_local_rejects: most_rejects,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
