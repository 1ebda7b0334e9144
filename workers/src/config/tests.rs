use super::*;
use adjutant::store::Role::{Ingress, Relay};
use std::io::Write;

fn with(variables: &[(&str, &str)], flags: &Settings) -> Result<Config, ConfigError> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&Settings::default(), None, owned, flags)
}

fn message(result: Result<Config, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

/// A file that is gone when dropped.
struct TemporaryFile(std::path::PathBuf);

impl TemporaryFile {
    fn containing(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bank-{}.toml", uuid::Uuid::now_v7()));
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_default_file_names_every_setting() {
    let config = with(&[], &Settings::default()).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.roles, Roles::all());
    assert!(config.require_urls().unwrap_err().to_string().contains("ADJUTANT_AMQP_URL"));
    assert_eq!(config.place().unwrap(), Place::Embedded("adjutant-data".as_ref()));
}

#[test]
fn the_later_layer_wins() {
    let file = TemporaryFile::containing("[log]\nlevel = 'warn'\nformat = 'json'\n");
    let variables = [("ADJUTANT_LOG__LEVEL".to_owned(), "error".to_owned())];
    let read = |flags: &Settings| {
        load(&Settings::default(), Some(&file.0), variables.clone(), flags).unwrap().log
    };
    assert_eq!(read(&Settings::default()).level, "error");
    assert_eq!(read(&Settings::default()).format, LogFormat::Json);
    let mut flags = Settings::default();
    flags.set("log.level", Some("debug")).set_pair("log.format=text").unwrap();
    assert_eq!(read(&flags).level, "debug");
    assert_eq!(read(&flags).format, LogFormat::Text);
}

#[test]
fn a_command_may_have_defaults_of_its_own_that_everything_else_overrides() {
    let mut base = Settings::default();
    base.set("log.level", Some("warn"));
    let level = |variables: Vec<(String, String)>| {
        load(&base, None, variables, &Settings::default()).unwrap().log.level
    };
    assert_eq!(level(vec![]), "warn");
    assert_eq!(level(vec![("ADJUTANT_LOG__LEVEL".into(), "debug".into())]), "debug");
}

#[test]
fn one_url_without_the_other_explains_itself() {
    let database = ("ADJUTANT_DATABASE_URL", "postgres://db/bank");
    let broker = ("ADJUTANT_AMQP_URL", "amqp://mq");
    let place = |variables: &[(&str, &str)], flags: &Settings| {
        let config = with(variables, flags).unwrap();
        config.place().map(|place| format!("{place:?}")).map_err(|error| error.to_string())
    };
    let none = Settings::default();
    assert_eq!(place(&[database, broker], &none).unwrap(), "Services");
    let words = place(&[database], &none).unwrap_err();
    assert!(words.contains("set ADJUTANT_AMQP_URL), or neither"), "{words}");
    let words = place(&[broker], &none).unwrap_err();
    assert!(words.contains("set ADJUTANT_DATABASE_URL), or neither"), "{words}");
    let mut relay = Settings::default();
    relay.set("roles", Some("relay"));
    let words = place(&[], &relay).unwrap_err();
    assert!(words.contains("single roles need PostgreSQL and RabbitMQ"), "{words}");
    assert_eq!(place(&[database, broker], &relay).unwrap(), "Services");
}

#[test]
fn urls_come_from_two_variables_and_no_others() {
    let stray = with(&[("DATABASE_URL", "postgres://stray")], &Settings::default()).unwrap();
    assert!(stray.database.url.is_empty());
    let variables = [
        ("ADJUTANT_DATABASE_URL", "postgres://me:s3cret@db/bank"),
        ("ADJUTANT_AMQP_URL", "amqp://mq"),
    ];
    let config = with(&variables, &Settings::default()).unwrap();
    assert_eq!(config.database.url.expose(), "postgres://me:s3cret@db/bank");
    assert_eq!(config.broker.url.expose(), "amqp://mq");
    assert!(config.require_urls().is_ok());
    assert!(!format!("{config:?}").contains("s3cret"));
    let refused = message(with(&[("ADJUTANT_DATABASE__URL", "x")], &Settings::default()));
    assert!(refused.contains("use ADJUTANT_DATABASE_URL"), "{refused}");
}

#[test]
fn unknown_keys_are_errors_that_name_the_key_and_its_place() {
    let variable = message(with(&[("ADJUTANT_SERVER__LISSEN", "x")], &Settings::default()));
    assert!(variable.contains("ADJUTANT_SERVER__LISSEN"), "{variable}");
    assert!(variable.contains("did you mean server.listen?"), "{variable}");

    let file = TemporaryFile::containing("[relay]\ncolour = 3\n[relais]\nbatch = 3\n");
    let file_error = message(load(&Settings::default(), Some(&file.0), [], &Settings::default()));
    assert!(file_error.contains("no setting relay.colour"), "{file_error}");
    assert!(file_error.contains("relais.batch (did you mean relay.batch?)"), "{file_error}");

    let mut flags = Settings::default();
    flags.set_pair("server=3").unwrap();
    assert!(message(with(&[], &flags)).contains("no setting server"));
}

#[test]
fn a_wrong_value_is_told_with_its_key_and_place() {
    let wrong = message(with(&[("ADJUTANT_WORKER__BATCH", "many")], &Settings::default()));
    assert!(wrong.contains("worker.batch"), "{wrong}");
    assert!(wrong.contains("ADJUTANT_WORKER__BATCH"), "{wrong}");
    let zero = message(with(&[("ADJUTANT_WORKER__BATCH", "0")], &Settings::default()));
    assert!(zero.contains("worker.batch must be at least 1"), "{zero}");
}

#[test]
fn roles_are_a_word_a_line_or_a_list() {
    let roles = |text| with(&[("ADJUTANT_ROLES", text)], &Settings::default()).map(|c| c.roles);
    assert_eq!(roles("relay,ingress").unwrap().as_slice(), [Ingress, Relay]);
    assert_eq!(roles("[\"relay\"]").unwrap().as_slice(), [Relay]);
    assert_eq!(roles("all").unwrap(), Roles::all());
    assert!(roles("chef").unwrap_err().to_string().contains("`chef` is no role"));
}

#[test]
fn variables_of_tests_and_other_programs_are_no_settings() {
    let variables = [("ADJUTANT_TEST_DATABASE_URL", "x"), ("ADJUTANT_CONFIG", "y")];
    assert!(with(&variables, &Settings::default()).is_ok());
}

#[test]
fn a_webhook_is_checked_and_never_shown() {
    let webhooks = |list| with(&[("ADJUTANT_NOTIFY__WEBHOOKS", list)], &Settings::default());
    let config = webhooks(
        r#"[{url="https://hooks.example/T0/s3cret",kind="slack",secret="whsec_plJ3nmyCDGBKInavdOK15jsl"},
            {url="http://127.0.0.1:9/x",kind="json"}]"#,
    )
    .unwrap();
    assert_eq!(config.notify.settings().unwrap().webhooks.len(), 2);
    for shown in [format!("{config:?}"), toml::to_string(&config).unwrap()] {
        assert!(!shown.contains("s3cret") && !shown.contains("plJ3"), "{shown}");
    }

    let refused = |list| message(webhooks(list));
    let scheme = refused(r#"[{url="ftp://s3cret/",kind="json"}]"#);
    assert!(
        scheme.contains("notify.webhooks, number 1: the URL must begin with https://"),
        "{scheme}"
    );
    let secret = refused(r#"[{url="https://s3cret/",kind="json",secret="s3cret"}]"#);
    assert!(secret.contains("a secret begins with whsec_"), "{secret}");
    let kind = refused(r#"[{url="https://s3cret/",kind="slac"}]"#);
    assert!(kind.contains("\"json\" or \"slack\""), "{kind}");
    let list = refused(r#"{url=https://s3cret/}"#);
    assert!(list.contains("ADJUTANT_NOTIFY__WEBHOOKS"), "{list}");
    let key = refused(r#"[{url="https://s3cret/",kind="json",colour="s3cret"}]"#);
    for text in [scheme, secret, kind, list, key] {
        assert!(text.contains("notify.webhooks") && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn secrets_of_callbacks_are_checked_and_never_shown() {
    let secrets = |list| with(&[("ADJUTANT_CALLBACKS__SECRETS", list)], &Settings::default());
    let both = "[\"whsec_plJ3nmyCDGBKInavdOK15jsl\", \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]";
    let config = secrets(both).unwrap();
    let settings = config.callbacks.settings().unwrap();
    assert_eq!(settings.secrets.len(), 2);
    assert!(settings.target_rules().is_some());
    let shown = [format!("{config:?}{settings:?}"), toml::to_string(&config).unwrap()].join(" ");
    assert!(!shown.contains("plJ3") && !shown.contains("MfKQ"), "{shown}");
    let wrong = message(secrets("[\"s3cret\"]"));
    assert!(wrong.contains("callbacks.secrets, number 1: a secret begins with whsec_"), "{wrong}");
    let no_list = message(secrets("{a=s3cret}"));
    assert!(no_list.contains("write a list of texts"), "{no_list}");
    assert!(!wrong.contains("s3cret") && !no_list.contains("s3cret"), "{wrong} {no_list}");

    let file = |path| with(&[("ADJUTANT_CALLBACKS__SECRETS_FILE", path)], &Settings::default());
    let missing = file("/nowhere/at/all").unwrap().callbacks.settings().unwrap_err().to_string();
    assert!(missing.contains("callbacks.secrets_file `/nowhere/at/all`"), "{missing}");
    let none = with(&[], &Settings::default()).unwrap().callbacks.settings().unwrap();
    assert_eq!(none.target_rules(), None, "off unless there is a secret");
}

#[test]
fn limits_that_make_no_sense_are_told() {
    let refused = |key, value| message(with(&[(key, value)], &Settings::default()));
    let twice = refused("ADJUTANT_NOTIFY__RESOLVE_MS", "9000");
    assert!(twice.contains("notify.resolve_ms must be at least twice"), "{twice}");
    let longer = refused("ADJUTANT_CALLBACKS__GIVE_UP_MS", "2678400001");
    assert!(longer.contains("callbacks.give_up_ms must not be longer than"), "{longer}");
    let waits = refused("ADJUTANT_CALLBACKS__LONGEST_WAIT_MS", "4999");
    assert!(waits.contains("callbacks.longest_wait_ms must be at least"), "{waits}");
    let batch = refused("ADJUTANT_RETENTION__BATCH", "0");
    assert!(batch.contains("retention.batch must be at least 1"), "{batch}");
    let kept = with(&[("ADJUTANT_RETENTION__OUTCOMES_DAYS", "0")], &Settings::default()).unwrap();
    assert_eq!(kept.retention.settings().outcomes, None);
}
