//! `projections`: how far each is, and what is parked in it.

use clap::Args;
use serde_json::Value;

use crate::{
    api::Api,
    failure::Failure,
    output::{Output, plain, table},
};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only this one, partition by partition, with its parked keys.
    name: Option<String>,
}

pub(crate) async fn run(api: &Api, output: &Output, arguments: Arguments) -> Result<(), Failure> {
    let mut answer = api.get(&["projections"], &[]).await?;
    let Value::Array(projections) = answer["items"].take() else {
        return Err(Failure::Answer { status: 200, problem: answer });
    };
    let Some(name) = arguments.name else {
        let header = ["PROJECTION", "VERSION", "STATE", "LAG", "LAG SECONDS", "PARKED"];
        output.rows(&header, &projections, summary);
        return Ok(());
    };
    let Some(projection) = projections.iter().find(|projection| projection["name"] == *name) else {
        return Err(Failure::No(format!("there is no projection `{name}`")));
    };
    output.value(projection, describe);
    Ok(())
}

fn summary(projection: &Value) -> Vec<String> {
    let partitions = || projection["partitions"].as_array().into_iter().flatten();
    let lag: i64 = partitions().filter_map(|partition| partition["lag"].as_i64()).sum();
    let seconds = partitions().filter_map(|partition| partition["lag_seconds"].as_f64());
    vec![
        plain(&projection["name"]),
        plain(&projection["version"]),
        plain(&projection["state"]),
        lag.to_string(),
        format!("{:.1}", seconds.fold(0.0, f64::max)),
        plain(&projection["parked"]["count"]),
    ]
}

fn describe(projection: &Value) -> String {
    let partitions = projection["partitions"].as_array().into_iter().flatten();
    let partitions = partitions.map(|partition| {
        let seconds = partition["lag_seconds"].as_f64().unwrap_or_default();
        vec![
            plain(&partition["partition"]),
            plain(&partition["checkpoint"]),
            plain(&partition["head"]),
            plain(&partition["lag"]),
            format!("{seconds:.1}"),
        ]
    });
    let header = ["PARTITION", "CHECKPOINT", "HEAD", "LAG", "LAG SECONDS"];
    let mut text = table(&header, partitions);
    for process in projection["suspended_in"].as_array().into_iter().flatten() {
        let (name, breaker) = (plain(&process["process"]), plain(&process["breaker"]));
        text = format!("suspended in {name}: its breaker is {breaker}\n{text}");
    }
    let keys = projection["parked"]["keys"].as_array().cloned().unwrap_or_default();
    if keys.is_empty() {
        return text;
    }
    let header = ["PARKED", "KEY", "FAILED AT", "STATE", "TRIES", "SINCE", "DEAD LETTER"];
    let rows = keys.iter().map(|key| {
        ["scope", "key", "failed_at", "state", "attempts", "parked_at", "dead_letter"]
            .map(|field| plain(&key[field]))
            .to_vec()
    });
    text = format!("{text}\n\n{}", table(&header, rows));
    let more = projection["parked"]["count"].as_i64().unwrap_or_default() - keys.len() as i64;
    if more > 0 {
        text = format!("{text}\n… and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_is_summed_up_over_its_partitions() {
        let projection = serde_json::json!({
            "name": "balances", "version": 1, "state": "suspended",
            "suspended_in": [{ "process": "host/7", "breaker": "open" }],
            "partitions": [
                { "partition": 0, "checkpoint": 5, "head": 7, "lag": 2, "lag_seconds": 0.25 },
                { "partition": 1, "checkpoint": 1, "head": 2, "lag": 1, "lag_seconds": 12.0 },
            ],
            "parked": { "count": 3, "keys": [{
                "scope": "stream", "key": "account/a", "failed_at": "0:4", "state": "waiting",
                "attempts": 3, "parked_at": "2026-01-01T00:00:00Z", "dead_letter": "0190",
            }] },
        });
        assert_eq!(summary(&projection), ["balances", "1", "suspended", "3", "12.0", "3"]);
        let text = describe(&projection);
        assert!(text.starts_with("suspended in host/7: its breaker is open\n"), "{text}");
        assert!(text.contains("account/a") && text.ends_with("… and 2 more"), "{text}");
    }
}
