//! The AMQP headers of a message that carries log entries, out and in. What comes in is read
//! defensively: anything may publish to an exchange.

use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::{
    broker::LogHeaders,
    message::{LogId, Offset, Timestamp},
};

const LOG_ID: &str = "adjutant-log-id";
const FIRST_OFFSET: &str = "adjutant-first-offset";
const ENTRIES: &str = "adjutant-entries";
const RECORDED_AT: &str = "adjutant-recorded-at";
const FORMAT: &str = "adjutant-format";

/// The version of these headers.
const HEADER_FORMAT: i32 = 1;

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
        let micros = i64::try_from(log.recorded_at.unix_timestamp_nanos() / 1_000);
        let entries = i32::try_from(log.entries).unwrap_or(i32::MAX);
        let values = [
            (LOG_ID, AMQPValue::LongString(log.log_id.to_string().into())),
            (FIRST_OFFSET, AMQPValue::LongLongInt(log.first_offset.0)),
            (ENTRIES, AMQPValue::LongInt(entries)),
            (RECORDED_AT, AMQPValue::LongLongInt(micros.unwrap_or_default())),
            (FORMAT, AMQPValue::LongInt(HEADER_FORMAT)),
        ];
        for (name, value) in values {
            table.insert(name.into(), value);
        }
    }
    table
}

/// Reads log headers; `None` if one is missing, of another type, out of range or of a newer format.
pub(super) fn read(table: &FieldTable) -> Option<LogHeaders> {
    if integer(table, FORMAT)? != i64::from(HEADER_FORMAT) {
        return None;
    }
    let log_id: LogId = text(table, LOG_ID)?.parse().ok()?;
    let first_offset = integer(table, FIRST_OFFSET).filter(|offset| *offset >= 1)?;
    let entries = integer(table, ENTRIES).filter(|entries| *entries >= 1)?;
    let entries = u32::try_from(entries).ok()?;
    first_offset.checked_add(i64::from(entries))?;
    let nanos = i128::from(integer(table, RECORDED_AT)?) * 1_000;
    let recorded_at = Timestamp::from_unix_timestamp_nanos(nanos).ok()?;
    Some(LogHeaders { log_id, first_offset: Offset(first_offset), entries, recorded_at })
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
    match table.inner().get(name)? {
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
            entries: 3,
            recorded_at: Timestamp::from_unix_timestamp_nanos(1_700_000_000_123_456_000)
                .expect("in range"),
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
        let broken: [(&str, AMQPValue); 8] = [
            (LOG_ID, AMQPValue::LongString("no uuid".into())),
            (LOG_ID, AMQPValue::LongString(vec![0xff_u8, 0xfe].into())),
            (FIRST_OFFSET, AMQPValue::LongLongInt(0)),
            (FIRST_OFFSET, AMQPValue::LongLongInt(i64::MAX)),
            (ENTRIES, AMQPValue::LongInt(-1)),
            (ENTRIES, AMQPValue::LongString("3".into())),
            (RECORDED_AT, AMQPValue::LongLongInt(i64::MAX)),
            (FORMAT, AMQPValue::LongInt(2)),
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
