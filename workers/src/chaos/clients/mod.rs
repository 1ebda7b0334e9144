//! Clients under load: some by HTTP to every ingress, some by the queue of the AMQP intake. Each
//! has accounts of its own and sends one command after the other, so that what it sent after it
//! was told "accepted" must run later (in the same lane).

mod amqp;
mod cancelling;
mod command;
mod http;
mod person;
mod sender;
mod way;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{error::ChaosError, log::Log, random::Draw};

pub(super) use command::{Command, Expected, Kind};
pub(super) use person::People;
pub(super) use sender::{Patience, Sender};
pub(super) use way::Lane;
#[cfg(test)]
pub(super) use way::Way;

/// The client that aborts processes; those of the load come before, and people after it.
const ABORTING_CLIENT: usize = 2_000;

/// How the load is made.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What commands are drawn from.
    pub seed: u64,
    /// Commands a second, all clients together.
    pub rate: f64,
    /// How many clients send by HTTP.
    pub http_clients: usize,
    /// How many send by the AMQP intake.
    pub amqp_clients: usize,
    /// How many accounts they have together.
    pub accounts: usize,
    /// How many commands a minute abort the process that executes them, besides.
    pub aborts: f64,
}

impl Load {
    fn clients(&self) -> usize {
        self.http_clients + self.amqp_clients
    }

    fn accounts_of(&self, client: usize) -> Vec<String> {
        let each = self.accounts.div_ceil(self.clients().max(1)).max(1);
        (0..each).map(|n| format!("acc-{client}-{n}")).collect()
    }
}

/// Clients that send until they are told to stop.
pub(super) struct Clients {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Starts them all.
    pub(super) fn start(
        load: Load,
        apis: &[SocketAddr],
        broker: &str,
        log: &Arc<Log>,
    ) -> Result<Self, ChaosError> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for client in 0..load.clients() {
            let draw = Draw::of(load.seed, "client", client as u64);
            let sender = Sender::new(client, apis, log.clone(), draw.clone())?;
            let accounts = load.accounts_of(client);
            let pace = Pace::new(load.clients() as f64 / load.rate, stopped.clone(), draw);
            if client < load.http_clients {
                let draw = Draw::of(load.seed, "calling off", client as u64);
                let other = Sender::new(client, apis, log.clone(), draw)?;
                tasks.spawn(http::run(sender, other, accounts, pace));
            } else {
                tasks.spawn(amqp::run(sender, broker.to_owned(), accounts, pace));
            }
        }
        if load.aborts > 0.0 {
            let draw = Draw::of(load.seed, "aborts", 0);
            let sender = Sender::new(ABORTING_CLIENT, apis, log.clone(), draw.clone())?;
            let pace = Pace::new(60.0 / load.aborts, stopped, draw);
            tasks.spawn(http::abort(sender, pace));
        }
        Ok(Self { stop, tasks })
    }

    /// Tells them to stop; each comes to an end with the command that it has in hand.
    pub(super) async fn stop(mut self) -> Result<(), ChaosError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

/// When a client sends its next command.
struct Pace {
    next: Instant,
    seconds: f64,
    stopped: watch::Receiver<bool>,
    draw: Draw,
}

impl Pace {
    fn new(seconds: f64, stopped: watch::Receiver<bool>, draw: Draw) -> Self {
        Self { next: Instant::now(), seconds, stopped, draw }
    }

    fn is_over(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Waits for the next turn; `false` when it was told to stop. Turns that were missed are not
    /// made up for.
    async fn turn(&mut self) -> bool {
        let share = 0.5 + self.draw.below(1_000) as f64 / 1_000.0;
        self.next = self.next.max(Instant::now()) + Duration::from_secs_f64(self.seconds * share);
        tokio::select! {
            () = tokio::time::sleep_until(self.next) => {}
            _ = self.stopped.wait_for(|stopped| *stopped) => {}
        }
        !self.is_over()
    }
}
