//! Puts the layers on top of each other and checks the result.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map, Value},
};

use adjutant::service::EmbeddedSettings;

use super::{Config, DEFAULT, RetryConfig, environment, known_keys};
use crate::database::Source;

/// What is wrong with the configuration, all of it at once.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is not valid:\n  - {}", .0.join("\n  - "))]
pub struct ConfigError(pub Vec<String>);

/// Settings by name: what the command line says, or what a command wants different by default.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    settings: Vec<(String, Value)>,
}

impl Settings {
    /// A setting, as text (a flag of its own).
    pub fn set(&mut self, key: &str, value: Option<impl Into<String>>) -> &mut Self {
        if let Some(value) = value {
            self.settings.push((key.to_owned(), Value::from(value.into())));
        }
        self
    }

    /// A setting written `key=value` (`--set`); numbers, truth values and lists are read as such.
    pub fn set_pair(&mut self, pair: &str) -> Result<&mut Self, ConfigError> {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(ConfigError(vec![format!("--set {pair}: write key=value")]));
        };
        let parsed = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
        self.settings.push((key.trim().to_owned(), parsed));
        Ok(self)
    }
}

impl Provider for Settings {
    fn metadata(&self) -> Metadata {
        Metadata::named("flags")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut layers = Figment::new();
        for (key, value) in &self.settings {
            layers = layers.merge(Serialized::default(key, value));
        }
        layers.data()
    }
}

/// Reads the configuration: the default file, `base` (where a command's defaults differ), `file`,
/// the variables (usually [`std::env::vars`]), `flags`.
pub fn load(
    base: &Settings,
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: &Settings,
) -> Result<Config, ConfigError> {
    let mut errors = Vec::new();
    let mut layers = Figment::from(Toml::string(DEFAULT)).merge(base);
    let known = known_keys::names(&tree(&layers).map_err(one)?);
    let mut unknown = |keys: Vec<String>, place: &str| {
        let unknown =
            |key: &&String| !known.contains(*key) && !RetryConfig::is_rule_of_a_type(key.as_str());
        errors.extend(keys.iter().filter(unknown).map(|key| {
            let hint = known_keys::nearest(key, &known);
            let hint = hint.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            format!("{place}: there is no setting {key}{hint}")
        }));
    };

    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| one(format!("{}: {error}", path.display())))?;
        let layer = Figment::from(Toml::string(&text));
        let tree = tree(&layer).map_err(|error| one(format!("{}: {error}", path.display())))?;
        unknown(known_keys::names(&tree).into_iter().collect(), &path.display().to_string());
        layers = layers.merge(NamedFile { path: path.to_owned(), tree });
    }
    for variable in environment::settings(variables).map_err(ConfigError)? {
        let place = format!("environment variable {}", variable.name);
        unknown(vec![variable.key.clone()], &place);
        layers = layers.merge(variable);
    }
    unknown(flags.settings.iter().map(|(key, _)| key.clone()).collect(), "flags");
    layers = layers.merge(flags);

    if !errors.is_empty() {
        return Err(ConfigError(errors));
    }
    let config: Config = layers
        .extract()
        .map_err(|error| ConfigError(error.into_iter().map(|error| in_words(&error)).collect()))?;
    let errors = config.errors();
    if errors.is_empty() { Ok(config) } else { Err(ConfigError(errors)) }
}

/// What is wrong with a value. A webhook's is not repeated: it holds secrets; nor is a secret.
fn in_words(error: &figment::Error) -> String {
    let key = error.path.join(".");
    let place = error.metadata.as_ref().map(|place| format!(" in {}", place.name));
    if key.starts_with("callbacks.secrets") && !key.starts_with("callbacks.secrets_file") {
        let place = place.unwrap_or_default();
        return format!("callbacks.secrets{place}: write a list of texts, [\"whsec_…\"]");
    }
    if !key.starts_with("notify.webhooks") {
        return error.to_string();
    }
    format!(
        "notify.webhooks{}: write a list of {{ url = \"https://…\", kind = \"json\" or \"slack\", \
         secret = \"whsec_…\" }}",
        place.unwrap_or_default()
    )
}

fn one(error: String) -> ConfigError {
    ConfigError(vec![error])
}

fn tree(layer: &Figment) -> Result<Dict, String> {
    layer.extract().map_err(|error| error.to_string())
}

/// Where the service keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// In PostgreSQL; RabbitMQ is the road.
    Services,
    /// In this directory; everything runs in one process.
    Embedded(&'a Path),
}

/// A file's settings, with its name for error messages.
struct NamedFile {
    path: PathBuf,
    tree: Dict,
}

impl Provider for NamedFile {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.path.display().to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.tree.clone()))
    }
}

impl Config {
    /// What is wrong although every value has the right type.
    fn errors(&self) -> Vec<String> {
        let positive = [
            ("database.hot_connections", self.database.hot_connections as u64),
            ("database.read_connections", u64::from(self.database.read_connections)),
            ("broker.prefetch", u64::from(self.broker.prefetch)),
            ("broker.queue_length", u64::from(self.broker.queue_length)),
            ("server.intake_queue", self.server.intake_queue as u64),
            ("server.intake_batch", self.server.intake_batch as u64),
            ("server.intake_flights", self.server.intake_flights as u64),
            ("server.max_batch_lines", self.server.max_batch_lines as u64),
            ("server.max_connections", self.server.max_connections as u64),
            ("server.write_timeout_ms", self.server.write_timeout_ms),
            ("worker.batch", self.worker.batch as u64),
            ("worker.hanging_handlers", self.worker.hanging_handlers as u64),
            ("relay.batch", self.relay.batch.max(0).unsigned_abs()),
            ("relay.in_flight", self.relay.in_flight as u64),
            ("relay.poll_ms", self.relay.poll_ms),
            ("recurring.poll_ms", self.recurring.poll_ms),
            ("recurring.most_at_once", self.recurring.most_at_once as u64),
            ("membership.heartbeat_ms", self.membership.heartbeat_ms),
        ];
        let zero = positive.into_iter().filter(|(_, value)| *value == 0);
        let mut errors: Vec<String> =
            zero.map(|(key, _)| format!("{key} must be at least 1")).collect();
        if !(1..=1024).contains(&self.database.partitions) {
            errors.push("database.partitions must be 1 to 1024".into());
        }
        if self.membership.ttl_ms < 2 * self.membership.heartbeat_ms {
            errors.push("membership.ttl_ms must be at least twice membership.heartbeat_ms".into());
        }
        errors.extend(self.retry.errors());
        errors.extend(self.breaker.errors("breaker"));
        errors.extend(self.projection_breaker.errors("projection_breaker"));
        if !is_prefix(&self.broker.prefix) {
            errors.push("broker.prefix must be 1 to 64 of [a-z0-9._-]".into());
        }
        errors.extend(self.notify.errors());
        errors.extend(self.callbacks.errors());
        errors.extend(self.kept_too_short());
        errors.extend(self.retention.errors());
        errors
    }

    /// A callback tells of a command, which must still be there.
    fn kept_too_short(&self) -> Option<String> {
        let day_ms = 24 * 60 * 60 * 1_000;
        let kept_ms = u64::from(self.retention.outcomes_days) * day_ms;
        (kept_ms > 0 && kept_ms < self.callbacks.give_up_ms).then(|| {
            "callbacks.give_up_ms must not be longer than retention.outcomes_days: a callback tells \
             of a command, and may do so until it is given up"
                .to_owned()
        })
    }

    /// Where the service keeps its data: what the two URLs say.
    pub fn place(&self) -> Result<Place<'_>, ConfigError> {
        match (self.database.url.is_empty(), self.broker.url.is_empty()) {
            (false, false) => Ok(Place::Services),
            (true, true) if self.roles.is_all() => Ok(Place::Embedded(&self.embedded.directory)),
            (true, true) => Err(ConfigError(vec![
                "single roles need PostgreSQL and RabbitMQ, by which processes reach each other: \
                 set ADJUTANT_DATABASE_URL and ADJUTANT_AMQP_URL; or run all roles, then neither \
                 is needed"
                    .to_owned(),
            ])),
            (true, false) => Err(half("broker.url", "database.url", "ADJUTANT_DATABASE_URL")),
            (false, true) => Err(half("database.url", "broker.url", "ADJUTANT_AMQP_URL")),
        }
    }

    /// The database, wherever it is.
    pub fn database(&self) -> Source {
        if self.database.url.is_empty() {
            Source::sqlite(&self.embedded.directory.join(EmbeddedSettings::DATABASE))
        } else {
            Source::Postgres(self.database.url.clone())
        }
    }

    /// Both URLs, or what is missing.
    pub fn require_urls(&self) -> Result<(), ConfigError> {
        let missing: Vec<String> =
            [self.missing_database(), self.missing_broker()].into_iter().flatten().collect();
        if missing.is_empty() { Ok(()) } else { Err(ConfigError(missing)) }
    }

    /// The database's URL, or that it is missing.
    pub fn require_database(&self) -> Result<&str, ConfigError> {
        self.missing_database()
            .map_or(Ok(self.database.url.expose()), |missing| Err(ConfigError(vec![missing])))
    }

    fn missing_database(&self) -> Option<String> {
        let hint = "database.url is not set: use --database-url or ADJUTANT_DATABASE_URL";
        self.database.url.is_empty().then(|| hint.to_owned())
    }

    fn missing_broker(&self) -> Option<String> {
        let hint = "broker.url is not set: use --amqp-url or ADJUTANT_AMQP_URL";
        self.broker.url.is_empty().then(|| hint.to_owned())
    }
}

fn half(present: &str, missing: &str, variable: &str) -> ConfigError {
    ConfigError(vec![format!(
        "{present} is set and {missing} is not: the service needs both PostgreSQL and RabbitMQ (set \
         {variable}), or neither: then it runs embedded, in one process"
    )])
}

fn is_prefix(prefix: &str) -> bool {
    (1..=64).contains(&prefix.len())
        && prefix
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}
