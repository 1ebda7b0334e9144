//! Reading NDJSON and putting it into batches that the service takes.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::failure::Failure;

/// The most lines of a batch.
const MAX_LINES: usize = 1_000;
/// A batch is closed at this size; the service takes twice as much.
const CLOSE_AT_BYTES: usize = 4 << 20;
/// The longest line that the service takes.
pub(crate) const MAX_LINE_BYTES: usize = 256 << 10;

/// A line to send. It has an id, so that sending it again does nothing twice.
pub(crate) struct Line {
    /// Its number in the input, from 1.
    pub(crate) number: usize,
    /// Its id, if it is a JSON object.
    pub(crate) id: Option<Uuid>,
    /// The JSON.
    pub(crate) json: Vec<u8>,
}

/// The input, line by line. Reading blocks: there is nothing else to do meanwhile.
pub(crate) struct Lines {
    input: Box<dyn BufRead>,
    name: String,
    number: usize,
    /// How many bytes were read.
    pub(crate) bytes_read: u64,
}

impl Lines {
    /// Opens a file (`-`: standard input); also its size, if it is known.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<u64>), Failure> {
        let name = path.display().to_string();
        let (input, size): (Box<dyn BufRead>, _) = if path == Path::new("-") {
            (Box::new(std::io::stdin().lock()), None)
        } else {
            let file = std::fs::File::open(path).map_err(Failure::io(&name))?;
            let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|it| it.len());
            (Box::new(BufReader::new(file)), size)
        };
        Ok((Self { input, name, number: 0, bytes_read: 0 }, size))
    }

    /// The next lines that fit into one batch; empty at the end. Blank lines are skipped.
    pub(crate) fn batch(&mut self) -> Result<Vec<Line>, Failure> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < MAX_LINES && bytes < CLOSE_AT_BYTES {
            let mut text = Vec::new();
            let read = self.input.read_until(b'\n', &mut text);
            let read = read.map_err(Failure::io(&self.name))?;
            if read == 0 {
                break;
            }
            self.bytes_read += read as u64;
            self.number += 1;
            let text = text.trim_ascii();
            if !text.is_empty() {
                let line = Line::new(self.number, text);
                bytes += line.json.len() + 1;
                lines.push(line);
            }
        }
        Ok(lines)
    }
}

impl Line {
    /// Gives a command without an id one. What is no JSON object is left for the service to refuse.
    fn new(number: usize, text: &[u8]) -> Self {
        let as_it_is = |id| Self { number, id, json: text.to_vec() };
        let Ok(Value::Object(mut command)) = serde_json::from_slice::<Value>(text) else {
            return as_it_is(None);
        };
        match command.get("id") {
            Some(Value::Null) | None => {
                let id = Uuid::now_v7();
                command.insert("id".into(), json!(id));
                Self { number, id: Some(id), json: Value::Object(command).to_string().into_bytes() }
            }
            Some(id) => as_it_is(id.as_str().and_then(|id| id.parse().ok())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_an_id_before_it_is_sent() {
        let line = Line::new(1, br#"{"type":"a"}"#);
        let sent: Value = serde_json::from_slice(&line.json).unwrap_or_default();
        assert_eq!(sent["id"], line.id.map(|id| id.to_string()).unwrap_or_default());
        let own = br#"{ "id": "0190a0b0-0000-7000-8000-000000000001" }"#;
        let line = Line::new(1, own);
        assert_eq!((line.json.as_slice(), line.id.is_some()), (&own[..], true));
        assert!(Line::new(1, b"nonsense").id.is_none());
    }
}
