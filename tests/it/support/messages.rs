//! Messages that mean nothing, and what is done with them.

use adjutant::{
    broker::{
        Confirmation, Consumer, Delivery, GroupPartition, LogHeaders, OutboundMessage, Publisher,
        Recorded,
    },
    message::{GroupName, LogId, Offset, Partition, Route, Timestamp},
};

use super::soon;

pub const P0: Partition = Partition(0);
pub const P1: Partition = Partition(1);

pub fn commands(partition: Partition) -> GroupPartition {
    GroupPartition { group: GroupName::commands(), partition }
}

pub fn log(first_offset: i64) -> LogHeaders {
    LogHeaders {
        log_id: LogId("0190b3c4-0000-7000-8000-000000000001".parse().unwrap()),
        first_offset: Offset(first_offset),
        recorded: vec![Recorded {
            entries: 3,
            at: Timestamp::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap(),
        }],
    }
}

pub fn message(id: i64, route: Route) -> OutboundMessage {
    OutboundMessage {
        id,
        route,
        log: Some(log(id)),
        correlation_id: None,
        content_type: "application/msgpack".to_owned(),
        headers: Vec::new(),
        body: format!("body {id}").into_bytes().into(),
    }
}

pub async fn publish(publisher: &dyn Publisher, message: OutboundMessage) -> Confirmation {
    let pending = publisher.publish(message).await.unwrap();
    soon("a confirmation", pending).await.unwrap()
}

pub async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    soon("a delivery", consumer.next()).await.unwrap()
}
