//! Embedded services: data in a directory of a test's own.

use std::path::{Path, PathBuf};

use serde_json::Value;
use uuid::Uuid;

use super::process::{Launch, program, run};

/// A directory of a test's own; gone with it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        Self(std::env::temp_dir().join(format!("adjutant-embedded-{}", Uuid::new_v4().simple())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A process that keeps its data here.
    pub fn launch(&self) -> Launch {
        Launch::new("all").set("embedded.directory", self.0.display())
    }

    /// `bank verify` of what is there.
    pub async fn verify(&self, answers: Option<&Path>) -> (i32, Value) {
        let mut command = program();
        command.args(["verify", "--json", "--sqlite"]).arg(&self.0);
        if let Some(answers) = answers {
            command.arg("--answers").arg(answers);
        }
        let output = run(command).await;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let verdict = serde_json::from_str(&printed).unwrap_or_else(|_| {
            panic!("no verdict: {printed}{}", String::from_utf8_lossy(&output.stderr))
        });
        (output.status.code().expect("an exit code"), verdict)
    }

    /// One number of what is there.
    pub fn count(&self, sql: &str) -> i64 {
        let read_only = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let file = self.0.join("adjutant.sqlite");
        let database = rusqlite::Connection::open_with_flags(file, read_only).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Changes what is there; nobody may serve it.
    pub fn run(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.0.join("adjutant.sqlite")).unwrap();
        database.execute_batch(sql).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
