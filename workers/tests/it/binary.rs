//! The binary, run as a user runs it.

use std::process::{Command, Output};

/// `bank` with nothing of this process's settings in its environment.
pub(crate) fn bank() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ADJUTANT_")) {
        command.env_remove(name);
    }
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_default_configuration_is_printed_and_read_back() {
    let printed = bank().arg("config").output().unwrap();
    assert!(printed.status.success());
    let path = std::env::temp_dir().join(format!("bank-{}.toml", uuid::Uuid::now_v7()));
    std::fs::write(&path, stdout(&printed)).unwrap();
    let effective = bank()
        .args(["config", "--effective", "--config"])
        .arg(&path)
        .env("ADJUTANT_DATABASE_URL", "postgres://me:secret@db/bank")
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(effective.status.success(), "{}", stderr(&effective));
    assert!(stdout(&effective).contains("postgres://me:***@db/bank"), "{}", stdout(&effective));
}

#[test]
fn what_is_asked_for_wrongly_is_told_and_exits_with_2() {
    let cases: [(&[&str], (&str, &str), &str); 4] = [
        (&["serve"], ("DATABASE_URL", "postgres://stray"), "ADJUTANT_DATABASE_URL"),
        (&["serve"], ("ADJUTANT_SERVER__PORT", "1"), "no setting server.port"),
        (&["serve", "--role", "chef"], ("A", "b"), "`chef` is no role"),
        (&["verify", "--set", "nonsense"], ("A", "b"), "key=value"),
    ];
    for (args, (name, value), words) in cases {
        let output = bank().args(args).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
}
