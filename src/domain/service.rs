//! A service is what is registered: aggregates and projections, checked together.

use std::sync::Arc;

use super::{Aggregate, Projection, Registry};

/// A domain that is ready to run.
#[derive(Clone)]
pub struct Service {
    registry: Arc<Registry>,
}

impl Service {
    /// Starts with nothing registered.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder { registry: Registry::default(), errors: Vec::new() }
    }

    /// What is registered.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

/// Collects aggregates and projections.
pub struct ServiceBuilder {
    registry: Registry,
    errors: Vec<String>,
}

/// What is wrong with a service, all of it at once.
#[derive(Debug, thiserror::Error)]
#[error("the service cannot be built:\n  - {}", .0.join("\n  - "))]
pub struct BuildError(pub Vec<String>);

impl ServiceBuilder {
    /// Registers an aggregate with its commands and events.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        let errors = self.registry.add_aggregate::<A>();
        self.errors.extend(errors);
        self
    }

    /// Registers a projection and the view it maintains.
    #[must_use]
    pub fn projection<P: Projection>(mut self, projection: P) -> Self {
        let errors = self.registry.add_projection(projection);
        self.errors.extend(errors);
        self
    }

    /// Checks that every name is well-formed and unique and that every event a projection wants
    /// exists.
    pub fn build(mut self) -> Result<Service, BuildError> {
        self.errors.extend(self.registry.unknown_selections());
        if self.errors.is_empty() {
            Ok(Service { registry: Arc::new(self.registry) })
        } else {
            Err(BuildError(self.errors))
        }
    }
}
