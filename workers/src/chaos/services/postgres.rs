//! A PostgreSQL cluster in a directory of its own.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection, PgConnection};

use super::account::Account;
use crate::chaos::{
    error::ChaosError,
    ports::SomePorts,
    processes::{self, Owned},
};

/// How long it may take to start, recovery included.
const PATIENCE: Duration = Duration::from_mins(1);

/// The service's sessions; the run's own have another name.
const TERMINATE: &str = include_str!("../queries/terminate_backends.sql");

/// A cluster, and its postmaster while it runs.
pub(crate) struct Postgres {
    programs: PathBuf,
    account: Option<Account>,
    directory: PathBuf,
    port: u16,
    postmaster: Mutex<Option<Owned>>,
}

impl Postgres {
    /// Makes a cluster in this directory, which must not exist, and starts it.
    pub(crate) async fn start(
        directory: PathBuf,
        ports: &mut SomePorts,
    ) -> Result<Self, ChaosError> {
        let cluster = Self {
            programs: programs()?,
            account: Account::for_postgres()?,
            directory,
            port: ports.take()?,
            postmaster: Mutex::default(),
        };
        cluster.initialise().await?;
        cluster.launch().await?;
        let mut connection = PgConnection::connect(&cluster.url_of("postgres")).await?;
        sqlx::raw_sql("CREATE DATABASE bank").execute(&mut connection).await?;
        connection.close().await?;
        Ok(cluster)
    }

    async fn initialise(&self) -> Result<(), ChaosError> {
        let refused = || ChaosError::io(self.directory.display().to_string());
        fs::create_dir_all(&self.directory).map_err(refused())?;
        if let Some(account) = self.account {
            account.give(&self.directory)?;
        }
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(self.data());
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]);
        processes::run("initdb", initdb, PATIENCE).await?;
        let file = self.data().join("postgresql.conf");
        let mut settings = fs::read_to_string(&file).map_err(refused())?;
        settings.push_str(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n\
             max_connections = 200\nshared_buffers = 64MB\nmax_wal_size = 256MB\n",
        );
        fs::write(&file, settings).map_err(refused())
    }

    /// Starts the postmaster; returns when it answers.
    pub(crate) async fn launch(&self) -> Result<(), ChaosError> {
        let log = log_file(&self.directory.join("log"))?;
        let errors = log.try_clone().map_err(ChaosError::io("PostgreSQL's log"))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.stdout(log).stderr(errors);
        let started = Owned::start("PostgreSQL", &mut command)?;
        *self.postmaster.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
        processes::until("PostgreSQL answers", PATIENCE, async || {
            if !self.runs() {
                let words = format!("see {}", self.directory.join("log").display());
                return Err(ChaosError::Program { what: "PostgreSQL".into(), words });
            }
            Ok(PgConnection::connect(&self.url()).await.is_ok() || {
                // Before the first start there is no database `bank`.
                PgConnection::connect(&self.url_of("postgres")).await.is_ok()
            })
        })
        .await
    }

    /// What `pg_ctl stop -m immediate` does (SIGQUIT): every session breaks off, nothing is
    /// finished, the next start recovers.
    pub(crate) async fn stop_immediately(&self) -> Result<(), ChaosError> {
        let postmaster = self.postmaster.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut postmaster) = postmaster else { return Ok(()) };
        postmaster.signal("QUIT")?;
        let within = Duration::from_secs(15);
        let ended = postmaster.ends_within(within).await;
        let slow = || ChaosError::TooSlow { what: "PostgreSQL stops".into(), within };
        ended.map(drop).ok_or_else(slow)
    }

    /// Whether the postmaster runs.
    pub(crate) fn runs(&self) -> bool {
        let mut postmaster = self.postmaster.lock().unwrap_or_else(PoisonError::into_inner);
        postmaster.as_mut().is_some_and(|it| it.ended().is_none())
    }

    /// Ends every session of the service; answers how many there were.
    pub(crate) async fn terminate_backends(&self) -> Result<usize, ChaosError> {
        let mut connection = self.connect().await?;
        let ended = sqlx::query(TERMINATE).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok(ended.len())
    }

    /// A connection of the run's own, past every proxy.
    pub(crate) async fn connect(&self) -> Result<PgConnection, ChaosError> {
        Ok(PgConnection::connect(&self.url()).await?)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The database, past every proxy.
    pub(crate) fn url(&self) -> String {
        self.url_of("bank")
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A program of this release, as the right account and with nothing of ours.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env_clear().env("LC_ALL", "C.UTF-8").current_dir("/");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some(account) = self.account {
            account.runs(&mut command);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let postmaster = self.postmaster.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut postmaster) = postmaster.take() {
            // It removes its shared memory, which nobody does after a SIGKILL.
            let _ = postmaster.signal("QUIT");
            for _ in 0..100 {
                if postmaster.ended().is_some() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// A log that is appended to.
fn log_file(path: &Path) -> Result<fs::File, ChaosError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(ChaosError::io(path.display().to_string()))
}

/// The folder of the newest installed server's programs.
fn programs() -> Result<PathBuf, ChaosError> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    let installed = found.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
    };
    installed.chain(on_path).find(complete).ok_or_else(|| {
        ChaosError::Missing(
            "no PostgreSQL server is installed here: initdb and postgres were looked for in \
             /usr/lib/postgresql/*/bin and on the path (Debian: apt-get install postgresql)"
                .into(),
        )
    })
}
