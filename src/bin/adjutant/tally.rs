//! What became of the lines of a file: counted, and written down if asked for.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use serde_json::{Value, json};

use crate::{failure::Failure, lines::Line, output::note};

/// How many refusals are shown one by one.
const SHOWN: usize = 10;

/// Counts of answers and outcomes.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    pub(crate) accepted: usize,
    pub(crate) replayed: usize,
    refused: BTreeMap<String, usize>,
    outcomes: BTreeMap<String, usize>,
    results: Option<std::io::BufWriter<std::fs::File>>,
    is_json: bool,
}

impl Tally {
    pub(crate) fn new(results: Option<&Path>, is_json: bool) -> Result<Self, Failure> {
        let open = |path: &Path| {
            let file = std::fs::File::create(path);
            file.map(std::io::BufWriter::new).map_err(Failure::io(path.display().to_string()))
        };
        Ok(Self { results: results.map(open).transpose()?, is_json, ..Self::default() })
    }

    /// Counts the answer to a line: a line of the batch's answer.
    pub(crate) fn answered(&mut self, line: &Line, answer: &Value) -> Result<(), Failure> {
        self.sent += 1;
        if answer["code"] == 202 {
            let replay = answer["replay"] == true;
            *(if replay { &mut self.replayed } else { &mut self.accepted }) += 1;
        } else {
            let problem = &answer["problem"];
            let code = problem["code"].as_str().unwrap_or("unknown").to_owned();
            let shown: usize = self.refused.values().sum();
            if shown < SHOWN && !self.is_json {
                let detail = problem["detail"].as_str().unwrap_or_default();
                note(&format!("line {}: {code}: {detail}", line.number));
            }
            *self.refused.entry(code).or_default() += 1;
        }
        if let Some(results) = &mut self.results {
            let result = json!({
                "line": line.number, "id": answer["id"], "code": answer["code"],
                "problem": answer["problem"],
            });
            writeln!(results, "{result}").map_err(Failure::io("the results"))?;
        }
        Ok(())
    }

    /// Counts an outcome, or that there is none yet.
    pub(crate) fn ended(&mut self, status: &str) {
        *self.outcomes.entry(status.to_owned()).or_default() += 1;
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.values().sum()
    }

    /// How many were waited for and have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.outcomes.get("unfinished").copied().unwrap_or_default()
    }

    /// How many ended otherwise than `succeeded`.
    pub(crate) fn failed(&self) -> usize {
        let good = ["succeeded", "unfinished"];
        self.outcomes.iter().filter(|(s, _)| !good.contains(&s.as_str())).map(|(_, n)| n).sum()
    }

    /// Writes what is still to be written.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.results
            .as_mut()
            .map_or(Ok(()), std::io::Write::flush)
            .map_err(Failure::io("the results"))
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "sent": self.sent, "accepted": self.accepted, "replayed": self.replayed,
            "refused": self.refused(), "refusals": self.refused, "outcomes": self.outcomes,
        })
    }

    /// Rows of the summary: what, and how many.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let row = |what: String, count: usize| vec![what, count.to_string()];
        let mut rows = vec![
            row("sent".into(), self.sent),
            row("accepted".into(), self.accepted),
            row("accepted before".into(), self.replayed),
            row("refused".into(), self.refused()),
        ];
        rows.extend(self.refused.iter().map(|(code, n)| row(format!("  {code}"), *n)));
        rows.extend(self.outcomes.iter().map(|(status, n)| row(status.clone(), *n)));
        rows
    }
}
