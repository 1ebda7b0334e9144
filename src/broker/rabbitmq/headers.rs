//! The AMQP headers of a message that carries log entries, out and in. What comes in is read
//! defensively: anything may publish to an exchange.

use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use crate::{
    broker::{LogHeaders, Recorded},
    message::{LogId, Offset, Timestamp},
};

const LOG_ID: &str = "adjutant-log-id";
const FIRST_OFFSET: &str = "adjutant-first-offset";
const ENTRIES: &str = "adjutant-entries";
const RECORDED_AT: &str = "adjutant-recorded-at";
const FORMAT: &str = "adjutant-format";

/// The versions of these headers: 1 if one transaction recorded all entries; 2 if several did, and
/// `adjutant-recorded-at` is a list: for each of them how many entries, and when.
const ONE: i64 = 1;
const SEVERAL: i64 = 2;

/// The most transactions that one message may name.
const MOST_RECORDED: usize = 1_024;

/// Writes log headers and further ones. A further header whose name AMQP cannot express
/// (over 255 bytes) is left out.
pub(super) fn write(log: Option<&LogHeaders>, further: &[(String, String)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in further {
        if let Ok(name) = ShortString::try_new(name.as_str()) {
            table.insert(name, AMQPValue::LongString(value.as_str().into()));
        }
    }
    if let Some(log) = log {
        let (format, recorded_at) = match log.recorded.as_slice() {
            [one] => (ONE, micros(one.at)),
            several => {
                let each = |it: &Recorded| [number(it.entries), micros(it.at)];
                let list: Vec<_> = several.iter().flat_map(each).collect();
                (SEVERAL, AMQPValue::FieldArray(FieldArray::from(list)))
            }
        };
        let entries = i32::try_from(log.entries()).unwrap_or(i32::MAX);
        let values = [
            (LOG_ID, AMQPValue::LongString(log.log_id.to_string().into())),
            (FIRST_OFFSET, AMQPValue::LongLongInt(log.first_offset.0)),
            (ENTRIES, AMQPValue::LongInt(entries)),
            (RECORDED_AT, recorded_at),
            (FORMAT, AMQPValue::LongInt(format as i32)),
        ];
        for (name, value) in values {
            table.insert(name.into(), value);
        }
    }
    table
}

/// Reads log headers; `None` if one is missing, of another type, out of range or of a newer format.
pub(super) fn read(table: &FieldTable) -> Option<LogHeaders> {
    let recorded = match integer(table, FORMAT)? {
        ONE => {
            let entries = u32::try_from(integer(table, ENTRIES)?).ok()?;
            vec![Recorded { entries, at: time(table.inner().get(RECORDED_AT)?)? }]
        }
        SEVERAL => several(table)?,
        _ => return None,
    };
    let log_id: LogId = text(table, LOG_ID)?.parse().ok()?;
    let first_offset = integer(table, FIRST_OFFSET).filter(|offset| *offset >= 1)?;
    let log = LogHeaders { log_id, first_offset: Offset(first_offset), recorded };
    let entries = i64::try_from(log.entries()).ok()?;
    first_offset.checked_add(entries)?;
    let is_whole = log.recorded.iter().all(|recorded| recorded.entries >= 1);
    (is_whole && entries == integer(table, ENTRIES)?).then_some(log)
}

fn several(table: &FieldTable) -> Option<Vec<Recorded>> {
    let AMQPValue::FieldArray(list) = table.inner().get(RECORDED_AT)? else { return None };
    let list = list.as_slice();
    if list.is_empty() || list.len() % 2 != 0 || list.len() > 2 * MOST_RECORDED {
        return None;
    }
    let one = |pair: &[AMQPValue]| {
        let entries = u32::try_from(whole(&pair[0])?).ok()?;
        Some(Recorded { entries, at: time(&pair[1])? })
    };
    list.chunks_exact(2).map(one).collect()
}

/// Microseconds since 1970.
fn micros(at: Timestamp) -> AMQPValue {
    let micros = i64::try_from(at.unix_timestamp_nanos() / 1_000);
    AMQPValue::LongLongInt(micros.unwrap_or_default())
}

fn number(entries: u32) -> AMQPValue {
    AMQPValue::LongLongInt(entries.into())
}

fn time(micros: &AMQPValue) -> Option<Timestamp> {
    Timestamp::from_unix_timestamp_nanos(i128::from(whole(micros)?) * 1_000).ok()
}

/// A header as text, whichever of AMQP's strings it is.
pub(super) fn text(table: &FieldTable, name: &str) -> Option<String> {
    match table.inner().get(name)? {
        AMQPValue::LongString(value) => String::from_utf8(value.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A header as a number, whichever of AMQP's integers it is: clients differ in what they choose.
pub(super) fn integer(table: &FieldTable, name: &str) -> Option<i64> {
    whole(table.inner().get(name)?)
}

fn whole(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(value) => Some((*value).into()),
        AMQPValue::ShortShortUInt(value) => Some((*value).into()),
        AMQPValue::ShortInt(value) => Some((*value).into()),
        AMQPValue::ShortUInt(value) => Some((*value).into()),
        AMQPValue::LongInt(value) => Some((*value).into()),
        AMQPValue::LongUInt(value) => Some((*value).into()),
        AMQPValue::LongLongInt(value) => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> LogHeaders {
        LogHeaders {
            log_id: LogId::generate(),
            first_offset: Offset(42),
            recorded: vec![Recorded { entries: 3, at: at(0) }],
        }
    }

    fn at(seconds: i64) -> Timestamp {
        let nanos = 1_700_000_000_123_456_000 + i128::from(seconds) * 1_000_000_000;
        Timestamp::from_unix_timestamp_nanos(nanos).expect("in range")
    }

    fn of_several() -> LogHeaders {
        let recorded = [(3, at(0)), (1, at(1)), (2, at(0))];
        let recorded = recorded.map(|(entries, at)| Recorded { entries, at });
        LogHeaders { recorded: recorded.into(), ..headers() }
    }

    #[test]
    fn headers_of_several_transactions_survive_the_road() {
        let sent = of_several();
        let found = read(&write(Some(&sent), &[])).expect("headers");
        assert_eq!(found, sent);
        assert_eq!(found.entries(), 6);
        let expected = [at(0), at(0), at(0), at(1), at(0), at(0)];
        assert_eq!(found.recorded_at().collect::<Vec<_>>(), expected);
    }

    /// Golden: what is in queues when a release is replaced is read by the next one.
    #[test]
    fn the_headers_on_the_road_never_change() {
        let long = AMQPValue::LongLongInt;
        let sent = |log: &LogHeaders| {
            let table = write(Some(log), &[]);
            let value = |name: &str| table.inner().get(name).cloned();
            [FIRST_OFFSET, ENTRIES, RECORDED_AT, FORMAT].map(|name| value(name).expect(name))
        };
        assert_eq!(
            sent(&headers()),
            [long(42), AMQPValue::LongInt(3), long(1_700_000_000_123_456), AMQPValue::LongInt(1)]
        );
        let list = [3, 1_700_000_000_123_456, 1, 1_700_000_001_123_456, 2, 1_700_000_000_123_456];
        let list = FieldArray::from(list.map(long).to_vec());
        assert_eq!(
            sent(&of_several()),
            [long(42), AMQPValue::LongInt(6), AMQPValue::FieldArray(list), AMQPValue::LongInt(2)]
        );
    }

    #[test]
    fn a_malformed_list_of_transactions_is_no_log_message() {
        let list = |values: &[i64]| {
            let values: Vec<_> = values.iter().map(|it| AMQPValue::LongLongInt(*it)).collect();
            AMQPValue::FieldArray(FieldArray::from(values))
        };
        let many: Vec<i64> = std::iter::repeat_n(1, 2 * MOST_RECORDED + 2).collect();
        let broken = [
            AMQPValue::LongLongInt(1_700_000_000_123_456),
            list(&[]),
            list(&[6]),
            list(&[6, 1, 1]),
            list(&[5, 1]),
            list(&[6, i64::MAX]),
            list(&[6, 1, 0, 1]),
            list(&[-1, 1, 7, 1]),
            list(&[i64::from(u32::MAX) + 7, 1]),
            list(&many),
            AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::LongString("6".into()); 2])),
        ];
        for value in broken {
            let mut table = write(Some(&of_several()), &[]);
            table.insert(RECORDED_AT.into(), value.clone());
            assert_eq!(read(&table), None, "{value:?}");
        }
    }

    #[test]
    fn headers_survive_the_road() {
        let sent = headers();
        let table = write(Some(&sent), &[("reason".to_owned(), "x".to_owned())]);
        assert_eq!(read(&table), Some(sent));
        assert_eq!(text(&table, "reason").as_deref(), Some("x"));
    }

    #[test]
    fn anything_malformed_is_no_log_message() {
        let broken: [(&str, AMQPValue); 10] = [
            (LOG_ID, AMQPValue::LongString("no uuid".into())),
            (LOG_ID, AMQPValue::LongString(vec![0xff_u8, 0xfe].into())),
            (FIRST_OFFSET, AMQPValue::LongLongInt(0)),
            (FIRST_OFFSET, AMQPValue::LongLongInt(i64::MAX)),
            (ENTRIES, AMQPValue::LongInt(-1)),
            (ENTRIES, AMQPValue::LongString("3".into())),
            (RECORDED_AT, AMQPValue::LongLongInt(i64::MAX)),
            (FORMAT, AMQPValue::LongInt(2)),
            (FORMAT, AMQPValue::LongInt(3)),
            (ENTRIES, AMQPValue::LongInt(0)),
        ];
        for (name, value) in broken {
            let mut table = write(Some(&headers()), &[]);
            table.insert(name.into(), value.clone());
            assert_eq!(read(&table), None, "{name} = {value:?}");
        }
        for missing in [LOG_ID, FIRST_OFFSET, ENTRIES, RECORDED_AT, FORMAT] {
            let mut table = write(Some(&headers()), &[]).inner().clone();
            table.remove(missing);
            assert_eq!(read(&FieldTable::from(table)), None, "{missing} missing");
        }
    }
}
