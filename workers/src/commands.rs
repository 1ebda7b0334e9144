//! What each command of the command line does. Exit codes: 0, it went well; 1, it did not, or a
//! check failed; 2, it was asked for wrongly.

use std::process::ExitCode;

use crate::{
    bench,
    cli::{BenchArgs, Command, ConfigArgs, DemoArgs, ServeArgs, ShowConfigArgs, VerifyArgs},
    config::{self, Config},
    demo, log, run, verify,
};

type Failure = Box<dyn std::error::Error>;

/// Runs a command.
pub async fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Serve(args) => serve(args).await,
        Command::Migrate(args) => migrate(args).await,
        Command::NewLogId(args) => new_log_id(args).await,
        Command::Config(args) => show_config(args),
        Command::Verify(args) => audit(args).await,
        Command::Demo(args) => demo(args).await,
        Command::Bench(args) => benchmark(args).await,
    };
    done.unwrap_or_else(|failure| {
        eprintln!("bank: {failure}");
        let is_misuse = failure.downcast_ref::<config::ConfigError>().is_some();
        if is_misuse { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

fn begin(config: Result<Config, config::ConfigError>) -> Result<Config, Failure> {
    let config = config?;
    log::start(&config.log)?;
    Ok(config)
}

async fn serve(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.load())?;
    config.require_urls()?;
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

async fn audit(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let config = begin(args.config.load_quietly())?;
    let report = verify::verify(config.require_database()?, args.answers.as_deref()).await?;
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
    let config = begin(args.config.load_quietly())?;
    let is_sound = bench::run(&args, &config).await?;
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
