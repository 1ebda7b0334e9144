//! MessagePack with field names, a format version in front, and no trailing bytes.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Batch, CommandEnvelope, EventEnvelope, WIRE_FORMAT, WireCommands, WireEvents};

/// The largest body of one message, in bytes; a batch over it is split by the writer.
pub const MAX_BATCH_BYTES: usize = 512 * 1024;

/// Why bytes are no message of ours. Trying again does not help.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value cannot be written.
    #[error("cannot encode")]
    Encode(#[from] rmp_serde::encode::Error),
    /// The bytes are damaged, cut off, or something else.
    #[error("cannot decode")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A newer release wrote them.
    #[error(
        "format {found} is newer than {WIRE_FORMAT}, the newest this release reads; upgrade it"
    )]
    FutureFormat {
        /// The format that was found.
        found: u16,
    },
    /// Bytes are left over after the value.
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
}

/// Encodes entries of a command log.
pub fn encode_commands(commands: &[CommandEnvelope]) -> Result<Vec<u8>, CodecError> {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        format: u16,
        commands: &'a [CommandEnvelope],
    }
    Ok(rmp_serde::to_vec_named(&Borrowed { format: WIRE_FORMAT, commands })?)
}

/// Encodes entries of an event log.
pub fn encode_events(events: &[EventEnvelope]) -> Result<Vec<u8>, CodecError> {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        format: u16,
        events: &'a [EventEnvelope],
    }
    Ok(rmp_serde::to_vec_named(&Borrowed { format: WIRE_FORMAT, events })?)
}

/// One body that holds what several hold, in this order; `None` if they are not all of one kind and
/// format, or if one is none of ours. The entries are copied as they are.
#[cfg(feature = "runtime")]
pub(crate) fn concatenate(bodies: &[&[u8]]) -> Option<Vec<u8>> {
    let parts = bodies.iter().map(|body| Entries::of(body)).collect::<Option<Vec<_>>>()?;
    let first = parts.first()?;
    if parts.iter().any(|part| part.head != first.head) {
        return None;
    }
    let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
    let count = parts.iter().try_fold(0_u32, |sum, part| sum.checked_add(part.count))?;
    let mut body = Vec::with_capacity(first.head.len() + 5 + bytes);
    body.extend_from_slice(first.head);
    rmp::encode::write_array_len(&mut body, count).ok()?;
    for part in parts {
        body.extend_from_slice(part.bytes);
    }
    Some(body)
}

/// A body, taken apart without a look at its entries.
#[cfg(feature = "runtime")]
struct Entries<'a> {
    /// The format, and the name of the field that holds the entries.
    head: &'a [u8],
    count: u32,
    bytes: &'a [u8],
}

#[cfg(feature = "runtime")]
impl<'a> Entries<'a> {
    /// The fields stand in the order in which they are written.
    fn of(body: &'a [u8]) -> Option<Self> {
        let mut rest = body;
        let fields = rmp::decode::read_map_len(&mut rest).ok()?;
        let (format, after) = rmp::decode::read_str_from_slice(rest).ok()?;
        rest = after;
        let _: u16 = rmp::decode::read_int(&mut rest).ok()?;
        let (_, after) = rmp::decode::read_str_from_slice(rest).ok()?;
        let head = &body[..body.len() - after.len()];
        rest = after;
        let count = rmp::decode::read_array_len(&mut rest).ok()?;
        (fields == 2 && format == "format").then_some(Self { head, count, bytes: rest })
    }
}

/// Decodes a message body of either kind.
pub fn decode_batch(bytes: &[u8], kind_is_commands: bool) -> Result<Batch, CodecError> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u16,
    }
    let FormatOnly { format } = rmp_serde::from_slice(bytes)?;
    if format > WIRE_FORMAT {
        return Err(CodecError::FutureFormat { found: format });
    }
    if kind_is_commands {
        read_all::<WireCommands>(bytes).map(|wire| Batch::Commands(wire.commands))
    } else {
        read_all::<WireEvents>(bytes).map(|wire| Batch::Events(wire.events))
    }
}

/// Reads one value and refuses anything behind it (rmp-serde alone accepts trailing bytes).
pub(crate) fn read_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut reader = std::io::Cursor::new(bytes);
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut reader))?;
    let left = bytes.len() - usize::try_from(reader.position()).unwrap_or(bytes.len());
    if left == 0 { Ok(value) } else { Err(CodecError::TrailingBytes(left)) }
}
