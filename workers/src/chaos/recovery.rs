//! How long it takes until work is done again: once a fault is healed, a command is sent to an
//! account of every partition.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use adjutant::message::{InvalidPartitionCount, PartitionCount, StreamId};
use tokio::task::JoinSet;

use super::{
    clients::{Command, Kind, Patience, Sender},
    error::ChaosError,
    fleet::PARTITIONS,
    log::Log,
    random::Draw,
};

/// How long a probe is followed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Probes are clients, too: they have numbers beyond those of the load.
const FIRST_CLIENT: usize = 1_000;

/// When commands that were sent after the healing had ended, and were in a view.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// The first of them had ended.
    pub first: Option<Duration>,
    /// Every one had ended; `None`: not within 30 s.
    pub every: Option<Duration>,
    /// Every one was in the view.
    pub visible: Option<Duration>,
}

/// An account in every partition.
pub(super) struct Probes {
    apis: Vec<SocketAddr>,
    log: Arc<Log>,
    accounts: Vec<String>,
    draw: Mutex<Draw>,
}

impl Probes {
    /// Opens the accounts.
    pub(super) async fn open(
        apis: Vec<SocketAddr>,
        log: Arc<Log>,
        seed: u64,
    ) -> Result<Self, ChaosError> {
        let accounts = one_a_partition()
            .map_err(|error| ChaosError::Missing(format!("no partitions: {error}")))?;
        let draw = Mutex::new(Draw::of(seed, "probe", 0));
        let probes = Self { apis, log, accounts, draw };
        for (place, account) in probes.accounts.iter().enumerate() {
            let mut sender = probes.sender(place)?;
            let command = Command::new(Kind::Open, account, &mut sender.draw);
            let within = PATIENCE;
            let slow =
                || ChaosError::TooSlow { what: "the service accepts commands".into(), within };
            let (_, accepted) = sender.submit(&command, Patience::Long).await;
            accepted.filter(|accepted| *accepted).ok_or_else(slow)?;
        }
        Ok(probes)
    }

    /// Sends a command to every partition and follows it.
    pub(super) async fn measure(&self) -> Result<Recovery, ChaosError> {
        let healed = Instant::now();
        let mut probes = JoinSet::new();
        for (place, account) in self.accounts.iter().enumerate() {
            let mut sender = self.sender(place)?;
            let command = Command::new(Kind::Deposit, account, &mut sender.draw);
            probes.spawn(follow(sender, command, healed));
        }
        let mut all = Vec::new();
        while let Some(probe) = probes.join_next().await {
            all.push(probe?);
        }
        let last = |all: Vec<Option<Duration>>| {
            let all: Option<Vec<Duration>> = all.into_iter().collect();
            all.and_then(|all| all.into_iter().max())
        };
        Ok(Recovery {
            first: all.iter().filter_map(|probe| probe.ended).min(),
            every: last(all.iter().map(|probe| probe.ended).collect()),
            visible: last(all.iter().map(|probe| probe.visible).collect()),
        })
    }

    fn sender(&self, place: usize) -> Result<Sender, ChaosError> {
        let n = self.draw.lock().unwrap_or_else(PoisonError::into_inner).below(usize::MAX);
        let draw = Draw::of(n as u64, "one probe", place as u64);
        Sender::new(FIRST_CLIENT + place, &self.apis, self.log.clone(), draw)
    }
}

#[derive(Default)]
struct Followed {
    ended: Option<Duration>,
    visible: Option<Duration>,
}

async fn follow(mut sender: Sender, command: Command, healed: Instant) -> Followed {
    let mut followed = Followed::default();
    let follow = async {
        if let (_, Some(true)) = sender.submit(&command, Patience::Long).await {
            let ended = loop {
                if let Some(ended) = sender.ended(&command).await {
                    break ended;
                }
                pause().await;
            };
            followed.ended = Some(healed.elapsed());
            let Some(position) = ended.positions.first() else { return };
            while sender.applied(&command.account, position).await.is_none() {
                pause().await;
            }
            followed.visible = Some(healed.elapsed());
        }
    };
    // What is not known by then stays unknown, and is reported so.
    let _ = tokio::time::timeout(PATIENCE, follow).await;
    followed
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The name of an account in each partition.
fn one_a_partition() -> Result<Vec<String>, InvalidPartitionCount> {
    let partitions = PartitionCount::new(PARTITIONS)?;
    let mut found: Vec<Option<String>> = vec![None; partitions.all().count()];
    for number in 0_u32.. {
        let name = format!("probe-{number}");
        let stream = StreamId::new("account", &name);
        let place = stream.map(|stream| partitions.of(&stream).index()).unwrap_or_default();
        if let Some(free @ None) = found.get_mut(place) {
            *free = Some(name);
        }
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(found.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_probe_for_every_partition() {
        let partitions = PartitionCount::new(PARTITIONS).unwrap();
        let names = one_a_partition().unwrap();
        let places = names
            .iter()
            .map(|name| partitions.of(&StreamId::new("account", name).unwrap()).index());
        assert_eq!(places.collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    }
}
