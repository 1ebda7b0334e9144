//! A client by AMQP: it publishes to the intake's queue and counts a command as accepted when the
//! broker has confirmed it. What is durable in that queue is a promise of the service.

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::time::Instant;

use super::{Command, Pace, http, sender::Sender, way::Lane};
use crate::chaos::{
    INTAKE,
    error::ChaosError,
    log::{Door, Told},
    services::connect,
};

/// How long a confirmation may take before the client gives the connection up.
const ATTEMPT: Duration = Duration::from_secs(4);
/// How long a client tries to get a command confirmed.
const PATIENCE: Duration = Duration::from_secs(40);

struct Client {
    sender: Sender,
    broker: String,
    /// The connection is kept only because its channel ends with it.
    open: Option<(Connection, Channel)>,
}

pub(super) async fn run(mut sender: Sender, broker: String, accounts: Vec<String>, mut pace: Pace) {
    let accounts = http::open(&mut sender, &accounts, &pace).await;
    let mut client = Client { sender, broker, open: None };
    while pace.turn().await {
        let Some(account) = client.sender.draw.one_of(&accounts).cloned() else { return };
        let command = Command::any(&account, &mut client.sender.draw);
        client.submit(&command).await;
    }
}

impl Client {
    async fn submit(&mut self, command: &Command) {
        let log = self.sender.log.clone();
        let place = log.sends(self.sender.client, Door::Amqp, command.clone());
        let began = Instant::now();
        loop {
            log.attempts(place, 0);
            let told = match tokio::time::timeout(ATTEMPT, self.attempt(command)).await {
                Ok(told) => told,
                Err(_) => Told::Unknown("no confirmation in time".into()),
            };
            log.told(place, &told);
            if told == Told::Accepted {
                return;
            }
            self.open = None;
            if self.sender.draw.happens(3) || began.elapsed() > PATIENCE {
                return;
            }
            tokio::time::sleep(self.sender.draw.millis(50..400)).await;
        }
    }

    async fn attempt(&mut self, command: &Command) -> Told {
        // Until here nothing was sent.
        let channel = match self.channel().await {
            Ok(channel) => channel,
            Err(error) => return Told::Refused(error.to_string()),
        };
        match publish(&channel, command).await {
            Ok(Confirmation::Ack(None)) => Told::Accepted,
            Ok(Confirmation::Ack(Some(_))) => Told::Refused("it was returned".into()),
            Ok(Confirmation::Nack(_)) => Told::Refused("the broker did not take it".into()),
            Ok(Confirmation::NotRequested) => Told::Unknown("no confirmation".into()),
            Err(error) => Told::Unknown(error.to_string()),
        }
    }

    async fn channel(&mut self) -> Result<Channel, ChaosError> {
        if let Some((connection, channel)) = &self.open
            && connection.status().connected()
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let connection = connect(&self.broker).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        self.open = Some((connection, channel.clone()));
        Ok(channel)
    }
}

async fn publish(channel: &Channel, command: &Command) -> lapin::Result<Confirmation> {
    let properties = BasicProperties::default()
        .with_message_id(command.id.to_string().into())
        .with_content_type("application/json".into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let body = command.body(Lane::Queued).to_string();
    let published =
        channel.basic_publish("".into(), INTAKE.into(), options, body.as_bytes(), properties);
    published.await?.await
}
