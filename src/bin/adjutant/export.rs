//! `dead-letters export`: everything about dead letters as JSON lines. What is in memory is a page of
//! ids and a few letters, however many there are.

use std::{
    io::{BufWriter, Write},
    path::Path,
};

use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use crate::{api::Api, failure::Failure, letters::Filter, output::note};

/// How many letters are asked for at a time.
const QUESTIONS: usize = 8;

pub(crate) async fn run(api: &Api, filter: &Filter, to: Option<&Path>) -> Result<(), Failure> {
    let (mut out, name): (Box<dyn Write>, String) = match to {
        Some(path) => {
            let name = path.display().to_string();
            let file = std::fs::File::create(path).map_err(Failure::io(&name))?;
            (Box::new(BufWriter::new(file)), name)
        }
        None => (Box::new(BufWriter::new(std::io::stdout())), "standard output".into()),
    };
    let mut after: Option<String> = None;
    let mut written = 0_u64;
    loop {
        let mut query = filter.pairs();
        query.push(("limit", "500".into()));
        query.extend(after.take().map(|after| ("after", after)));
        let page = api.get(&["dead-letters"], &query).await?;
        let ids: Vec<String> = ids(&page);
        let mut letters = stream::iter(&ids)
            .map(|id| async move { api.get(&["dead-letters", id], &[]).await })
            .buffered(QUESTIONS);
        while let Some(letter) = letters.next().await {
            match writeln!(out, "{}", letter?) {
                // A reader that went away (`| head`) is no failure.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                done => done.map_err(Failure::io(&name))?,
            }
            written += 1;
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    match out.flush() {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        done => done.map_err(Failure::io(&name))?,
    }
    note(&format!("{written} dead letters written to {name}"));
    Ok(())
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().into_iter().flatten();
    items.filter_map(|letter| letter["id"].as_str().map(str::to_owned)).collect()
}
