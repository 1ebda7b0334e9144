//! Opens the accounts and funds them, before anything is measured.

use bytes::BytesMut;
use hyper::StatusCode;
use uuid::Uuid;

use super::{Connection, LoadError, Target, Workload, send};

/// How many accounts one batch opens (two commands each).
const ACCOUNTS_A_BATCH: u32 = 400;

/// Opens and funds every account; answers how many commands that took. Commands sent afterwards to
/// the same accounts run after these.
pub async fn open_accounts(target: &Target, workload: &Workload) -> Result<u64, LoadError> {
    let mut connection = Connection::new(target);
    let accounts: Vec<u32> = (0..workload.accounts()).collect();
    for some in accounts.chunks(ACCOUNTS_A_BATCH as usize) {
        let mut body = BytesMut::new();
        for planned in some.iter().flat_map(|account| workload.opening(*account)) {
            body.extend_from_slice(&planned.body);
            body.extend_from_slice(b"\n");
        }
        open(&mut connection, body.freeze()).await?;
    }
    Ok(u64::from(workload.accounts()) * 2)
}

/// Has a command accepted for every account, which opens it; answers their ids.
pub async fn accept_all(target: &Target, workload: &Workload) -> Result<Vec<Uuid>, LoadError> {
    let mut connection = Connection::new(target);
    let accounts: Vec<u32> = (0..workload.accounts()).collect();
    let mut ids = Vec::with_capacity(accounts.len());
    for some in accounts.chunks(ACCOUNTS_A_BATCH as usize) {
        let mut body = BytesMut::new();
        for account in some {
            let [open, _] = workload.opening(*account);
            ids.push(open.id);
            body.extend_from_slice(&open.body);
            body.extend_from_slice(b"\n");
        }
        self::open(&mut connection, body.freeze()).await?;
    }
    Ok(ids)
}

/// Repeats a batch until every line is accepted; a repetition does nothing twice.
async fn open(connection: &mut Connection, body: bytes::Bytes) -> Result<(), LoadError> {
    let mut pause = send::Pause::default();
    loop {
        match connection.post(&send::batch_uri(), send::NDJSON, body.clone()).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                let lines = send::line_results(&answer.body)?;
                match lines.iter().find(|line| !matches!(line.code, 200 | 202)) {
                    None => return Ok(()),
                    Some(line) if line.is_temporary() => {}
                    Some(line) => return Err(LoadError::Answer(line.in_words())),
                }
            }
            Ok(answer) if answer.is_temporary() => {}
            Ok(answer) => return Err(LoadError::Answer(answer.in_words())),
            Err(error) if pause.is_long() => return Err(error.into()),
            Err(_) => {}
        }
        pause.wait(None).await;
    }
}
