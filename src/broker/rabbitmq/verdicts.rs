//! Which published message was returned. RabbitMQ answers an unroutable `mandatory` message with
//! a return and then a confirm; lapin 4.12 hands the *oldest* waiting return to whichever confirm
//! it resolves next, and resolves the confirms of one `multiple` ack in random order. So a return
//! says nothing about the confirm it came with: it is matched by message id.
//!
//! When is it certain that a message was *not* returned? Returns are queued in publish order, and
//! a message's return is queued before its confirm. Hence, at the moment a confirm resolves:
//! without a return, the queue was empty: whatever was returned is known to us by the end of the
//! round. With the return of another message, its own may still be queued behind, until a later
//! message's return has been seen, or a confirm of a later round found the queue empty, or nothing
//! is in flight any more.

use std::collections::BTreeMap;

use crate::broker::Confirmation;

/// The messages of one channel that have no verdict yet, by their number in publish order.
#[derive(Default)]
pub(super) struct Verdicts {
    waiting: BTreeMap<u64, Waiting>,
    answered: Vec<u64>,
    in_flight: usize,
    last_returned: u64,
    round: u64,
    queue_was_empty: bool,
}

struct Waiting {
    id: i64,
    returned: bool,
    answer: Option<Answer>,
}

enum Answer {
    Refused,
    /// Confirmed while no return was queued.
    Alone,
    /// Confirmed with the return of another message, in this round.
    WithAnother(u64),
}

impl Verdicts {
    /// A message was sent. Numbers start at 1 and increase.
    pub(super) fn sent(&mut self, number: u64, id: i64) {
        self.in_flight += 1;
        self.waiting.insert(number, Waiting { id, returned: false, answer: None });
    }

    /// A confirm resolved, with or without the return of some message.
    pub(super) fn confirmed(&mut self, number: u64, acked: bool, returned: Option<i64>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match returned {
            None => self.queue_was_empty = true,
            Some(id) => self.mark_returned(id),
        }
        if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.answer = Some(match (acked, returned) {
                (false, _) => Answer::Refused,
                (true, None) => Answer::Alone,
                (true, Some(_)) => Answer::WithAnother(self.round),
            });
            self.answered.push(number);
        }
    }

    fn mark_returned(&mut self, id: i64) {
        let message = self.waiting.iter_mut().find(|(_, w)| w.id == id && !w.returned);
        if let Some((number, waiting)) = message {
            waiting.returned = true;
            self.last_returned = self.last_returned.max(*number);
        }
    }

    /// A message failed, or nobody waits for it any longer. `resolved`: its confirm is done.
    pub(super) fn forget(&mut self, number: u64, resolved: bool) {
        self.waiting.remove(&number);
        if resolved {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// Ends a round: every confirm that had resolved by now was reported. Says what is certain.
    pub(super) fn end_round(&mut self) -> Vec<(u64, Confirmation)> {
        let mut certain = Vec::with_capacity(self.answered.len());
        let answered = std::mem::take(&mut self.answered);
        for number in answered {
            let Some(waiting) = self.waiting.get(&number) else { continue };
            if let Some(verdict) = self.verdict(number, waiting) {
                self.waiting.remove(&number);
                certain.push((number, verdict));
            } else {
                self.answered.push(number);
            }
        }
        self.round += 1;
        self.queue_was_empty = false;
        certain
    }

    fn verdict(&self, number: u64, waiting: &Waiting) -> Option<Confirmation> {
        match waiting.answer.as_ref()? {
            _ if waiting.returned => Some(Confirmation::Unroutable),
            Answer::Refused => Some(Confirmation::Refused),
            Answer::Alone => Some(Confirmation::Published),
            Answer::WithAnother(round) => {
                let nothing_behind = self.last_returned > number
                    || self.in_flight == 0
                    || (self.queue_was_empty && *round < self.round);
                nothing_behind.then_some(Confirmation::Published)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use super::*;

    /// A small generator (xorshift64) so that the test needs no crate and repeats exactly.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    /// Plays RabbitMQ and lapin: returns in publish order, each before its confirm; confirms in
    /// any order; the oldest queued return goes with whichever confirm resolves next.
    #[test]
    fn returns_are_matched_whatever_the_order_of_confirms() {
        for seed in 1..400 {
            let mut random = Random(seed);
            let mut verdicts = Verdicts::default();
            let mut expected = HashMap::new();
            let mut got = HashMap::new();
            let (mut returns, mut unresolved) = (VecDeque::new(), Vec::new());
            for number in 1..=200_u64 {
                let unroutable = random.below(100) < 30;
                verdicts.sent(number, 1_000 + number as i64);
                if unroutable {
                    returns.push_back(1_000 + number as i64);
                }
                expected.insert(number, unroutable);
                unresolved.push(number);
                let resolve = if number == 200 { 200 } else { random.below(4) };
                for _ in 0..resolve {
                    if unresolved.is_empty() {
                        break;
                    }
                    let index = random.below(unresolved.len() as u64) as usize;
                    let number = unresolved.swap_remove(index);
                    verdicts.confirmed(number, true, returns.pop_front());
                    if random.below(3) == 0 {
                        got.extend(verdicts.end_round());
                    }
                }
            }
            got.extend(verdicts.end_round());
            for (number, unroutable) in expected {
                let verdict =
                    if unroutable { Confirmation::Unroutable } else { Confirmation::Published };
                assert_eq!(got.get(&number), Some(&verdict), "seed {seed}, message {number}");
            }
            assert!(verdicts.waiting.is_empty());
        }
    }

    #[test]
    fn a_refused_message_is_refused() {
        let mut verdicts = Verdicts::default();
        verdicts.sent(1, 7);
        verdicts.confirmed(1, false, None);
        assert_eq!(verdicts.end_round(), vec![(1, Confirmation::Refused)]);
    }
}
