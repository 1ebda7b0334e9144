//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, ConfigError, Settings};

/// The bank: Adjutant's reference service.
#[derive(Debug, Parser)]
#[command(name = "bank", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service, or some of its roles, until SIGTERM or SIGINT.
    Serve(ServeArgs),
    /// Run the database migrations that are missing.
    Migrate(ConfigArgs),
    /// After a restore from a backup, with every process stopped: give the log a new name, so that
    /// messages of the time before are never applied.
    NewLogId(ConfigArgs),
    /// Print the default configuration with its comments, or the one in effect.
    Config(ShowConfigArgs),
    /// Send commands through the service's HTTP API, show every stage, and audit the result.
    Demo(DemoArgs),
    /// Measure the service on this machine. Prints figures; asserts nothing.
    Bench(BenchArgs),
    /// Carry an embedded database over to PostgreSQL: everything, compared row by row, or nothing.
    Move(MoveArgs),
    /// Simulate whole histories in which everything goes wrong, and check the laws at their ends.
    #[cfg(feature = "simulation")]
    Simulate(SimulateArgs),
    /// Run the service on a PostgreSQL and a RabbitMQ of its own while both, the network between and
    /// its processes fail, and check what clients were told. Exit code 1: a law was broken; 3: too
    /// little happened, or the run could not be made.
    Chaos(ChaosArgs),
    /// List the places where ADJUTANT_FAILPOINT=NAME makes a process abort.
    #[cfg(feature = "failpoints")]
    Failpoints,
    /// Audit a database: outcomes, logs, views. Knows nothing of the run that filled it.
    Verify(VerifyArgs),
}

/// `bank simulate`
#[cfg(feature = "simulation")]
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    /// How many histories.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many commands clients send in each.
    #[arg(long, default_value_t = 500)]
    pub commands: usize,
    /// How many histories run at a time, each on a core of its own.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// How many of them are run once more, to see that they repeat exactly.
    #[arg(long, default_value_t = 20)]
    pub repeat: u64,
    /// Look for each planted bug instead, in at most so many histories.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "SEEDS")]
    pub planted_bugs: Option<u64>,
    /// Print every step (to standard error).
    #[arg(long)]
    pub trace: bool,
}

/// `bank chaos`
#[derive(Clone, Debug, Args)]
pub struct ChaosArgs {
    /// For how many minutes faults are brought about; 10 are enough for five of each class.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    pub minutes: f64,
    /// What faults and commands are drawn from. Processes are real: the same seed gives the same
    /// plan, not the same run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Commands a second, all clients together.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 150.0, value_parser = rate)]
    pub rate: f64,
    /// How many clients send by HTTP.
    #[arg(long, default_value_t = 16)]
    pub clients: usize,
    /// How many clients send by the queue of the AMQP intake.
    #[arg(long, default_value_t = 4)]
    pub amqp_clients: usize,
    /// How many accounts they have together.
    #[arg(long, default_value_t = 200)]
    pub accounts: usize,
    /// How many commands a minute abort the process that executes them, several times each.
    #[arg(long, value_name = "PER_MINUTE", default_value_t = 0.2, value_parser = aborts)]
    pub aborts: f64,
    /// Only this class of faults (may be repeated, or separated by commas).
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    pub fault: Vec<crate::chaos::Class>,
    /// How often, in a hundred, two faults come together.
    #[arg(long, value_name = "PERCENT", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub together: u32,
    /// How often each class must happen under load.
    #[arg(long, value_name = "TIMES", default_value_t = 5)]
    pub at_least: u64,
    /// End as soon as every class has happened that often under load.
    #[arg(long)]
    pub until_enough: bool,
    /// Where the run's directory (data of both services, logs) is made, instead of the system's
    /// folder for temporary files.
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
    /// Keep that directory; it stays anyway when a law was broken.
    #[arg(long)]
    pub keep: bool,
    /// A mistake that every process makes, which the check must find: `ack_before_commit`, say.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "BUG", value_parser = planted_bug)]
    pub planted_bug: Option<String>,
    /// Print one JSON object as the last line.
    #[arg(long)]
    pub json: bool,
}

impl ChaosArgs {
    /// The plan of the run.
    pub fn plan(&self) -> std::io::Result<crate::chaos::Plan> {
        use crate::chaos::{Class, Load, Plan};
        Ok(Plan {
            length: std::time::Duration::from_secs_f64(self.minutes * 60.0),
            seed: self.seed,
            load: Load {
                seed: self.seed,
                rate: self.rate,
                http_clients: self.clients,
                amqp_clients: self.amqp_clients,
                accounts: self.accounts,
                aborts: self.aborts,
            },
            classes: if self.fault.is_empty() { Class::all() } else { self.fault.clone() },
            together: self.together,
            needed: self.at_least,
            until_enough: self.until_enough,
            parent: self.directory.clone(),
            keep: self.keep,
            #[cfg(feature = "planted-bugs")]
            planted_bug: self.planted_bug.clone(),
            #[cfg(not(feature = "planted-bugs"))]
            planted_bug: None,
            program: std::env::current_exe()?,
        })
    }
}

/// Where settings come from, besides the environment (ADJUTANT_…).
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// A configuration file (TOML; `bank config` prints one with every setting).
    #[arg(long, value_name = "FILE", env = "ADJUTANT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where PostgreSQL is (postgres://…); also ADJUTANT_DATABASE_URL.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Where RabbitMQ is (amqp://…); also ADJUTANT_AMQP_URL.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub amqp_url: Option<String>,
    /// Logs for people (text) or for programs (json).
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Which log events: error, warn, info, debug, trace, also by module.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Any setting, by name: --set server.max_outbox_rows=50000 (may be repeated).
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `bank serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A role: ingress, relay, command-worker, projection-worker or all (may be repeated, or
    /// separated by commas).
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<String>,
    /// Where the HTTP API listens (role ingress).
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where probes and metrics are served.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `bank config`
#[derive(Debug, Args)]
pub struct ShowConfigArgs {
    /// Print the configuration in effect, passwords left out, instead of the default file.
    #[arg(long)]
    pub effective: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `bank demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many commands to send.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub commands: u64,
    /// How many accounts they go to.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub accounts: u32,
    /// Commands a second; latencies then count from the moment each was due. Without it each
    /// connection sends as soon as it has its last answer.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// What the mix of commands is drawn from: the same seed, the same commands.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many connections send.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Send batches of this many commands, instead of one command a request.
    #[arg(long, value_name = "LINES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: u32,
    /// Drive the service that runs there (http://host:port), instead of running every role here.
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// The bearer token for --api.
    #[arg(long, env = "ADJUTANT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Write what was answered to each command: NDJSON for `bank verify --answers`.
    #[arg(long, value_name = "FILE")]
    pub answers_out: Option<PathBuf>,
    /// Give up when nothing has moved for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub patience: u64,
    /// Print one JSON object as the last line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `bank bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure; without any, everything.
    #[arg(value_enum)]
    pub scenarios: Vec<Scenario>,
    /// Only the scenarios of this lane: `immediate` are those whose names begin with it.
    #[arg(long, value_enum, conflicts_with = "scenarios")]
    pub lane: Option<BenchLane>,
    /// How many commands are open at once (scenario immediate-async), one measurement each.
    #[arg(long, value_name = "COMMANDS", value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000],
          value_parser = clap::value_parser!(u32).range(1..=110_000))]
    pub open: Vec<u32>,
    /// How long each load lasts, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: u64,
    /// Send batches of this many commands where a scenario does not say otherwise.
    #[arg(long, value_name = "LINES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: u32,
    /// What the mix of commands is drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many clients wait (scenario watchers). Each needs an open file here and one in the
    /// service: `ulimit -n` must be above it.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: u32,
    /// Give up when nothing has moved for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub patience: u64,
    /// Print one JSON object as the last line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// The scenarios of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchLane {
    /// All but those of the immediate lane.
    Queued,
    /// Those of the immediate lane.
    Immediate,
}

impl BenchArgs {
    /// The scenarios that are asked for.
    pub(crate) fn wanted(&self) -> Vec<Scenario> {
        let all = Scenario::value_variants().iter().copied();
        match self.lane {
            Some(lane) => all.filter(|it| it.lane() == lane).collect(),
            None if self.scenarios.is_empty() => all.collect(),
            None => self.scenarios.clone(),
        }
    }
}

impl Scenario {
    fn lane(self) -> BenchLane {
        match self {
            Self::ImmediateAsync
            | Self::ImmediateThroughput
            | Self::ImmediateLatency
            | Self::ImmediateOneClient => BenchLane::Immediate,
            _ => BenchLane::Queued,
        }
    }
}

/// What `bank bench` can measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// Accepting: 64 connections, one command a request; only the role ingress runs.
    Intake,
    /// Accepting: batches of 500; only the role ingress runs.
    IntakeBatch,
    /// End to end at full load, with memory over time.
    Sustained,
    /// Latency at 100 commands a second.
    Latency,
    /// One account gets every command.
    HotStream,
    /// Two command workers against one.
    TwoWorkers,
    /// A transaction that has read stays open for the whole run, against none.
    PinnedSnapshot,
    /// 100,000 dead letters (5,000 for each second of `--seconds`, if that is less): pages, filters,
    /// groups, and a retry of all.
    DeadLetters,
    /// A tenth of the commands fails again and again, on streams of their own, against none that
    /// fails: how many of the others are executed. Each on a database of its own, which is made for
    /// it and dropped.
    Retrying,
    /// Clients that wait for their commands, by server-sent events and then by long-polls, at an
    /// ingress in a process of its own: memory and CPU while nothing happens, and how soon they hear.
    Watchers,
    /// The immediate lane: `--open` commands dispatched from Rust, all of them accepted before the
    /// first is let through, then all awaited; memory over time.
    ImmediateAsync,
    /// The immediate lane: 64 clients that wait for each of their commands.
    ImmediateThroughput,
    /// The immediate lane: latency at 500 commands a second.
    ImmediateLatency,
    /// The immediate lane: one client, one command at a time.
    ImmediateOneClient,
}

/// `bank move`
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The directory of the embedded database. Nothing may serve it meanwhile, nor afterwards: a file
    /// MOVED in it says where the data lives now.
    #[arg(long, value_name = "DIRECTORY", default_value = "adjutant-data")]
    pub from: PathBuf,
    /// The PostgreSQL database (postgres://…); it must hold nothing yet.
    #[arg(long, value_name = "URL", hide_env_values = true, env = "ADJUTANT_DATABASE_URL")]
    pub to: String,
}

/// `bank verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A client's record of answers (NDJSON of {"id", "code"}): each 202 must have its outcome.
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// The SQLite file of an embedded service (or its directory), instead of a PostgreSQL.
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    pub sqlite: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// The name of a bug, with underscores, as it is given to a process.
#[cfg(feature = "planted-bugs")]
fn planted_bug(text: &str) -> Result<String, String> {
    use adjutant::simulation::Bug;
    let names: Vec<String> = Bug::ALL.iter().map(|bug| bug.name().replace(' ', "_")).collect();
    let found = names.iter().find(|name| *name == text).cloned();
    found.ok_or_else(|| format!("is no planted bug: use {}", names.join(", ")))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("must be a number above 0".into()),
    }
}

fn aborts(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=60.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number from 0 to 60".into()),
    }
}

impl ConfigArgs {
    /// The flags that give another process of this program the same configuration.
    pub(crate) fn as_flags(&self) -> Vec<String> {
        let path = self.config.as_ref().map(|path| path.display().to_string());
        let values = [
            ("--config", &path),
            ("--database-url", &self.database_url),
            ("--amqp-url", &self.amqp_url),
            ("--log-format", &self.log_format),
        ];
        let mut flags = Vec::new();
        for (name, value) in values {
            flags.extend(value.iter().flat_map(|value| [name.to_owned(), value.clone()]));
        }
        flags.extend(["--log-level".into(), self.log_level.clone().unwrap_or("warn".into())]);
        flags.extend(self.set.iter().flat_map(|pair| ["--set".to_owned(), pair.clone()]));
        flags
    }

    fn flags(&self) -> Result<Settings, ConfigError> {
        let mut flags = Settings::default();
        for pair in &self.set {
            flags.set_pair(pair)?;
        }
        flags
            .set("database.url", self.database_url.as_deref())
            .set("broker.url", self.amqp_url.as_deref())
            .set("log.format", self.log_format.as_deref())
            .set("log.level", self.log_level.as_deref());
        Ok(flags)
    }

    /// The configuration, as `bank migrate` and `bank config` see it.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        config::load(&Settings::default(), self.config.as_deref(), std::env::vars(), &self.flags()?)
    }

    /// The configuration of a command that talks to a person: only warnings are logged, and ports
    /// are taken where there are some, unless somebody says otherwise.
    pub(crate) fn load_quietly(&self) -> Result<Config, ConfigError> {
        self.load_talking("warn")
    }

    /// The same for a command that makes commands fail by the thousand: that each fails is no news.
    pub(crate) fn load_for_bench(&self) -> Result<Config, ConfigError> {
        self.load_talking("warn,adjutant::execute::failing=off")
    }

    fn load_talking(&self, level: &str) -> Result<Config, ConfigError> {
        let mut base = Settings::default();
        base.set("log.level", Some(level))
            .set("server.listen", Some("127.0.0.1:0"))
            .set("admin.listen", Some("127.0.0.1:0"));
        config::load(&base, self.config.as_deref(), std::env::vars(), &self.flags()?)
    }
}

impl ServeArgs {
    /// The configuration with this command's own flags.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        let mut flags = self.config.flags()?;
        let roles = (!self.role.is_empty()).then(|| self.role.join(","));
        flags
            .set("roles", roles)
            .set("server.listen", self.listen.as_deref())
            .set("admin.listen", self.admin_listen.as_deref());
        config::load(&Settings::default(), self.config.config.as_deref(), std::env::vars(), &flags)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
