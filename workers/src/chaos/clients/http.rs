//! A client by HTTP: commands, repetitions, ids that are taken, lookups.

use std::{collections::VecDeque, time::Duration};

use super::{
    Command, Kind, Pace,
    sender::{Ended, Sender},
};

/// How many of its commands a client remembers, to repeat them and to look them up.
const REMEMBERED: usize = 50;

struct Client {
    sender: Sender,
    accounts: Vec<String>,
    /// What was told accepted, with its place in the log.
    accepted: VecDeque<(usize, Command)>,
}

pub(super) async fn run(sender: Sender, accounts: Vec<String>, mut pace: Pace) {
    let mut client = Client { sender, accounts: Vec::new(), accepted: VecDeque::new() };
    client.open(accounts, &pace).await;
    while pace.turn().await {
        match client.sender.draw.below(100) {
            0..4 => client.repeat().await,
            4..6 => client.take_an_id().await,
            6..13 => client.look_up().await,
            _ => client.send().await,
        }
    }
}

/// Sends commands that abort whoever executes them, each to a drill of its own.
pub(super) async fn abort(mut sender: Sender, mut pace: Pace) {
    let mut number = 0;
    while pace.turn().await {
        number += 1;
        let command = Command::new(Kind::Aborts, &format!("abort-{number}"), &mut sender.draw);
        sender.submit(&command, false).await;
    }
}

/// Opens every account; without that, deposits would be rejected.
pub(super) async fn open(sender: &mut Sender, accounts: &[String], pace: &Pace) -> Vec<String> {
    let mut opened = Vec::new();
    for account in accounts {
        let command = Command::new(Kind::Open, account, &mut sender.draw);
        while !pace.is_over() {
            if let (_, Some(true)) = sender.submit(&command, true).await {
                opened.push(account.clone());
                break;
            }
        }
    }
    opened
}

impl Client {
    async fn open(&mut self, accounts: Vec<String>, pace: &Pace) {
        self.accounts = open(&mut self.sender, &accounts, pace).await;
    }

    async fn send(&mut self) {
        let Some(account) = self.sender.draw.one_of(&self.accounts).cloned() else { return };
        let command = Command::any(&account, &mut self.sender.draw);
        if let (place, Some(true)) = self.sender.submit(&command, false).await {
            self.accepted.push_back((place, command));
            if self.accepted.len() > REMEMBERED {
                self.accepted.pop_front();
            }
        }
    }

    fn remembered(&mut self) -> Option<(usize, Command)> {
        let place = self.sender.draw.below(self.accepted.len());
        self.accepted.get(place).cloned()
    }

    /// The same once more: it must be taken as what it is.
    async fn repeat(&mut self) {
        let Some((_, command)) = self.remembered() else { return };
        let Ok(answer) = self.sender.post(&command).await else { return };
        if answer.status.is_client_error() && answer.status.as_u16() != 429 {
            let (id, words) = (command.id, answer.in_words());
            self.sender.log.violated(format!("a repetition of command {id} was refused: {words}"));
        }
    }

    /// Another command with an id that is taken: it must not be accepted.
    async fn take_an_id(&mut self) {
        let Some((_, command)) = self.remembered() else { return };
        let account = format!("{}-other", command.account);
        let other = Command { account, ..command };
        let Ok(answer) = self.sender.post(&other).await else { return };
        if answer.status.is_success() {
            let (id, words) = (other.id, answer.in_words());
            self.sender.log.violated(format!(
                "another command with the id {id}, which is taken, was accepted: {words}"
            ));
        }
    }

    /// What was accepted is there, whoever is asked; and a view shows it when it says so.
    async fn look_up(&mut self) {
        let Some((place, command)) = self.remembered() else { return };
        let path = format!("/v1/commands/{}", command.id);
        let Some(answer) = self.sender.get(&path, Duration::from_secs(3)).await else { return };
        self.sender.log.looked_up();
        if answer.status.as_u16() == 404 {
            let id = command.id;
            self.sender.log.violated(format!("command {id} was told accepted; a lookup: 404"));
        }
        let Some(ended) = self.sender.ended(&command).await else { return };
        self.sender.log.shows(place, &ended.status);
        self.read_own_write(&command, &ended).await;
    }

    /// Each event of an account changes its document once, so that the versions are the same.
    async fn read_own_write(&mut self, command: &Command, ended: &Ended) {
        // What poisons the view of drills is left out of it.
        let Some(position) = ended.position.as_ref().filter(|_| !command.kind.is_drill()) else {
            return;
        };
        let Some(version) = self.sender.applied(&command.account, position).await else { return };
        self.sender.log.looked_up();
        if version < ended.version {
            self.sender.log.violated(format!(
                "the view balances/{} said that it had applied {position} (version {}) and was at \
                 version {version}",
                command.account, ended.version
            ));
        }
    }
}
