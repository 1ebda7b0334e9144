//! A client by HTTP: commands through both lanes, repetitions, ids that are taken, lookups, commands
//! that are called off.

use std::{collections::VecDeque, time::Duration};

use super::{
    Command, Kind, Pace,
    cancelling::CallingOff,
    sender::{Patience, Sender},
    way::{Lane, Times, Way},
};
use crate::chaos::log::Ended;

/// How many of its commands a client remembers, to repeat them and to look them up.
const REMEMBERED: usize = 50;

struct Client {
    sender: Sender,
    cancelling: CallingOff,
    accounts: Vec<String>,
    /// What was told accepted, with its place in the log.
    accepted: VecDeque<(usize, Command)>,
}

/// `other` has connections of its own: commands are called off while they are sent.
pub(super) async fn run(sender: Sender, other: Sender, accounts: Vec<String>, mut pace: Pace) {
    let cancelling = CallingOff::new(other);
    let (opened, accepted) = (Vec::new(), VecDeque::new());
    let mut client = Client { sender, cancelling, accounts: opened, accepted };
    client.open(accounts, &pace).await;
    while pace.turn().await {
        match client.sender.draw.below(1_000) {
            0..40 => client.repeat().await,
            40..60 => client.take_an_id().await,
            60..130 => client.look_up().await,
            130..165 => client.send_and_call_off().await,
            165..175 => client.call_off().await,
            175..178 => client.call_off_all().await,
            _ => client.send().await,
        }
    }
}

/// Sends commands that abort whoever executes them, each to a drill of its own.
pub(super) async fn abort(mut sender: Sender, mut pace: Pace) {
    let mut number = 0;
    while pace.turn().await {
        number += 1;
        let mut command = Command::new(Kind::Aborts, &format!("abort-{number}"), &mut sender.draw);
        let patience = match sender.draw.below(100) {
            0..60 => Patience::Usual,
            // It is durable first. Its process dies, and who takes it over counts the crashes.
            60..80 => {
                command.way = Way { lane: Lane::Immediate, ..Way::QUEUED };
                Patience::Usual
            }
            // It would be accepted by the transaction that executes it, and dies with its process:
            // there is nothing to count by. Whoever sends it again aborts the next one.
            _ => {
                command.way = Way { lane: Lane::Immediate, waits: 1, ..Way::QUEUED };
                Patience::Once
            }
        };
        sender.submit(&command, patience).await;
    }
}

/// Opens every account and waits until it is open; without that, deposits that another lane brings
/// would be rejected.
pub(super) async fn open(sender: &mut Sender, accounts: &[String], pace: &Pace) -> Vec<String> {
    let mut opened = Vec::new();
    for account in accounts {
        let mut command = Command::new(Kind::Open, account, &mut sender.draw);
        command.way = Way::any(&mut sender.draw);
        while !pace.is_over() {
            if let (_, Some(true)) = sender.submit(&command, Patience::Long).await {
                break;
            }
        }
        while !pace.is_over() {
            if sender.ended(&command).await.is_some() {
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
        let Some(command) = self.any_command() else { return };
        if let (place, Some(true)) = self.sender.submit(&command, Patience::Usual).await {
            self.remember(place, command);
        }
    }

    fn any_command(&mut self) -> Option<Command> {
        let account = self.sender.draw.one_of(&self.accounts)?.clone();
        let command = Command::any(&account, &mut self.sender.draw);
        Some(Command { way: Way::any(&mut self.sender.draw), ..command })
    }

    fn remember(&mut self, place: usize, command: Command) {
        self.accepted.push_back((place, command));
        if self.accepted.len() > REMEMBERED {
            self.accepted.pop_front();
        }
    }

    /// Sends a command and calls it off: while it is sent, at once, or after a while. Half of them are
    /// not due yet.
    async fn send_and_call_off(&mut self) {
        let Some(mut command) = self.any_command() else { return };
        if self.sender.draw.happens(50) {
            command.times = Times::later(&mut self.sender.draw);
        }
        let (before, pause) = match self.sender.draw.below(3) {
            0 => (true, self.sender.draw.millis(0..30)),
            1 => (false, self.sender.draw.millis(0..10)),
            _ => (false, self.sender.draw.millis(50..1_000)),
        };
        if before {
            let Self { sender, cancelling, .. } = self;
            let call_off = async {
                tokio::time::sleep(pause).await;
                cancelling.one(command.id, false).await;
            };
            let submit = sender.submit(&command, Patience::Usual);
            let ((place, accepted), ()) = futures_util::future::join(submit, call_off).await;
            if accepted == Some(true) {
                self.remember(place, command);
            }
            return;
        }
        if let (place, Some(true)) = self.sender.submit(&command, Patience::Usual).await {
            tokio::time::sleep(pause).await;
            self.cancelling.one(command.id, true).await;
            self.remember(place, command);
        }
    }

    /// Most of them have ended.
    async fn call_off(&mut self) {
        if let Some((_, command)) = self.remembered() {
            self.cancelling.one(command.id, true).await;
        }
    }

    async fn call_off_all(&mut self) {
        if let Some((_, command)) = self.remembered() {
            self.cancelling.all_of(&command.stream()).await;
        }
    }

    fn remembered(&mut self) -> Option<(usize, Command)> {
        let place = self.sender.draw.below(self.accepted.len());
        self.accepted.get(place).cloned()
    }

    /// The same once more, through any lane: it must be taken as what it is.
    async fn repeat(&mut self) {
        let Some((place, mut command)) = self.remembered() else { return };
        command.way = Way::any(&mut self.sender.draw);
        let Ok(answer) = self.sender.post(&command).await else { return };
        if answer.status.is_success() {
            let resource = serde_json::from_slice(&answer.body).unwrap_or_default();
            if let Some(ended) = Ended::of(&resource) {
                self.sender.log.shows(place, &ended);
            }
        }
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
        self.sender.log.shows(place, &ended);
        self.read_own_write(&command, &ended).await;
    }

    /// Each event of an account changes its document once, so that the versions are the same.
    async fn read_own_write(&mut self, command: &Command, ended: &Ended) {
        // What poisons the view of drills is left out of it.
        let Some(position) = ended.positions.first().filter(|_| !command.kind.is_drill()) else {
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
