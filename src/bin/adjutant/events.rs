//! Server-sent events (WHATWG HTML, "Server-sent events"), as far as a client of ours needs them.

use reqwest::Response;

/// The longest line that is taken: a command with its reply is far shorter.
const LONGEST_LINE: usize = 16 << 20;

/// What came between two empty lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: Option<String>,
    /// When to come back, in milliseconds.
    pub(crate) retry: Option<u64>,
}

/// Why there are no further events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{0}")]
    Connection(#[from] reqwest::Error),
    #[error("a line of more than {LONGEST_LINE} bytes")]
    Line,
}

/// The events of an answer.
pub(crate) struct Events {
    response: Response,
    received: Received,
}

impl Events {
    pub(crate) fn new(response: Response) -> Self {
        Self { response, received: Received::default() }
    }

    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Broken> {
        loop {
            if let Some(event) = self.received.event() {
                return Ok(Some(event));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.received.add(&chunk)?,
                None => return Ok(None),
            }
        }
    }
}

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    /// Bytes before this one hold no line break.
    searched: usize,
    event: Event,
}

impl Received {
    fn add(&mut self, chunk: &[u8]) -> Result<(), Broken> {
        self.bytes.extend_from_slice(chunk);
        if self.bytes.len() > LONGEST_LINE { Err(Broken::Line) } else { Ok(()) }
    }

    /// The next event that is whole. The service ends its lines with LF.
    fn event(&mut self) -> Option<Event> {
        while let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=self.searched + end).collect();
            self.searched = 0;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if !line.is_empty() {
                self.take(line);
            } else if self.event != Event::default() {
                return Some(std::mem::take(&mut self.event));
            }
        }
        self.searched = self.bytes.len();
        None
    }

    fn take(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.event.id = Some(value.to_owned()),
            "retry" => self.event.retry = value.parse().ok(),
            "data" => match &mut self.event.data {
                Some(data) => data.extend(["\n", value]),
                None => self.event.data = Some(value.to_owned()),
            },
            // Comments, the event's name (there is one), and what a later service adds.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ": hello\n\nretry: 2000\nevent: status\nid: a-0\ndata: {\"ä\":1}\n\n:\n\nid: b-1\r\ndata:2\r\ndata:3\r\n\r\nid: c";
        for size in 1..text.len() {
            let (mut received, mut events) = (Received::default(), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                assert!(received.add(chunk).is_ok());
                events.extend(std::iter::from_fn(|| received.event()));
            }
            let text = |text: &str| Some(text.to_owned());
            let expected = [
                Event { id: text("a-0"), data: text("{\"ä\":1}"), retry: Some(2000) },
                Event { id: text("b-1"), data: text("2\n3"), retry: None },
            ];
            assert_eq!(events, expected, "{size}");
        }
    }
}
