//! `bank chaos`: the service as processes, on a PostgreSQL and a RabbitMQ of the run's own, under
//! load, while faults are drawn from a seed. Afterwards, what clients were told is checked against
//! the database.
//!
//! The seed decides what is sent and which faults come in which order, to whom and for how long.
//! Real processes make the rest vary; what a run finds, another of the same seed may not.
//!
//! Everything that a run starts ends with it, also when it is interrupted or panics: processes are
//! killed by their ids when their owners are dropped.

/// Reads a struct from a row whose columns have the names of its fields.
macro_rules! from_row {
    ($row:ident { $($field:ident),+ }) => {
        impl sqlx::FromRow<'_, sqlx::postgres::PgRow> for $row {
            fn from_row(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                let column = |name: &'static str| name.trim_start_matches("r#");
                Ok(Self { $($field: row.try_get(column(stringify!($field)))?),+ })
            }
        }
    };
}

mod check;
mod class;
mod clients;
mod clock;
mod directory;
mod error;
mod faults;
mod fleet;
mod log;
mod ports;
mod processes;
mod proxy;
mod random;
mod recovery;
mod report;
mod schedule;
mod services;
mod settle;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use adjutant::message::PartitionCount;
use futures_util::future::{join_all, try_join};

pub use check::{Checked, Counts, LaneCounts, Violations};
pub use class::{Class, Trouble, UnknownClass};
pub use clients::Load;
pub use error::ChaosError;
pub use recovery::Recovery;
pub use report::{Happened, Report, Verdict};

use clients::{Clients, People};
use clock::ClockLibrary;
use directory::Directory;
use faults::{Site, Struck};
use fleet::{Fleet, Launch};
use log::Log;
use ports::Ports;
use random::Draw;
use recovery::Probes;
use schedule::{Drawn, Schedule};
use services::{Postgres, Rabbit};

/// What the names of the broker's exchanges and queues start with: the default.
const PREFIX: &str = "adjutant";
/// The queue of the AMQP intake.
const INTAKE: &str = "adjutant.intake";

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For how long faults are brought about.
    pub length: Duration,
    /// What everything is drawn from.
    pub seed: u64,
    /// The load.
    pub load: Load,
    /// The classes of faults.
    pub classes: Vec<Class>,
    /// How often, in a hundred, two faults come together.
    pub together: u32,
    /// How often each class must happen under load.
    pub needed: u64,
    /// Whether the run ends as soon as they have.
    pub until_enough: bool,
    /// Where the run's directory is made; `None`: the system's folder for temporary files.
    pub parent: Option<PathBuf>,
    /// Whether the directory stays in any case; it does when there are violations.
    pub keep: bool,
    /// A mistake that every process makes (feature `planted-bugs`).
    pub planted_bug: Option<String>,
    /// The program whose roles are run.
    pub program: PathBuf,
}

/// Runs it.
pub async fn run(plan: &Plan) -> Result<Report, ChaosError> {
    let mut directory = Directory::create(plan.parent.as_deref())?;
    eprintln!("seed {}; everything is in {}", plan.seed, directory.path().display());
    let run = run_in(plan, &directory).await;
    let is_clean = run.as_ref().is_ok_and(|report| report.verdict() != Verdict::Violated);
    if plan.keep || !is_clean {
        directory.keep();
        eprintln!("logs and data stay in {}", directory.path().display());
    }
    run
}

async fn run_in(plan: &Plan, directory: &Directory) -> Result<Report, ChaosError> {
    let path = directory.path();
    let mut ports = Ports::new();
    // Ports are handed out before both start at the same time.
    let (mut for_postgres, mut for_rabbit) = (ports.some(1)?, ports.some(3)?);
    let (postgres, rabbit) = try_join(
        Postgres::start(path.join("postgres"), &mut for_postgres),
        Rabbit::start(path.join("rabbitmq"), &mut for_rabbit),
    )
    .await?;
    let partitions = PartitionCount::new(fleet::PARTITIONS)
        .map_err(|error| ChaosError::Missing(error.to_string()))?;
    adjutant::store::postgres::migrate(&postgres.url(), Some(partitions)).await?;
    let clocks = clocks(plan, directory).await;
    let launch = Launch {
        program: plan.program.clone(),
        directory: path.to_owned(),
        planted_bug: plan.planted_bug.clone(),
    };
    let fleet = Fleet::start(&launch, &mut ports, &postgres, &rabbit, clocks.as_ref()).await?;
    let log = Arc::new(Log::create(&path.join("clients.ndjson"))?);
    let site = Site { postgres: &postgres, rabbit: &rabbit, fleet: &fleet };
    let run = Run { plan, site, log };
    let UnderLoad { lasted, faults, failed, unsettled } = tokio::select! {
        biased;
        never = fleet.tend() => match never {},
        done = run.under_load() => done?,
    };
    let complaints = fleet.stop().await;
    let (entries, seen) = run.log.finish()?;
    eprintln!("[{:6.1} s] checking {} commands", run.seconds(), entries.len());
    let (wishes, deaths) = (run.log.wishes(), fleet.deaths());
    let mut checked = check::check(&entries, &wishes, deaths.len(), &postgres, &rabbit).await?;
    for (kind, all) in [
        ("does not settle", unsettled.into_iter().collect()),
        ("does not stop in order", complaints),
        ("a client saw", seen),
    ] {
        checked.violations.found_many(kind, all.len() as u64, &all);
    }
    Ok(Report {
        seed: plan.seed,
        lasted,
        classes: plan.classes.clone(),
        needed: plan.needed,
        faults,
        failed,
        deaths,
        lookups: run.log.lookups(),
        checked,
    })
}

/// Without a C compiler no clock can jump; the class then fails each time, aloud.
async fn clocks(plan: &Plan, directory: &Directory) -> Option<ClockLibrary> {
    if !plan.classes.contains(&Class::ClockJump) {
        return None;
    }
    match ClockLibrary::compile(directory.path()).await {
        Ok(library) => Some(library),
        Err(error) => {
            eprintln!("WARNING: no clock can jump, and the run cannot pass: {error}");
            None
        }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    site: Site<'a>,
    log: Arc<Log>,
}

/// Faults that happened, those that could not be brought about, and what did not settle.
struct UnderLoad {
    lasted: Duration,
    faults: Vec<Happened>,
    failed: Vec<String>,
    unsettled: Option<String>,
}

impl Run<'_> {
    fn seconds(&self) -> f64 {
        self.log.elapsed().as_secs_f64()
    }

    /// From the first command until everything that was accepted has ended.
    async fn under_load(&self) -> Result<UnderLoad, ChaosError> {
        let (plan, apis) = (self.plan, self.site.fleet.apis());
        let probes = Probes::open(apis.clone(), self.log.clone(), plan.seed).await?;
        let clients = Clients::start(plan.load, &apis, &self.site.rabbit.url(), &self.log)?;
        let people = People::start(plan.seed, &apis, &self.log)?;
        let (mut happened, mut failed) = (Vec::new(), Vec::new());
        let mut schedule = Schedule::new(plan.seed, plan.classes.clone(), plan.together);
        let mut pauses = Draw::of(plan.seed, "pauses", 0);
        let began = Instant::now();
        loop {
            tokio::time::sleep(pauses.millis(150..500)).await;
            let is_enough = plan.until_enough
                && report::lacking(&plan.classes, &happened, plan.needed).is_empty();
            if is_enough || began.elapsed() >= plan.length {
                break;
            }
            // How much of the time has passed, and how much of what is needed has happened.
            let needed = plan.needed * plan.classes.len() as u64;
            let share = began.elapsed().as_secs_f64() / plan.length.as_secs_f64();
            let is_late = (happened.len() as f64) < share * needed as f64;
            let drawn = schedule.next(is_late);
            if drawn.is_empty() {
                tokio::time::sleep(plan.length.saturating_sub(began.elapsed())).await;
                continue;
            }
            self.strike(drawn, &probes, &mut happened, &mut failed).await?;
        }
        let lasted = began.elapsed();
        self.site.heal().await?;
        if plan.classes.contains(&Class::QueueUnbinding) {
            faults::unbound_to_the_end(&self.site.rabbit.url(), clients.stop()).await?;
        } else {
            clients.stop().await?;
        }
        eprintln!("[{:6.1} s] all is healed, and clients have stopped", self.seconds());
        people.come_to_an_end();
        let unsettled = settle::settle(self.site.postgres, self.site.rabbit).await?;
        people.stop().await?;
        Ok(UnderLoad { lasted, faults: happened, failed, unsettled })
    }

    /// Brings about one fault, or two together, and measures how long it takes to get over it.
    async fn strike(
        &self,
        drawn: Vec<Drawn>,
        probes: &Probes,
        happened: &mut Vec<Happened>,
        failed: &mut Vec<String>,
    ) -> Result<(), ChaosError> {
        let is_alone = drawn.len() == 1;
        let struck = join_all(drawn.into_iter().enumerate().map(async |(place, drawn)| {
            // The second comes while the first is there.
            tokio::time::sleep(Duration::from_millis(300) * u32::from(place > 0)).await;
            let (class, before) = (drawn.class, self.log.accepted());
            let struck = self.site.strike(drawn).await;
            (class, struck, self.log.accepted() - before)
        }))
        .await;
        let mut all_well = true;
        let mut good = Vec::new();
        for (class, struck, accepted) in struck {
            match struck {
                Ok(struck) => good.push((struck, accepted)),
                Err(error) => {
                    let words = format!("{class}: {error}");
                    eprintln!("[{:6.1} s] {words}", self.seconds());
                    failed.push(words);
                    all_well = false;
                }
            }
        }
        if !all_well {
            self.site.heal().await?;
        }
        let recovery = probes.measure().await?;
        for (struck, accepted) in good {
            self.tell(&struck, accepted, recovery, is_alone);
            let recovery = is_alone.then_some(recovery);
            happened.push(Happened { class: struck.class, accepted, recovery });
        }
        Ok(())
    }

    fn tell(&self, struck: &Struck, accepted: u64, recovery: Recovery, is_alone: bool) {
        let seconds = |time: Option<Duration>| {
            time.map_or("never".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        eprintln!(
            "[{:6.1} s] {}{}: {}; lasted {:.1} s, {accepted} accepted meanwhile; \
             first ended after {}, every partition {}, in the view {}",
            self.seconds(),
            if is_alone { "" } else { "together: " },
            struck.class,
            struck.what,
            (struck.healed - struck.began).as_secs_f64(),
            seconds(recovery.first),
            seconds(recovery.every),
            seconds(recovery.visible),
        );
    }
}
