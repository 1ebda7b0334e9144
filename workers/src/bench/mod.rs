//! `bank bench`: a figure for every line that the project promises about speed, measured with the
//! same load as the demo, every role in this process. It prints figures beside what was promised
//! and asserts nothing about time; it does audit the database at the end.

mod dead_letters;
mod figures;
mod immediate;
mod retrying;
mod scenarios;
mod site;
mod watchers;

use clap::ValueEnum;

use crate::{
    cli::BenchArgs,
    config::{Config, ConfigError},
    database::Source,
    load::LoadError,
    run::{RunError, migrate},
    verify::{VerifyError, verify},
};
use figures::Figures;
use site::Site;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The configuration lacks something.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The service does not start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A load could not be driven to its end.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The audit could not be made.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The database does not answer.
    #[error("the database does not answer: {0}")]
    Database(#[from] sqlx::Error),
    /// A process of the service's own cannot be started.
    #[error("the ingress cannot be started: {0}")]
    Child(std::io::Error),
    /// A client that waits was not answered as it should be.
    #[error("a client that waits: {0}")]
    Waiting(String),
    /// The database of a load's own is not sound afterwards.
    #[error("the database is not sound after the load:\n{0}")]
    Unsound(String),
    /// A command that was dispatched did not go as it should.
    #[error("a command that was dispatched: {0}")]
    Dispatched(String),
    /// No role took the API's port.
    #[error("the API did not start")]
    NoIngress,
}

/// Measures, prints the figures, and answers whether the database is sound afterwards.
pub async fn run(args: &BenchArgs, config: &Config) -> Result<bool, BenchError> {
    config.require_urls()?;
    if config.database.migrate_at_start {
        // It is audited, whether a scenario uses it or has databases of its own.
        migrate(config).await?;
    }
    let site = Site { args, config };
    let mut figures = Figures::default();
    for scenario in args.wanted() {
        let name = scenario.to_possible_value();
        let name = name.as_ref().map_or("?", |value| value.get_name());
        eprintln!("measuring {name} …");
        figures.begin(name);
        scenarios::measure(scenario, &site, &mut figures).await?;
    }
    let audit = verify(&Source::postgres(config.require_database()?), None).await?;
    println!("{}", figures.to_text());
    println!("{}", audit.to_text());
    if args.json {
        println!("{}", figures.to_json(&audit.verdicts()));
    }
    Ok(audit.passed())
}
