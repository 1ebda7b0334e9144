//! Where scenarios run: roles in this process, accounts of a load's own, a database that they share.

use std::time::Duration;

use adjutant::{immediate::Dispatcher, message::Lane, store::Role};

use super::BenchError;
use crate::{
    cli::BenchArgs,
    config::{Config, Roles},
    database::Source,
    load::{
        Followers, Measured, Measurement, Plan, Target, Until, WaitFor, Watch, Workload, measure,
        open_accounts,
    },
    run::{Running, start_roles},
};

/// How many commands are followed at a time.
const FOLLOWED: u32 = 32;
/// How large the backlog may be where a load runs end to end.
const BACKLOG: u64 = 5_000;
/// For how many seconds a request of the immediate lane waits.
const WAIT: u32 = 30;

pub(super) struct Site<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) config: &'a Config,
}

/// The part of a load that scenarios vary.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) accounts: u32,
    pub(super) connections: u32,
    pub(super) batch: u32,
    pub(super) rate: Option<f64>,
    pub(super) wait_for: WaitFor,
    /// In the immediate lane each request waits for the end of its command.
    pub(super) lane: Lane,
}

/// Roles that are at work, and where their API is.
pub(super) struct AtWork {
    servers: Vec<Running>,
    pub(super) target: Target,
}

impl AtWork {
    /// Dispatches commands from Rust.
    pub(super) fn dispatcher(&self) -> Option<&Dispatcher> {
        self.servers.iter().find_map(Running::dispatcher)
    }

    pub(super) async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}

impl Site<'_> {
    /// What a load is like unless a scenario says otherwise.
    pub(super) fn shape(&self) -> Shape {
        Shape {
            accounts: 1_000,
            connections: if self.args.batch > 1 { 8 } else { 64 },
            batch: self.args.batch,
            rate: None,
            wait_for: WaitFor::Visible,
            lane: Lane::Queued,
        }
    }

    /// Starts sets of roles, each a member of its own; one of them has the API.
    pub(super) async fn start(&self, sets: &[Roles]) -> Result<AtWork, BenchError> {
        let mut servers = Vec::new();
        for roles in sets {
            let config = Config { roles: roles.clone(), ..self.config.clone() };
            servers.push(start_roles(&config).await?);
        }
        let api = servers.iter().find_map(Running::api).ok_or(BenchError::NoIngress)?;
        Ok(AtWork { servers, target: Target::new(&format!("http://{api}"), None)? })
    }

    /// Every role, in one member.
    pub(super) async fn start_all(&self) -> Result<AtWork, BenchError> {
        self.start(&[Roles::all()]).await
    }

    /// Only the ingress.
    pub(super) async fn start_ingress(&self) -> Result<AtWork, BenchError> {
        self.start(&[Role::Ingress.into()]).await
    }

    /// Opens accounts and drives a load to its end.
    pub(super) async fn load(&self, target: &Target, shape: Shape) -> Result<Measured, BenchError> {
        let database = &Source::postgres(self.config.require_database()?);
        let workload = Workload::new(self.args.seed, shape.accounts);
        open_accounts(target, &workload).await?;
        if shape.wait_for == WaitFor::Visible {
            self.drain().await?;
        }
        let immediate = shape.lane == Lane::Immediate;
        let workload = if immediate { workload.for_the_immediate_lane() } else { workload };
        let end_to_end = shape.wait_for == WaitFor::Visible;
        let plan = Plan {
            target: target.clone(),
            workload,
            until: Until::Elapsed(Duration::from_secs(self.args.seconds)),
            connections: shape.connections,
            batch: shape.batch,
            wait: immediate.then_some(WAIT),
            rate: shape.rate,
            // Whoever waits for outcomes has no backlog.
            max_unfinished: (end_to_end && shape.rate.is_none() && !immediate).then_some(BACKLOG),
            followers: (end_to_end && !immediate).then(|| Followers::new(target, FOLLOWED)),
            answers: None,
        };
        let measurement = Measurement {
            plan,
            database,
            amqp_url: self.config.broker.url.expose(),
            wait_for: shape.wait_for,
            patience: self.patience(),
        };
        Ok(measure(measurement, |_| {}).await?)
    }

    /// Waits until nothing is left to do.
    pub(super) async fn drain(&self) -> Result<(), BenchError> {
        let mut watch =
            Watch::new(&Source::postgres(self.config.require_database()?), self.patience());
        watch.until(WaitFor::Visible, || true, |_| {}).await?;
        Ok(())
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.args.patience)
    }
}
