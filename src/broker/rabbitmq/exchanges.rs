//! What our exchanges are called, and how messages find their queues there.

use crate::{
    broker::names::Names,
    message::{GroupName, Partition},
};

impl Names {
    /// The exchange that carries command logs.
    pub(super) fn commands_exchange(&self) -> String {
        format!("{}.commands", self.prefix)
    }

    /// The exchange that carries event logs.
    pub(super) fn events_exchange(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The exchange that feeds a group.
    pub(super) fn exchange_of(&self, group: &GroupName) -> String {
        if *group == GroupName::commands() {
            self.commands_exchange()
        } else {
            self.events_exchange()
        }
    }
}

/// The routing key of a partition: `p07`.
pub(super) fn routing_key(partition: Partition) -> String {
    format!("p{:02}", partition.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_documentation_says() {
        let names = Names::new("adjutant");
        assert_eq!(names.exchange_of(&GroupName::projection("balances")), "adjutant.events");
        assert_eq!(names.exchange_of(&GroupName::commands()), "adjutant.commands");
        assert_eq!(routing_key(Partition(7)), "p07");
        assert_eq!(routing_key(Partition(1023)), "p1023");
    }
}
