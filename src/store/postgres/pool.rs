//! The two pools and how their sessions are set up.

use std::{str::FromStr, time::Duration};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio_postgres::{NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresSettings, errors};
use crate::store::StoreError;

/// Run in every session of both pools. Whatever role or database say, an answered commit is on
/// disk; a stronger setting than `on` is kept. A transaction that its process forgot (or that was
/// stopped in the middle) is ended after 2 s, because it may hold a log lock.
fn session_setup(
    settings: &PostgresSettings,
    idle_in_transaction: Duration,
    planning: &str,
) -> String {
    format!(
        "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') \
                  WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false), \
                set_config('statement_timeout', '{}', false), \
                set_config('lock_timeout', '{}', false), \
                set_config('idle_in_transaction_session_timeout', '{}', false), \
                set_config('jit', 'off', false), \
                set_config('max_parallel_workers_per_gather', '0', false){}",
        settings.statement_timeout.as_millis(),
        settings.lock_timeout.as_millis(),
        idle_in_transaction.as_millis(),
        planning,
    )
}

/// Every hot statement has one good plan, by an index, whatever the size of its arrays and however
/// empty a table was when it was analyzed. Joins are written as `LATERAL (… OFFSET 0)`, which the
/// planner does not turn into a join that reads a whole table. Left alone, the planner makes a new plan for each small
/// batch, in each statement of each function: more work than the statements themselves.
const HOT_PLANNING: &str = ", set_config('plan_cache_mode', 'force_generic_plan', false), \
                              set_config('enable_seqscan', 'off', false)";

pub(super) fn hot(settings: &PostgresSettings) -> Result<Pool, StoreError> {
    let encryption = Encryption::of(&settings.url);
    let url = Encryption::for_tokio_postgres(&settings.url);
    let mut config = tokio_postgres::Config::from_str(&url)
        .map_err(|error| StoreError::Schema(format!("the database URL is not valid: {error}")))?;
    config.application_name("adjutant hot");
    config.connect_timeout(settings.connect_timeout);
    config.keepalives_idle(Duration::from_secs(5));
    config.keepalives_interval(Duration::from_secs(2));
    config.keepalives_retries(3);
    config.tcp_user_timeout(Duration::from_secs(15));
    let recycle = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match encryption {
        Encryption::None => Manager::from_config(config, NoTls, recycle),
        Encryption::Verified => Manager::from_config(config, tls()?, recycle),
    };
    let setup = session_setup(settings, Duration::from_secs(2), HOT_PLANNING);
    let set_up_session = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let setup = setup.clone();
        Box::pin(async move {
            client.batch_execute(&setup).await.map_err(|e| HookError::message(e.to_string()))
        })
    });
    let wait = Some(settings.connect_timeout);
    Pool::builder(manager)
        .max_size(settings.hot_connections)
        .runtime(Runtime::Tokio1)
        .timeouts(Timeouts { wait, create: wait, recycle: wait })
        .post_create(set_up_session)
        .build()
        .map_err(|error| StoreError::Internal(error.to_string()))
}

pub(super) fn read(settings: &PostgresSettings) -> Result<PgPool, StoreError> {
    let options = PgConnectOptions::from_str(&settings.url)
        .map_err(|error| StoreError::Schema(format!("the database URL is not valid: {error}")))?
        .ssl_mode(Encryption::of(&settings.url).for_sqlx())
        .application_name("adjutant read");
    let setup = session_setup(settings, Duration::from_secs(30), "");
    Ok(PgPoolOptions::new()
        .max_connections(settings.read_connections)
        .acquire_timeout(settings.connect_timeout)
        .after_connect(move |connection, _| {
            let setup = setup.clone();
            Box::pin(async move {
                sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options))
}

/// Whether connections are encrypted. One rule for both drivers, which differ in theirs:
/// `sslmode=require`, `verify-ca` and `verify-full` encrypt and verify; anything else does not
/// encrypt.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Encryption {
    None,
    Verified,
}

impl Encryption {
    pub(super) fn of(url: &str) -> Self {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let mode = query.split('&').find_map(|pair| pair.strip_prefix("sslmode="));
        match mode {
            Some("require" | "verify-ca" | "verify-full") => Self::Verified,
            _ => Self::None,
        }
    }

    pub(super) fn for_sqlx(self) -> PgSslMode {
        match self {
            Self::None => PgSslMode::Disable,
            Self::Verified => PgSslMode::VerifyFull,
        }
    }

    /// tokio-postgres knows no `verify-…`: what it calls `require` is verified by our connector.
    fn for_tokio_postgres(url: &str) -> String {
        url.replace("sslmode=verify-ca", "sslmode=require")
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=allow", "sslmode=prefer")
    }
}

/// TLS by rustls with ring and the system's root certificates (`SSL_CERT_FILE` names others).
fn tls() -> Result<MakeRustlsConnect, StoreError> {
    install_crypto_provider();
    match MakeRustlsConnect::with_native_certs() {
        Ok((connector, _unusable)) => Ok(connector),
        Err(_) => Err(StoreError::Schema(
            "sslmode asks for encryption, but the system has no root certificates: install \
             ca-certificates, or name a file in SSL_CERT_FILE"
                .to_owned(),
        )),
    }
}

/// rustls needs to be told once which cryptography to use; whoever was first has chosen.
fn install_crypto_provider() {
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
}

/// Prepares once a connection; later calls find it there without a round trip.
pub(super) async fn prepare(client: &Object, sql: &str) -> Result<Statement, StoreError> {
    client.prepare_cached(sql).await.map_err(errors::before_commit)
}
