//! `no_holes`: both logs of every partition count 1, 2, 3 … up to the last entry that anybody has
//! seen (a command log from where retention says that it begins), streams count their versions likewise, and everything is in the partition it hashes to.

use serde_json::json;
use xxhash_rust::xxh64::xxh64;

use super::{Check, damage::Damage};
use crate::database::{Connection, DatabaseError, Parameter, Question, Row};

/// Up to this many holes are traced to the streams whose events are missing; more damage than that
/// makes the views unjudgeable.
const TRACED: usize = 1_000;

/// Consecutive offsets that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    partition: i64,
    first: i64,
    last: i64,
}

/// The last entry of a log that is there, and the last that somebody has seen.
struct End {
    partition: i64,
    present: i64,
    seen: i64,
}

pub(super) async fn check(
    database: &mut Connection,
    damage: &mut Damage,
) -> Result<Check, DatabaseError> {
    let mut check = Check::new("no_holes");
    command_logs(database, &mut check).await?;
    let holes = event_logs(database, damage, &mut check).await?;
    trace(database, &holes, damage).await?;
    versions(database, damage, &mut check).await?;
    let partitions = super::partitions(database).await?;
    places(database, partitions, damage, &mut check).await?;
    Ok(check)
}

async fn command_logs(database: &mut Connection, check: &mut Check) -> Result<(), DatabaseError> {
    let mut gaps = gaps(database, include_str!("queries/command_log_gaps.sql")).await?;
    let ends = ends(database, include_str!("queries/command_log_ends.sql")).await?;
    gaps.extend(ends.iter().filter_map(End::missing));
    for hole in gaps {
        check.found(|| hole.in_words("command log"));
    }
    Ok(())
}

async fn event_logs(
    database: &mut Connection,
    damage: &Damage,
    check: &mut Check,
) -> Result<Vec<Hole>, DatabaseError> {
    let ends = ends(database, include_str!("queries/event_log_ends.sql")).await?;
    let gaps = gaps(database, include_str!("queries/event_log_gaps.sql")).await?;
    let mut holes: Vec<Hole> = Vec::new();
    for gap in gaps {
        // In front of an event that nothing vouches for, only what others have seen must be there.
        let loose = damage.is_unvouched(gap.partition, gap.last + 1);
        let seen = ends.iter().find(|end| end.partition == gap.partition).map_or(0, |end| end.seen);
        let last = if loose { gap.last.min(seen) } else { gap.last };
        if !loose || gap.first <= last {
            holes.push(Hole { last, ..gap });
        }
    }
    holes.extend(ends.iter().filter_map(End::missing));
    for hole in &holes {
        check.found(|| hole.in_words("event log"));
    }
    Ok(holes)
}

impl End {
    fn missing(&self) -> Option<Hole> {
        (self.seen > self.present).then(|| Hole {
            partition: self.partition,
            first: self.present + 1,
            last: self.seen,
        })
    }
}

impl Hole {
    fn in_words(&self, log: &str) -> String {
        let Self { partition, first, last } = self;
        match last - first {
            ..0 => format!("{log} of partition {partition}: offset {last} is there twice"),
            0 => format!("{log} of partition {partition}: offset {first} is missing"),
            _ => format!("{log} of partition {partition}: offsets {first} to {last} are missing"),
        }
    }
}

async fn gaps(database: &mut Connection, sql: &'static str) -> Result<Vec<Hole>, DatabaseError> {
    let rows = database.all(Question::plain(sql)).await?;
    let hole = |row: &Row| {
        Ok(Hole {
            partition: row.integer("partition")?,
            first: row.integer("first_missing")?,
            last: row.integer("last_missing")?,
        })
    };
    rows.iter().map(hole).collect()
}

async fn ends(database: &mut Connection, sql: &'static str) -> Result<Vec<End>, DatabaseError> {
    let rows = database.all(Question::plain(sql)).await?;
    let end = |row: &Row| {
        Ok(End {
            partition: row.integer("partition")?,
            present: row.integer("present")?,
            seen: row.integer("seen")?,
        })
    };
    rows.iter().map(end).collect()
}

/// Finds the streams whose events are missing.
async fn trace(
    database: &mut Connection,
    holes: &[Hole],
    damage: &mut Damage,
) -> Result<(), DatabaseError> {
    if holes.len() > TRACED {
        damage.beyond_attribution = true;
        return Ok(());
    }
    if holes.is_empty() {
        return Ok(());
    }
    let holes = holes.iter().map(|hole| {
        let Hole { partition, first, last } = hole;
        json!({ "partition": partition, "first": first, "last": last })
    });
    let question = Question::by_dialect(
        include_str!("queries/streams_of_holes.sql"),
        include_str!("queries/sqlite/streams_of_holes.sql"),
    );
    let mut rows = database.ask(question.with(Parameter::Json(holes.collect())));
    while let Some(row) = rows.next().await? {
        damage.broken_stream(row.text("stream")?.to_owned());
    }
    Ok(())
}

async fn versions(
    database: &mut Connection,
    damage: &mut Damage,
    check: &mut Check,
) -> Result<(), DatabaseError> {
    let sql = include_str!("queries/version_gaps.sql");
    let mut rows = database.ask(Question::plain(sql));
    while let Some(row) = rows.next().await? {
        let (partition, offset) = (row.integer("partition")?, row.integer("offset")?);
        if damage.is_unvouched(partition, offset) {
            continue;
        }
        let stream = row.text("stream")?.to_owned();
        let (first, last) = (row.integer("first_missing")?, row.integer("last_missing")?);
        check.found(|| match last - first {
            ..0 => format!("{stream}: version {last} is there twice"),
            0 => format!("{stream}: version {first} is missing"),
            _ => format!("{stream}: versions {first} to {last} are missing"),
        });
        damage.broken_stream(stream);
    }
    Ok(())
}

/// The partition of a stream is XXH64 (seed 0) of its UTF-8 bytes, modulo the number of
/// partitions; the bucket of a command likewise of its id's 16 bytes.
fn partition_of(bytes: &[u8], partitions: u64) -> i64 {
    (xxh64(bytes, 0) % partitions.max(1)) as i64
}

async fn places(
    database: &mut Connection,
    partitions: u64,
    damage: &Damage,
    check: &mut Check,
) -> Result<(), DatabaseError> {
    let mut rows = database.ask(Question::plain(include_str!("queries/stream_partitions.sql")));
    while let Some(row) = rows.next().await? {
        let (partition, stream) = (row.integer("partition")?, row.text("stream")?);
        let proper = partition_of(stream.as_bytes(), partitions);
        if partition != proper && !damage.has_unvouched(partition, stream) {
            check
                .found(|| format!("events of {stream} are in partition {partition}, not {proper}"));
        }
    }
    drop(rows);

    let mut rows = database.ask(Question::by_dialect(
        include_str!("queries/command_places.sql"),
        include_str!("queries/sqlite/command_places.sql"),
    ));
    while let Some(row) = rows.next().await? {
        let (bucket, id) = (row.optional_integer("bucket")?, row.uuid("id")?);
        let (partition, stream) = (row.integer("partition")?, row.text("stream")?);
        let proper = partition_of(stream.as_bytes(), partitions);
        if partition != proper {
            check.found(|| {
                format!("command {id} for {stream} is in partition {partition}, not {proper}")
            });
        }
        let proper = partition_of(id.as_bytes(), partitions);
        if let Some(bucket) = bucket
            && bucket != proper
        {
            check.found(|| format!("command {id} is in bucket {bucket}, not {proper}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same golden values as in the library, computed by the xxHash project's own C code.
    #[test]
    fn the_partition_hash_never_changes() {
        assert_eq!(partition_of(b"account/acc-42", 8), 5);
        assert_eq!(partition_of(b"account/a", 8), 6);
        assert_eq!(partition_of(b"order/2026:7", 8), 2);
    }

    #[test]
    fn an_end_that_somebody_has_seen_must_be_there() {
        let end = |present, seen| End { partition: 3, present, seen }.missing();
        assert_eq!(end(10, 10), None);
        assert_eq!(end(10, 4), None);
        assert_eq!(end(9, 10), Some(Hole { partition: 3, first: 10, last: 10 }));
    }
}
