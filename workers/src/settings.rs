//! The configuration as the library's settings.

use std::time::Duration;

use adjutant::{
    broker::rabbitmq::RabbitSettings,
    execute::{ExecutorSettings, PerType, RetryPolicy},
    immediate::ImmediateSettings,
    ingress::{AccessRole, CommitSettings, IngressSettings, TokenSettings},
    message::PartitionCount,
    recurring::RecurringSettings,
    relay::RelaySettings,
    service::{Backing, EmbeddedSettings, ProcessSettings, ServerSettings, ServicesSettings},
    store::postgres::PostgresSettings,
    worker::{GroupSettings, MembershipSettings, Pace, ParkingSettings},
};

use crate::{
    config::{Config, Place, Token, TokenRole},
    run::RunError,
    tokens,
};

/// Everything that a process is configured with.
pub(crate) fn of(config: &Config) -> Result<ServerSettings, RunError> {
    let partitions = PartitionCount::new(config.database.partitions)
        .map_err(|error| RunError::Setting(format!("database.partitions: {error}")))?;
    let backing = match config.place()? {
        Place::Services => Backing::Services(Box::new(services(config, partitions))),
        Place::Embedded(directory) => Backing::Embedded(EmbeddedSettings {
            partitions: Some(partitions),
            ..EmbeddedSettings::new(directory)
        }),
    };
    Ok(ServerSettings {
        roles: config.roles.as_slice().to_vec(),
        amqp_intake: config.broker.intake && matches!(backing, Backing::Services(_)),
        process: process(config),
        ingress: ingress(config)?,
        immediate: ImmediateSettings {
            executions: config.immediate.executions,
            transactions: config.immediate.transactions,
            waiting_commands: config.immediate.waiting_commands,
            waiting_bytes: config.immediate.waiting_bytes,
            due_poll_ms: config.immediate.due_poll_ms,
            ..ImmediateSettings::default()
        },
        admin_listen: Some(config.admin.listen),
        notify: config
            .notify
            .settings()
            .map_err(|error| RunError::Setting(format!("notify.webhooks: {error}")))?,
        callbacks: config.callbacks.settings()?,
        ..ServerSettings::on(backing)
    })
}

fn services(config: &Config, partitions: PartitionCount) -> ServicesSettings {
    let defaults = ServicesSettings::new(config.database.url.expose(), config.broker.url.expose());
    ServicesSettings {
        database: PostgresSettings {
            hot_connections: config.database.hot_connections,
            read_connections: config.database.read_connections,
            ..defaults.database
        },
        migrate_at_start: config.database.migrate_at_start,
        partitions: Some(partitions),
        broker: RabbitSettings {
            prefix: config.broker.prefix.clone(),
            queue_max_messages: config.broker.queue_length,
            confirm_timeout: millis(config.relay.confirm_timeout_ms),
            ..defaults.broker
        },
        database_patience: defaults.database_patience,
    }
}

fn process(config: &Config) -> ProcessSettings {
    let defaults = ProcessSettings::default();
    let never = i64::MAX;
    let snapshot_every = config.worker.snapshot_every;
    ProcessSettings {
        executor: ExecutorSettings {
            snapshot_every: if snapshot_every == 0 { never } else { snapshot_every },
            cache_bytes: config.worker.cache_bytes,
            set_aside: Duration::from_millis(config.worker.unknown_type_delay_ms.unsigned_abs()),
            retry: config.retry.schedules(),
            time_limit: config.retry.time_limits(),
            most_hanging: config.worker.hanging_handlers,
            breaker: PerType::all(config.breaker.settings()),
        },
        relay: RelaySettings {
            poll: millis(config.relay.poll_ms),
            page_rows: config.relay.batch,
            pace: millis(config.relay.pace_ms),
            in_flight: config.relay.in_flight,
            give_up_after: millis(config.relay.stale_ms),
            delete_within: millis(config.relay.delete_ms),
            schedule_poll: millis(config.relay.schedule_ms),
            lane_grace: millis(config.relay.lane_grace_ms),
            ..defaults.relay
        },
        groups: GroupSettings {
            prefetch: config.broker.prefetch,
            max_entries: config.worker.batch,
            pace: Pace { interval: millis(config.worker.pace_ms), ..defaults.groups.pace },
            quiet: millis(config.worker.idle_check_ms),
            ..defaults.groups
        },
        parking: ParkingSettings {
            tries: config.worker.projection_tries.max(1),
            retry: RetryPolicy {
                initial: millis(config.worker.projection_retry_ms),
                ..defaults.parking.retry
            },
            replay_batch: config.worker.replay_batch.max(1),
            breaker: config.projection_breaker.settings(),
            ..defaults.parking
        },
        recurring: RecurringSettings {
            poll: millis(config.recurring.poll_ms),
            grace: millis(config.recurring.grace_ms),
            most_at_once: config.recurring.most_at_once,
            outbox_limit: config.server.max_outbox_rows,
        },
        membership: MembershipSettings {
            heartbeat: millis(config.membership.heartbeat_ms),
            ttl: millis(config.membership.ttl_ms),
        },
        retention: config.retention.settings(),
        ..defaults
    }
}

fn ingress(config: &Config) -> Result<IngressSettings, RunError> {
    let server = &config.server;
    let mut all = server.tokens.clone();
    if !server.tokens_file.is_empty() {
        all.extend(tokens::read(&server.tokens_file)?);
    }
    let defaults = IngressSettings::default();
    Ok(IngressSettings {
        listen: server.listen,
        allow_anonymous: server.allow_anonymous,
        tokens: all.iter().map(token).collect(),
        max_connections: server.max_connections,
        header_timeout_ms: server.header_timeout_ms,
        body_timeout_ms: server.body_timeout_ms,
        write_timeout_ms: server.write_timeout_ms,
        max_waiters: server.max_waiters,
        max_command_bytes: server.max_body_bytes,
        max_batch_lines: server.max_batch_lines,
        max_batch_bytes: server.max_batch_bytes,
        outbox_limit: server.max_outbox_rows,
        member_ttl_ms: config.membership.ttl_ms,
        commit: CommitSettings {
            batch_commands: server.intake_batch,
            in_flight: server.intake_flights,
            waiting_commands: server.intake_queue,
            ..defaults.commit
        },
        ..defaults
    })
}

fn token(token: &Token) -> TokenSettings {
    TokenSettings {
        name: token.name.clone(),
        sha256: token.sha256.clone(),
        roles: token
            .roles
            .iter()
            .map(|role| match role {
                TokenRole::Submit => AccessRole::Submit,
                TokenRole::Read => AccessRole::Read,
                TokenRole::Operate => AccessRole::Operate,
            })
            .collect(),
        commands_per_second: None,
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
