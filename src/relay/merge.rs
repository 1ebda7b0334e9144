//! Rows that follow each other in one log travel as one message: a broker works by the message, and so
//! does who receives it.

use crate::{
    broker::Recorded,
    message::{Partition, Route, concatenate},
    store::OutboxRow,
};

/// The most rows of one message: what it says of each stands in its headers.
const MOST_ROWS: usize = 64;
/// The most bytes of several rows: who receives them holds as many messages as its prefetch allows.
const MOST_BYTES: usize = 64 * 1024;

/// A message: one row, or several that follow each other.
pub(super) struct Parcel {
    /// All of its rows.
    pub ids: Vec<i64>,
    /// Who recorded its entries; empty if it carries none.
    pub recorded: Vec<Recorded>,
    /// The first row, with the body of all.
    pub row: OutboxRow,
}

/// The messages of a page, in the order of their first rows.
pub(super) fn merge(rows: Vec<OutboxRow>) -> Vec<Parcel> {
    let mut heaps: Vec<Vec<OutboxRow>> = Vec::new();
    for row in rows {
        // What came last of its log and route: what follows it goes with it.
        let last = heaps.iter_mut().rev().find(|heap| is_same_way(&heap[0], &row));
        match last {
            Some(heap) if fits(heap, &row) => heap.push(row),
            _ => heaps.push(vec![row]),
        }
    }
    heaps.into_iter().flat_map(parcels).collect()
}

/// The queues that it goes to, if it carries log entries.
fn way(row: &OutboxRow) -> Option<(bool, Partition)> {
    row.first_offset?;
    match row.route {
        Route::Commands(partition) => Some((true, partition)),
        Route::Events(partition) => Some((false, partition)),
        Route::Reply { .. } | Route::IntakeDeadLetter => None,
    }
}

fn is_same_way(a: &OutboxRow, b: &OutboxRow) -> bool {
    way(a).is_some() && way(a) == way(b)
}

fn fits(heap: &[OutboxRow], row: &OutboxRow) -> bool {
    let bytes: usize = heap.iter().map(|row| row.body.len()).sum();
    let follows = heap.last().is_some_and(|last| {
        let behind = last.first_offset.map(|first| first.0 + i64::from(last.entries));
        behind == row.first_offset.map(|first| first.0)
            && (&last.content_type, &last.correlation_id, &last.headers)
                == (&row.content_type, &row.correlation_id, &row.headers)
    });
    follows && heap.len() < MOST_ROWS && bytes + row.body.len() <= MOST_BYTES
}

/// One message, or, if they cannot be put together, one for each.
fn parcels(rows: Vec<OutboxRow>) -> Vec<Parcel> {
    let bodies: Vec<&[u8]> = rows.iter().map(|row| row.body.as_slice()).collect();
    match if rows.len() == 1 { None } else { concatenate(&bodies) } {
        Some(body) => {
            let ids = rows.iter().map(|row| row.id).collect();
            let recorded = rows.iter().filter_map(recorded).collect();
            let row = rows.into_iter().next();
            row.map(|row| Parcel { ids, recorded, row: OutboxRow { body, ..row } })
                .into_iter()
                .collect()
        }
        None => rows.into_iter().map(alone).collect(),
    }
}

fn alone(row: OutboxRow) -> Parcel {
    Parcel { ids: vec![row.id], recorded: recorded(&row).into_iter().collect(), row }
}

fn recorded(row: &OutboxRow) -> Option<Recorded> {
    row.first_offset?;
    Some(Recorded { entries: u32::try_from(row.entries).unwrap_or_default(), at: row.recorded_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        Batch, CommandId, EventEnvelope, Metadata, Offset, RawJson, Timestamp, Version,
        decode_batch, encode_events,
    };

    fn event(version: i64) -> EventEnvelope {
        EventEnvelope {
            stream: "counter/a".parse().unwrap(),
            version: Version(version),
            event_type: "counter.added".into(),
            schema_version: 1,
            data: RawJson::from_trusted("{}".into()),
            command_id: CommandId::generate(),
            metadata: Metadata::default(),
        }
    }

    fn row(id: i64, partition: i16, first: i64, entries: i64) -> OutboxRow {
        let partition = Partition(partition);
        let events: Vec<_> = (first..first + entries).map(event).collect();
        OutboxRow {
            id,
            transaction: 1,
            partition,
            route: Route::Events(partition),
            first_offset: Some(Offset(first)),
            entries: i32::try_from(entries).unwrap(),
            recorded_at: Timestamp::from_unix_timestamp(id).unwrap(),
            age_ms: 0,
            correlation_id: None,
            content_type: "application/msgpack".into(),
            headers: Vec::new(),
            body: encode_events(&events).unwrap(),
        }
    }

    fn ids(parcels: &[Parcel]) -> Vec<&[i64]> {
        parcels.iter().map(|parcel| parcel.ids.as_slice()).collect()
    }

    #[test]
    fn rows_that_follow_each_other_are_one_message_that_says_what_they_said() {
        let parcels =
            merge(vec![row(1, 0, 1, 2), row(2, 1, 1, 1), row(3, 0, 3, 1), row(4, 0, 4, 20)]);
        assert_eq!(ids(&parcels), [&[1, 3, 4][..], &[2]]);
        let first = &parcels[0];
        assert_eq!((first.row.id, first.row.first_offset), (1, Some(Offset(1))));
        let said: Vec<_> =
            first.recorded.iter().map(|it| (it.entries, it.at.unix_timestamp())).collect();
        assert_eq!(said, [(2, 1), (1, 3), (20, 4)]);
        let Batch::Events(events) = decode_batch(&first.row.body, false).unwrap() else { panic!() };
        let versions: Vec<_> = events.iter().map(|event| event.version.0).collect();
        assert_eq!(versions, (1..=23).collect::<Vec<_>>());
        let Batch::Events(other) = decode_batch(&parcels[1].row.body, false).unwrap() else {
            panic!()
        };
        assert_eq!(other.len(), 1);
    }

    #[test]
    fn what_does_not_follow_goes_alone() {
        let hole = merge(vec![row(1, 0, 1, 2), row(2, 0, 4, 1), row(3, 0, 5, 1)]);
        assert_eq!(ids(&hole), [&[1][..], &[2, 3]]);
        let backwards = merge(vec![row(1, 0, 3, 2), row(2, 0, 1, 2)]);
        assert_eq!(ids(&backwards), [&[1][..], &[2]]);
        let commands = OutboxRow { route: Route::Commands(Partition(0)), ..row(2, 0, 3, 1) };
        assert_eq!(ids(&merge(vec![row(1, 0, 1, 2), commands])), [&[1][..], &[2]]);
        let reply = |id| OutboxRow {
            route: Route::Reply { queue: "q".into() },
            first_offset: None,
            entries: 0,
            ..row(id, 0, 1, 0)
        };
        let replies = merge(vec![reply(1), reply(2)]);
        assert_eq!(ids(&replies), [&[1][..], &[2]]);
        assert!(replies.iter().all(|parcel| parcel.recorded.is_empty()));
        let damaged = OutboxRow { body: b"told".to_vec(), ..row(2, 0, 3, 1) };
        assert_eq!(ids(&merge(vec![row(1, 0, 1, 2), damaged])), [&[1][..], &[2]]);
    }

    #[test]
    fn a_message_is_bounded_in_rows_and_bytes() {
        let rows: Vec<_> = (1..=150).map(|n| row(n, 0, n, 1)).collect();
        let parcels = merge(rows);
        assert_eq!(parcels.iter().map(|it| it.ids.len()).collect::<Vec<_>>(), [64, 64, 22]);
        let large = |id: i64| {
            let mut event = event(id);
            event.data = RawJson::from_trusted(format!("\"{}\"", "x".repeat(MOST_BYTES / 3)));
            OutboxRow { body: encode_events(&[event]).unwrap(), ..row(id, 0, id, 1) }
        };
        let parcels = merge((1..=5).map(large).collect());
        assert_eq!(parcels.iter().map(|it| it.ids.len()).collect::<Vec<_>>(), [2, 2, 1]);
        assert!(parcels.iter().all(|parcel| parcel.row.body.len() <= MOST_BYTES));
    }
}
