//! `no_holes`: both logs of every partition count 1, 2, 3 … up to the last entry that anybody has
//! seen, streams count their versions likewise, and everything is in the partition it hashes to.

use futures_util::TryStreamExt;
use sqlx::Row;
use uuid::Uuid;
use xxhash_rust::xxh64::xxh64;

use super::{Check, damage::Damage, snapshot::Snapshot};

/// Up to this many holes are traced to the streams whose events are missing; more damage than that
/// makes the views unjudgeable.
const TRACED: usize = 1_000;

/// Consecutive offsets that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    partition: i16,
    first: i64,
    last: i64,
}

/// The last entry of a log that is there, and the last that somebody has seen.
struct End {
    partition: i16,
    present: i64,
    seen: i64,
}

pub(super) async fn check(snapshot: &mut Snapshot, damage: &mut Damage) -> sqlx::Result<Check> {
    let mut check = Check::new("no_holes");
    command_logs(snapshot, &mut check).await?;
    let holes = event_logs(snapshot, damage, &mut check).await?;
    trace(snapshot, &holes, damage).await?;
    versions(snapshot, damage, &mut check).await?;
    let partitions = snapshot.number(include_str!("queries/partitions.sql")).await?;
    places(snapshot, partitions.unsigned_abs(), damage, &mut check).await?;
    Ok(check)
}

async fn command_logs(snapshot: &mut Snapshot, check: &mut Check) -> sqlx::Result<()> {
    let mut gaps = gaps(snapshot, include_str!("queries/command_log_gaps.sql")).await?;
    let ends = ends(snapshot, include_str!("queries/command_log_ends.sql")).await?;
    gaps.extend(ends.iter().filter_map(End::missing));
    for hole in gaps {
        check.found(|| hole.in_words("command log"));
    }
    Ok(())
}

async fn event_logs(
    snapshot: &mut Snapshot,
    damage: &Damage,
    check: &mut Check,
) -> sqlx::Result<Vec<Hole>> {
    let ends = ends(snapshot, include_str!("queries/event_log_ends.sql")).await?;
    let gaps = gaps(snapshot, include_str!("queries/event_log_gaps.sql")).await?;
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

async fn gaps(snapshot: &mut Snapshot, sql: &'static str) -> sqlx::Result<Vec<Hole>> {
    let rows = snapshot.rows(sql).await?;
    let hole = |row: &sqlx::postgres::PgRow| {
        Ok(Hole {
            partition: row.try_get("partition")?,
            first: row.try_get("first_missing")?,
            last: row.try_get("last_missing")?,
        })
    };
    rows.iter().map(hole).collect()
}

async fn ends(snapshot: &mut Snapshot, sql: &'static str) -> sqlx::Result<Vec<End>> {
    let rows = snapshot.rows(sql).await?;
    let end = |row: &sqlx::postgres::PgRow| {
        Ok(End {
            partition: row.try_get("partition")?,
            present: row.try_get("present")?,
            seen: row.try_get("seen")?,
        })
    };
    rows.iter().map(end).collect()
}

/// Finds the streams whose events are missing.
async fn trace(snapshot: &mut Snapshot, holes: &[Hole], damage: &mut Damage) -> sqlx::Result<()> {
    if holes.len() > TRACED {
        damage.beyond_attribution = true;
        return Ok(());
    }
    if holes.is_empty() {
        return Ok(());
    }
    let partitions: Vec<i16> = holes.iter().map(|hole| hole.partition).collect();
    let first: Vec<i64> = holes.iter().map(|hole| hole.first).collect();
    let last: Vec<i64> = holes.iter().map(|hole| hole.last).collect();
    let streams: Vec<String> = sqlx::query_scalar(include_str!("queries/streams_of_holes.sql"))
        .bind(partitions)
        .bind(first)
        .bind(last)
        .fetch_all(&mut snapshot.main)
        .await?;
    for stream in streams {
        damage.broken_stream(stream);
    }
    Ok(())
}

async fn versions(
    snapshot: &mut Snapshot,
    damage: &mut Damage,
    check: &mut Check,
) -> sqlx::Result<()> {
    let sql = include_str!("queries/version_gaps.sql");
    let mut rows = sqlx::query(sql).fetch(&mut snapshot.main);
    while let Some(row) = rows.try_next().await? {
        let (partition, offset): (i16, i64) = (row.try_get("partition")?, row.try_get("offset")?);
        if damage.is_unvouched(partition, offset) {
            continue;
        }
        let stream: String = row.try_get("stream")?;
        let (first, last): (i64, i64) =
            (row.try_get("first_missing")?, row.try_get("last_missing")?);
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
    snapshot: &mut Snapshot,
    partitions: u64,
    damage: &Damage,
    check: &mut Check,
) -> sqlx::Result<()> {
    let mut rows =
        sqlx::query(include_str!("queries/stream_partitions.sql")).fetch(&mut snapshot.main);
    while let Some(row) = rows.try_next().await? {
        let (partition, stream): (i16, &str) = (row.try_get("partition")?, row.try_get("stream")?);
        let proper = partition_of(stream.as_bytes(), partitions);
        if i64::from(partition) != proper && !damage.has_unvouched(partition, stream) {
            check
                .found(|| format!("events of {stream} are in partition {partition}, not {proper}"));
        }
    }
    drop(rows);

    let mut rows =
        sqlx::query(include_str!("queries/command_places.sql")).fetch(&mut snapshot.main);
    while let Some(row) = rows.try_next().await? {
        let (bucket, id): (i16, Uuid) = (row.try_get("bucket")?, row.try_get("id")?);
        let (partition, stream): (i16, &str) = (row.try_get("partition")?, row.try_get("stream")?);
        let proper = partition_of(stream.as_bytes(), partitions);
        if i64::from(partition) != proper {
            check.found(|| {
                format!("command {id} for {stream} is in partition {partition}, not {proper}")
            });
        }
        let proper = partition_of(id.as_bytes(), partitions);
        if i64::from(bucket) != proper {
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
