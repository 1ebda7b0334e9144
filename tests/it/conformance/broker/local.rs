//! The in-process broker under test.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use adjutant::{
    broker::{
        Broker, Confirmation,
        local::{LocalBroker, LocalMessage, LocalSettings, Replies},
    },
    message::PartitionCount,
};
use futures_util::FutureExt;

use super::bed::{Testbed, Wants};

pub struct LocalBed {
    broker: LocalBroker,
    replies: Mutex<BTreeMap<String, Replies>>,
}

impl Testbed for LocalBed {
    async fn with(wants: Wants) -> Self {
        let settings = LocalSettings {
            prefix: "it".to_owned(),
            queue_max_messages: wants.queue_max_messages,
            delivery_limit: wants.delivery_limit,
            ..LocalSettings::default()
        };
        let broker = LocalBroker::new(settings, PartitionCount::new(2).unwrap());
        broker.declare(&wants.groups).await.unwrap();
        Self { broker, replies: Mutex::default() }
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    fn another(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.connect())
    }

    fn name(&self, rest: &str) -> String {
        format!("it.{rest}")
    }

    async fn cut(&self) {
        for queue in self.broker.queue_names() {
            self.broker.close_consumers(&queue);
        }
    }

    async fn down(&self) {
        self.broker.go_away();
    }

    async fn up(&self) {
        self.broker.come_back();
    }

    async fn delete(&self, queue: &str) {
        assert!(self.broker.delete_queue(queue));
    }

    async fn depth(&self, queue: &str) -> Option<usize> {
        self.broker.depth(queue)
    }

    async fn send(&self, queue: &str, message: LocalMessage) {
        assert_eq!(self.broker.send(queue, message).unwrap(), Confirmation::Published);
    }

    async fn take(&self, queue: &str) -> Option<LocalMessage> {
        let mut replies = self.replies.lock().unwrap();
        match replies.get_mut(queue) {
            Some(replies) => replies.next().now_or_never().map(Result::unwrap),
            None => self.broker.take(queue),
        }
    }

    async fn reply_queue(&self, queue: &str, room: usize) {
        let declared = self.broker.replies(queue, room).unwrap();
        self.replies.lock().unwrap().insert(queue.to_owned(), declared);
    }
}
