//! `bank demo`: the main path, seen at work and audited.

mod report;
mod stages;

use std::{sync::Arc, time::Duration};

use crate::{
    cli::DemoArgs,
    config::{Config, ConfigError, Place},
    load::{
        AnswersFile, ClientError, Connection, Followers, LoadError, Measurement, Plan, Target,
        Until, WaitFor, Watch, Workload, measure, open_accounts,
    },
    run::{RunError, Running, start_roles},
    verify::{VerifyError, verify},
};
use report::DemoReport;
use stages::StageBars;

/// How many commands are followed at a time.
const FOLLOWED: u32 = 32;
/// How long the API may take to answer for the first time.
const START: Duration = Duration::from_mins(1);

/// Why a demo has no result.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The configuration lacks something.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The service does not start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The load could not be driven to its end.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The audit could not be made.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The roles were started without an API.
    #[error("the role ingress is needed to send commands to; roles are {0}")]
    NoIngress(String),
}

impl DemoError {
    /// Whether it was asked for wrongly.
    pub fn is_misuse(&self) -> bool {
        match self {
            Self::Config(_) | Self::NoIngress(_) | Self::Load(LoadError::Address(_)) => true,
            Self::Run(error) => error.is_misuse(),
            _ => false,
        }
    }
}

/// Runs the demo and prints its report; answers whether everything went well.
pub async fn run(args: &DemoArgs, config: &Config) -> Result<bool, DemoError> {
    let database = &config.database();
    let (service, target) = reach(args, config).await?;
    let workload = Workload::new(args.seed, args.accounts);
    let patience = Duration::from_secs(args.patience);

    eprintln!("opening {} accounts …", args.accounts);
    open_accounts(&target, &workload).await?;
    Watch::new(database, patience).until(WaitFor::Visible, || true, |_| {}).await?;

    let answers = args.answers_out.as_deref().map(AnswersFile::create).transpose()?.map(Arc::new);
    let plan = Plan {
        target: target.clone(),
        workload,
        until: Until::Commands(args.commands),
        connections: args.connections,
        batch: args.batch,
        wait: None,
        rate: args.rate,
        max_unfinished: None,
        followers: Some(Followers::new(&target, FOLLOWED)),
        answers: answers.clone(),
    };
    let bars = StageBars::new(args.commands);
    let amqp_url = config.broker.url.expose();
    let measurement =
        Measurement { plan, database, amqp_url, wait_for: WaitFor::Visible, patience };
    let measured = measure(measurement, |stages| bars.show(stages)).await?;
    bars.finish();
    if let Some(answers) = &answers {
        answers.finish()?;
    }

    let audit = verify(database, args.answers_out.as_deref()).await?;
    if let Some(service) = service {
        service.stop().await;
    }
    let report = DemoReport { args, measured: &measured, audit: &audit };
    println!("{}", report.to_text());
    if args.json {
        println!("{}", report.to_json());
    }
    Ok(report.went_well())
}

/// Starts every role here, or finds the service that runs elsewhere.
async fn reach(args: &DemoArgs, config: &Config) -> Result<(Option<Running>, Target), DemoError> {
    let token = args.token.as_deref();
    if let Some(url) = &args.api {
        let target = Target::new(url, token)?;
        answers(&target).await?;
        return Ok((None, target));
    }
    if let Place::Embedded(directory) = config.place()? {
        println!(
            "The demo runs embedded: every role in this process, data in {}.",
            directory.display()
        );
    }
    let service = start_roles(config).await?;
    let api = service.api().ok_or_else(|| DemoError::NoIngress(format!("{:?}", config.roles)))?;
    Ok((Some(service), Target::new(&format!("http://{api}"), token)?))
}

/// Waits for the first answer.
async fn answers(target: &Target) -> Result<(), DemoError> {
    let mut connection = Connection::new(target);
    let began = std::time::Instant::now();
    loop {
        match connection.get("/livez").await {
            Ok(_) => return Ok(()),
            Err(error @ ClientError::Request(_)) => return Err(LoadError::from(error).into()),
            Err(error) if began.elapsed() > START => return Err(LoadError::from(error).into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
