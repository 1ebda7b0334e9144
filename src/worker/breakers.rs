//! Everything that this process suspends, as it is shown to people.

use std::{fmt, sync::Arc};

use super::GroupBreaker;
use crate::{
    execute::{BreakerState, Executor},
    message::GroupName,
};

/// What a breaker is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakerOf {
    /// Commands of a type.
    Type(String),
    /// The events of a group.
    Group(GroupName),
}

impl fmt::Display for BreakerOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(name) => f.write_str(name),
            Self::Group(group) => group.fmt(f),
        }
    }
}

/// The breakers of a process: of its command types, and of its groups.
#[derive(Clone)]
pub struct ProcessBreakers {
    executor: Arc<Executor>,
    groups: Vec<Arc<GroupBreaker>>,
}

impl ProcessBreakers {
    pub(crate) fn new(executor: Arc<Executor>, groups: Vec<Arc<GroupBreaker>>) -> Self {
        Self { executor, groups }
    }

    /// Those that let nothing through, or only a probe.
    pub fn open(&self) -> Vec<(BreakerOf, BreakerState)> {
        let types = self.executor.breakers().into_iter();
        let types = types.map(|(name, state)| (BreakerOf::Type(name), state));
        let groups = self.groups.iter();
        let groups = groups.map(|it| (BreakerOf::Group(it.group().clone()), it.state()));
        types.chain(groups).filter(|(_, state)| *state != BreakerState::Closed).collect()
    }
}
