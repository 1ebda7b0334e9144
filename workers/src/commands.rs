//! What each command of the command line does. Exit codes: 0, it went well; 1, it did not, or a
//! check failed; 2, it was asked for wrongly.

use std::process::ExitCode;

use crate::{
    bench,
    carry::{self, MoveError},
    chaos,
    cli::{
        BenchArgs, ChaosArgs, Command, ConfigArgs, DemoArgs, MoveArgs, ServeArgs, ShowConfigArgs,
        VerifyArgs,
    },
    config::{self, Config, ConfigError},
    database::Source,
    demo::{self, DemoError},
    log,
    run::{self, RunError},
    verify,
};

type Failure = Box<dyn std::error::Error>;

/// Runs a command.
pub async fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Serve(args) => serve(args).await,
        Command::Migrate(args) => migrate(args).await,
        Command::NewLogId(args) => new_log_id(args).await,
        Command::Config(args) => show_config(args),
        Command::Move(args) => carry_over(args).await,
        Command::Verify(args) => audit(args).await,
        Command::Demo(args) => demo(args).await,
        Command::Bench(args) => benchmark(args).await,
        Command::Chaos(args) => return chaos(args).await,
        #[cfg(feature = "simulation")]
        Command::Simulate(args) => simulate(args).await,
        #[cfg(feature = "failpoints")]
        Command::Failpoints => {
            for point in adjutant::failpoint::Failpoint::ALL {
                println!("{}\t{}", point.name(), point.story());
            }
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|failure| {
        eprintln!("bank: {failure}");
        if is_misuse(&*failure) { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

/// Whether it is for the caller to ask differently; otherwise something went wrong.
fn is_misuse(failure: &(dyn std::error::Error + 'static)) -> bool {
    let run = failure.downcast_ref::<RunError>();
    let demo = failure.downcast_ref::<DemoError>();
    let carry = failure.downcast_ref::<MoveError>();
    failure.is::<ConfigError>()
        || failure.is::<log::LogError>()
        || run.is_some_and(RunError::is_misuse)
        || demo.is_some_and(DemoError::is_misuse)
        || carry.is_some_and(MoveError::is_misuse)
}

fn begin(config: Result<Config, ConfigError>) -> Result<Config, Failure> {
    let config = config?;
    log::start(&config.log)?;
    Ok(config)
}

async fn serve(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.load())?;
    config.place()?;
    run::serve(&config).await?;
    Ok(ExitCode::SUCCESS)
}

async fn migrate(args: ConfigArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.load())?;
    println!("{}", run::migrate(&config).await?);
    Ok(ExitCode::SUCCESS)
}

async fn new_log_id(args: ConfigArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.load())?;
    println!("{}", run::new_log_id(&config).await?);
    Ok(ExitCode::SUCCESS)
}

fn show_config(args: ShowConfigArgs) -> Result<ExitCode, Failure> {
    if args.effective {
        print!("{}", toml::to_string(&args.config.load()?)?);
    } else {
        print!("{}", config::DEFAULT);
    }
    Ok(ExitCode::SUCCESS)
}

async fn carry_over(args: MoveArgs) -> Result<ExitCode, Failure> {
    let moved = carry::carry(args.from, &args.to).await?;
    for (table, rows) in moved {
        println!("{rows:>10}  {table}");
    }
    println!("everything was carried over; each row was compared");
    Ok(ExitCode::SUCCESS)
}

async fn audit(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.config.load_quietly())?;
    let source = match &args.sqlite {
        Some(file) => Source::sqlite(file),
        None => config.database(),
    };
    let report = verify::verify(&source, args.answers.as_deref()).await?;
    if args.json {
        println!("{}", report.to_json());
    } else {
        println!("{}", report.to_text());
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn demo(args: DemoArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.config.load_quietly())?;
    let went_well = demo::run(&args, &config).await?;
    Ok(if went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn benchmark(args: BenchArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.config.load_for_bench())?;
    let is_sound = bench::run(&args, &config).await?;
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has exit codes of its own: a run that could not be made says nothing about the service.
async fn chaos(args: ChaosArgs) -> ExitCode {
    const NO_VERDICT: u8 = 3;
    match interruptible_chaos(&args).await {
        Ok(report) => {
            println!("{}", report.to_text());
            if args.json {
                println!("{}", report.to_json());
            }
            match report.verdict() {
                chaos::Verdict::Passed => ExitCode::SUCCESS,
                chaos::Verdict::Violated => ExitCode::FAILURE,
                chaos::Verdict::NotEnough => ExitCode::from(NO_VERDICT),
            }
        }
        Err(failure) => {
            eprintln!("bank: {failure}");
            ExitCode::from(NO_VERDICT)
        }
    }
}

/// A signal drops the run, and with it everything that it started.
async fn interruptible_chaos(args: &ChaosArgs) -> Result<chaos::Report, Failure> {
    let plan = args.plan()?;
    tokio::select! {
        report = chaos::run(&plan) => Ok(report?),
        signal = adjutant::service::stop_signal() => Err(format!("{} came", signal?).into()),
    }
}

#[cfg(feature = "simulation")]
async fn simulate(args: crate::cli::SimulateArgs) -> Result<ExitCode, Failure> {
    #[cfg(feature = "planted-bugs")]
    if let Some(most) = args.planted_bugs {
        return tokio::task::spawn_blocking(move || planted_bugs(&args, most))
            .await?
            .map_err(Into::into);
    }
    // Each history has a runtime of its own, in a thread that this one does not use.
    let report = tokio::task::spawn_blocking(move || crate::simulate::run(&args)).await??;
    println!("{}", report.to_text());
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(feature = "planted-bugs")]
fn planted_bugs(
    args: &crate::cli::SimulateArgs,
    most: u64,
) -> Result<ExitCode, adjutant::simulation::SimulationError> {
    use adjutant::simulation::{Bug, SimulationSettings};

    use crate::simulate::planted;

    let settings = SimulationSettings { commands: args.commands, ..Default::default() };
    let mut all = Vec::new();
    for bug in Bug::ALL {
        all.push(planted::find(*bug, args.seed, most, &settings)?);
    }
    println!("{}", planted::to_text(&all));
    let all_found = all.iter().all(|found| found.after.is_some());
    Ok(if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
