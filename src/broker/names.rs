//! What our queues are called, on every broker.

use crate::{broker::GroupPartition, message::GroupName};

/// The names behind one prefix. All stay below AMQP's 255 bytes, because prefix and group names
/// are at most 64 and 75.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The work queue of a partition of a group, for example `adjutant.projection.balances.p07`.
    pub(super) fn queue(&self, source: &GroupPartition) -> String {
        format!("{}.{source}", self.prefix)
    }

    /// The dead-letter queue of a group.
    pub(super) fn dead_letters(&self, group: &GroupName) -> String {
        format!("{}.{group}.dlq", self.prefix)
    }

    /// The queue that other systems send commands to.
    pub(super) fn intake(&self) -> String {
        format!("{}.intake", self.prefix)
    }

    /// The queue of what the intake could not accept.
    pub(super) fn intake_dead_letters(&self) -> String {
        format!("{}.intake.dlq", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Partition;

    #[test]
    fn names_are_what_the_documentation_says() {
        let names = Names::new("adjutant");
        let balances = GroupName::projection("balances");
        let source = GroupPartition { group: balances.clone(), partition: Partition(7) };
        assert_eq!(names.queue(&source), "adjutant.projection.balances.p07");
        assert_eq!(names.dead_letters(&balances), "adjutant.projection.balances.dlq");
        assert_eq!(names.dead_letters(&GroupName::commands()), "adjutant.commands.dlq");
        assert_eq!(names.intake(), "adjutant.intake");
        assert_eq!(names.intake_dead_letters(), "adjutant.intake.dlq");
    }
}
