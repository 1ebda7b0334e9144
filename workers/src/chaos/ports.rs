//! Free ports of the loopback.

use std::net::{SocketAddr, TcpListener};

use super::{error::ChaosError, random::Draw};

/// Below the range that outgoing connections draw from, so that a port stays free while its owner
/// is dead.
const FIRST: usize = 20_000;
const COUNT: usize = 12_000;

/// Hands out ports that nobody listens on, none of them twice.
#[derive(Debug)]
pub(super) struct Ports {
    draw: Draw,
    taken: Vec<u16>,
}

/// A few ports that were handed out already.
#[derive(Debug)]
pub(super) struct SomePorts(Vec<u16>);

impl SomePorts {
    /// Another one of them.
    pub(super) fn take(&mut self) -> Result<u16, ChaosError> {
        self.0.pop().ok_or_else(|| ChaosError::Missing("no port is left".into()))
    }
}

impl Ports {
    /// Not from the run's seed: two runs beside each other may have the same.
    pub(super) fn new() -> Self {
        let random = uuid::Uuid::new_v4().as_u64_pair().1;
        Self { draw: Draw::of(random, "port", 0), taken: Vec::new() }
    }

    /// Several.
    pub(super) fn some(&mut self, count: usize) -> Result<SomePorts, ChaosError> {
        (0..count).map(|_| self.free()).collect::<Result<_, _>>().map(SomePorts)
    }

    /// Another one.
    pub(super) fn free(&mut self) -> Result<u16, ChaosError> {
        for _ in 0..1_000 {
            let port = u16::try_from(FIRST + self.draw.below(COUNT)).unwrap_or(u16::MAX);
            if !self.taken.contains(&port) && TcpListener::bind(loopback(port)).is_ok() {
                self.taken.push(port);
                return Ok(port);
            }
        }
        Err(ChaosError::Missing("there is no free port on 127.0.0.1".into()))
    }
}

/// A port of the loopback.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
