//! `members`: who runs, and what each owns.

use serde_json::Value;

use crate::{
    api::Api,
    failure::Failure,
    output::{Output, plain},
};

pub(crate) async fn run(api: &Api, output: &Output) -> Result<(), Failure> {
    let mut answer = api.get(&["members"], &[]).await?;
    let Value::Array(members) = answer["items"].take() else {
        return Err(Failure::Answer { status: 200, problem: answer });
    };
    let header = ["MEMBER", "RELEASE", "ROLES", "PARTITIONS", "STATE", "STARTED"];
    output.rows(&header, &members, |member| {
        let state = if member["draining"] == true { "draining" } else { "live" };
        vec![
            plain(&member["name"]),
            plain(&member["release"]),
            plain(&member["roles"]),
            partitions(&member["partitions"]),
            state.to_owned(),
            plain(&member["started_at"]),
        ]
    });
    Ok(())
}

/// `commands 0-3, projection.balances 0 2`.
fn partitions(by_group: &Value) -> String {
    let groups = by_group.as_object().into_iter().flatten();
    let owned = groups.filter_map(|(group, partitions)| {
        let numbers: Vec<_> = partitions.as_array()?.iter().filter_map(Value::as_i64).collect();
        (!numbers.is_empty()).then(|| format!("{group} {}", ranges(numbers)))
    });
    owned.collect::<Vec<_>>().join(", ")
}

/// `0-3 5`: consecutive numbers as one range.
fn ranges(mut numbers: Vec<i64>) -> String {
    numbers.sort_unstable();
    let runs = numbers.chunk_by(|one, next| *next == one + 1);
    let written = runs.filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    written.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_written_as_ranges() {
        let owned = serde_json::json!({
            "commands": [3, 0, 1, 2, 7], "projection.a": [], "projection.b": [4],
        });
        assert_eq!(partitions(&owned), "commands 0-3 7, projection.b 4");
        assert_eq!(partitions(&Value::Null), "");
    }
}
