//! The classes of faults.

use std::{fmt, str::FromStr};

use adjutant::store::Role;

/// What can go wrong on the way to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// Connections are closed and new ones refused.
    Drop,
    /// Everything arrives late.
    Delay,
    /// Bytes vanish, and neither side is told.
    HalfOpen,
    /// Connections are reset (RST).
    Reset,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Drop, Self::Delay, Self::HalfOpen, Self::Reset];

    fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Delay => "delay",
            Self::HalfOpen => "half-open",
            Self::Reset => "reset",
        }
    }
}

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// SIGKILL of a process with this role; another takes its place.
    Kill(Role),
    /// SIGSTOP of a process with this role, at times for longer than its membership lasts.
    Pause(Role),
    /// RabbitMQ's application stops and starts within its node.
    BrokerRestart,
    /// SIGKILL of the RabbitMQ node.
    BrokerKill,
    /// RabbitMQ's memory alarm: publishers are blocked.
    BrokerAlarm,
    /// PostgreSQL stops without finishing anything, and recovers from its write-ahead log.
    DatabaseRestart,
    /// `pg_terminate_backend` of every session of the service.
    BackendsTerminated,
    /// Trouble on the way to PostgreSQL.
    DatabaseRoad(Trouble),
    /// Trouble on the way to RabbitMQ.
    BrokerRoad(Trouble),
    /// Work queues are purged.
    QueuePurge,
    /// Work queues are deleted.
    QueueDeletion,
    /// Work queues are not bound for a while: what is published to them vanishes.
    QueueUnbinding,
    /// The clock of one process jumps.
    ClockJump,
}

/// What a fault lays its hands on. Two that happen together must not have the same in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Process(Role),
    Broker,
    Database,
    DatabaseRoad,
    BrokerRoad,
    Clock,
}

impl Class {
    /// Every class.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        all.extend(Role::ALL.map(Self::Kill));
        all.extend(Role::ALL.map(Self::Pause));
        all.extend([
            Self::BrokerRestart,
            Self::BrokerKill,
            Self::BrokerAlarm,
            Self::DatabaseRestart,
            Self::BackendsTerminated,
        ]);
        all.extend(Trouble::ALL.map(Self::DatabaseRoad));
        all.extend(Trouble::ALL.map(Self::BrokerRoad));
        all.extend([Self::QueuePurge, Self::QueueDeletion, Self::QueueUnbinding, Self::ClockJump]);
        all
    }

    /// Whether this may happen while `other` does.
    pub fn goes_with(self, other: Self) -> bool {
        !self.holds().iter().any(|hold| other.holds().contains(hold))
    }

    fn holds(self) -> Vec<Hold> {
        match self {
            Self::Kill(role) | Self::Pause(role) => vec![Hold::Process(role)],
            // Queues are purged and deleted by a broker that runs.
            Self::BrokerRestart
            | Self::BrokerKill
            | Self::BrokerAlarm
            | Self::QueueDeletion
            | Self::QueueUnbinding => vec![Hold::Broker],
            // Consumers may be cut off meanwhile.
            Self::QueuePurge => vec![Hold::Broker, Hold::BrokerRoad],
            Self::DatabaseRestart | Self::BackendsTerminated => vec![Hold::Database],
            Self::DatabaseRoad(_) => vec![Hold::DatabaseRoad],
            Self::BrokerRoad(_) => vec![Hold::BrokerRoad],
            Self::ClockJump => vec![Hold::Clock],
        }
    }

    /// Whether it is a restart of the broker or of the database.
    pub fn restarts_a_service(self) -> bool {
        matches!(self, Self::BrokerRestart | Self::BrokerKill | Self::DatabaseRestart)
    }

    /// Whether it kills a process of the service.
    pub fn kills_a_process(self) -> bool {
        matches!(self, Self::Kill(_))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Kill(role) => return f.pad(&format!("kill-{role}")),
            Self::Pause(role) => return f.pad(&format!("pause-{role}")),
            Self::DatabaseRoad(trouble) => {
                return f.pad(&format!("postgres-road-{}", trouble.name()));
            }
            Self::BrokerRoad(trouble) => {
                return f.pad(&format!("rabbitmq-road-{}", trouble.name()));
            }
            Self::BrokerRestart => "rabbitmq-restart",
            Self::BrokerKill => "rabbitmq-kill",
            Self::BrokerAlarm => "rabbitmq-memory-alarm",
            Self::DatabaseRestart => "postgres-immediate-restart",
            Self::BackendsTerminated => "postgres-backends-terminated",
            Self::QueuePurge => "queue-purge",
            Self::QueueDeletion => "queue-deletion",
            Self::QueueUnbinding => "queue-unbinding",
            Self::ClockJump => "clock-jump",
        };
        f.pad(name)
    }
}

/// A word that names no class.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no class of faults: use {all}", all = names())]
pub struct UnknownClass(String);

fn names() -> String {
    Class::all().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl FromStr for Class {
    type Err = UnknownClass;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::all().into_iter().find(|class| class.to_string() == text);
        found.ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_class_has_a_name_of_its_own_that_is_read_back() {
        let all = Class::all();
        let names: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all.len());
        for class in all {
            assert_eq!(class.to_string().parse::<Class>().unwrap(), class);
        }
        assert!("nothing".parse::<Class>().unwrap_err().to_string().contains("kill-relay"));
    }

    #[test]
    fn faults_that_undo_each_other_do_not_happen_together() {
        let kill = Class::Kill(Role::Relay);
        assert!(!kill.goes_with(Class::Pause(Role::Relay)));
        assert!(kill.goes_with(Class::Pause(Role::Ingress)));
        assert!(!Class::QueuePurge.goes_with(Class::BrokerKill));
        assert!(Class::DatabaseRestart.goes_with(Class::BrokerKill));
    }
}
