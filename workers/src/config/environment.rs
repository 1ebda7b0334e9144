//! Settings from the environment: `ADJUTANT_SERVER__LISTEN` is `server.listen`.

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

const PREFIX: &str = "ADJUTANT_";

/// Variables that are no settings: the file to read, the operator CLI's, those of `scripts/` and of
/// `docker-compose.yml`.
const OTHERS: [&str; 11] = [
    "ADJUTANT_CONFIG",
    "ADJUTANT_API",
    "ADJUTANT_TOKEN",
    "ADJUTANT_PRIVATE_SERVICES",
    "ADJUTANT_SERVICES_DIR",
    "ADJUTANT_RABBITMQ_ROOT",
    "ADJUTANT_RABBITMQCTL",
    "ADJUTANT_TRIXIE_ROOT",
    "ADJUTANT_DEBIAN_MIRROR",
    "ADJUTANT_POSTGRES_PASSWORD",
    "ADJUTANT_RABBITMQ_PASSWORD",
];
/// And those of the test suite.
const OF_TESTS: &str = "ADJUTANT_TEST_";
/// The place where this process aborts. Without the feature it is refused like any other name: who
/// sets it must not believe that it works.
const FAILPOINT: Option<&str> =
    if cfg!(feature = "failpoints") { Some("ADJUTANT_FAILPOINT") } else { None };

/// Variables with a name of their own. Each is the only one for its setting.
const NAMED: [(&str, &str); 2] =
    [("ADJUTANT_DATABASE_URL", "database.url"), ("ADJUTANT_AMQP_URL", "broker.url")];

/// One variable that is a setting.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    /// The variable's name.
    pub(super) name: String,
    /// The setting.
    pub(super) key: String,
    value: String,
}

/// The variables that are settings, or the ones that pretend to be.
pub(super) fn settings(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Variable>, Vec<String>> {
    let (mut settings, mut errors) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let is_other = OTHERS.contains(&name.as_str()) || FAILPOINT == Some(&name);
        if is_other || name.starts_with(OF_TESTS) {
            continue;
        }
        let named = NAMED.into_iter().find(|(variable, _)| *variable == name);
        let key = match named {
            Some((_, key)) => key.to_owned(),
            None => rest.to_lowercase().replace("__", "."),
        };
        let reserved = NAMED.into_iter().find(|(_, setting)| *setting == key);
        match reserved {
            Some((proper, _)) if named.is_none() => {
                errors.push(format!("environment variable {name}: use {proper}"));
            }
            _ => settings.push(Variable { name, key, value }),
        }
    }
    if errors.is_empty() { Ok(settings) } else { Err(errors) }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("environment variable {}", self.name))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        // Numbers, truth values and lists are read as such; everything else is text.
        let value = match self.value.parse::<Value>() {
            Ok(value) if !self.key.ends_with("url") => value,
            _ => Value::from(self.value.as_str()),
        };
        let Value::Dict(_, tree) = figment::util::nest(&self.key, value) else {
            return Err(format!("{} names no setting", self.name).into());
        };
        Ok(Profile::Default.collect(tree))
    }
}
