//! How each class of faults is brought about, and healed.

mod bindings;
mod broker;
mod clock;
mod database;
mod process;
mod queues;
mod road;

pub(super) use bindings::unbound_to_the_end;
pub(super) use queues::groups;

use std::time::Instant;

use super::{
    class::Class,
    error::ChaosError,
    fleet::Fleet,
    random::Draw,
    schedule::Drawn,
    services::{Postgres, Rabbit},
};

/// What faults lay their hands on.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    /// The database.
    pub postgres: &'a Postgres,
    /// The broker.
    pub rabbit: &'a Rabbit,
    /// The service's processes.
    pub fleet: &'a Fleet,
}

/// A fault that has happened and was healed.
#[derive(Clone, Debug)]
pub(super) struct Struck {
    /// Its class.
    pub class: Class,
    /// To whom, and how.
    pub what: String,
    /// When it began.
    pub began: Instant,
    /// From when on its cause was gone; for a process that was killed, when another was started.
    pub healed: Instant,
}

impl Site<'_> {
    /// Brings a fault about and heals it.
    pub(super) async fn strike(&self, drawn: Drawn) -> Result<Struck, ChaosError> {
        let Drawn { class, mut draw } = drawn;
        let began = Instant::now();
        let what = self.bring_about(class, &mut draw).await?;
        Ok(Struck { class, what, began, healed: Instant::now() })
    }

    async fn bring_about(&self, class: Class, draw: &mut Draw) -> Result<String, ChaosError> {
        match class {
            Class::Kill(role) => process::kill(self.fleet, role, draw).await,
            Class::Pause(role) => process::pause(self.fleet, role, draw).await,
            Class::BrokerRestart => broker::restart(self.rabbit, draw).await,
            Class::BrokerKill => broker::kill(self.rabbit, draw).await,
            Class::BrokerAlarm => broker::alarm(self.rabbit, draw).await,
            Class::DatabaseRestart => database::restart(self.postgres, draw).await,
            Class::BackendsTerminated => database::terminate(self.postgres, draw).await,
            Class::DatabaseRoad(trouble) => {
                road::trouble(self.fleet, trouble, |slot| &slot.database, draw).await
            }
            Class::BrokerRoad(trouble) => {
                road::trouble(self.fleet, trouble, |slot| &slot.broker, draw).await
            }
            Class::QueuePurge => queues::purge(&self.rabbit.url(), self.fleet, draw).await,
            Class::QueueDeletion => queues::delete(&self.rabbit.url(), draw).await,
            Class::QueueUnbinding => bindings::unbind(&self.rabbit.url(), draw).await,
            Class::ClockJump => clock::jump(self.fleet, draw).await,
        }
    }

    /// Everything as it should be again, whatever a fault that broke off has left behind.
    pub(super) async fn heal(&self) -> Result<(), ChaosError> {
        for slot in self.fleet.slots() {
            slot.database.set(super::proxy::Mode::Open);
            slot.broker.set(super::proxy::Mode::Open);
            slot.resume()?;
            if let Some(clock) = &slot.clock {
                clock.shift(0)?;
            }
        }
        if !self.postgres.runs() {
            self.postgres.launch().await?;
        }
        broker::heal(self.rabbit).await?;
        for slot in self.fleet.slots() {
            slot.start()?;
        }
        Ok(())
    }
}
