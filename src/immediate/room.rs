//! The waiting room: who waits for execution, by stream. Commands of a stream run in the order of
//! their arrival, one batch at a time; streams take turns, so that a flood to one of them does not
//! starve the others.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::message::{CommandId, StreamId};

/// How many commands of one stream are taken before it is the next one's turn.
const QUANTUM: usize = 8;

/// The place of a command in the room: lower ones came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket(u64);

/// What waits.
pub(super) trait Waits {
    fn id(&self) -> CommandId;
    /// What it weighs, roughly.
    fn bytes(&self) -> usize;
    /// Whether it may be executed; if not, those of its stream that came later wait behind it.
    fn is_ready(&self) -> bool;
}

pub(super) struct Room<T> {
    streams: HashMap<StreamId, Stream<T>>,
    /// Streams whose first command is ready and that are not being executed.
    turns: VecDeque<StreamId>,
    next_ticket: u64,
    most: usize,
    most_bytes: usize,
    /// Those that were taken are in the room until they are done with.
    commands: usize,
    bytes: usize,
    running: usize,
    closed: bool,
    /// Of all that are in the room.
    ids: HashMap<CommandId, Known>,
}

/// How often an id is in the room, and in which stream it came last.
struct Known {
    count: usize,
    stream: StreamId,
}

struct Stream<T> {
    waiting: BTreeMap<Ticket, Box<T>>,
    runs: bool,
    has_turn: bool,
}

/// Commands with their places.
type InPlace<T> = Vec<(Ticket, Box<T>)>;

/// Commands that were taken out to be executed, and what they weigh.
pub(super) struct Taken<T> {
    pub(super) commands: InPlace<T>,
    streams: Vec<StreamId>,
    bytes: usize,
}

impl<T: Waits> Room<T> {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            streams: HashMap::new(),
            turns: VecDeque::new(),
            next_ticket: 0,
            most,
            most_bytes,
            commands: 0,
            bytes: 0,
            running: 0,
            closed: false,
            ids: HashMap::new(),
        }
    }

    /// For how many there is a place, by their number; none if their bytes fill the room.
    pub(super) fn free(&self) -> usize {
        let is_full = self.closed || self.bytes >= self.most_bytes;
        if is_full { 0 } else { self.most.saturating_sub(self.commands) }
    }

    /// Commands in the room, their bytes, and how many of them are being executed.
    pub(super) fn load(&self) -> (usize, usize, usize) {
        (self.commands, self.bytes, self.running)
    }

    /// A place behind all that are there; gives it back if there is no room. What would be alone
    /// always fits.
    pub(super) fn enter(&mut self, stream: &StreamId, command: Box<T>) -> Result<Ticket, Box<T>> {
        let bytes = command.bytes();
        let fits = self.commands < self.most && self.bytes + bytes <= self.most_bytes;
        if self.closed || (!fits && self.commands > 0) {
            return Err(command);
        }
        self.commands += 1;
        self.bytes += bytes;
        self.know(command.id(), stream);
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.put(stream, ticket, command);
        Ok(ticket)
    }

    fn put(&mut self, stream: &StreamId, ticket: Ticket, command: Box<T>) {
        let place = self.streams.entry(stream.clone()).or_insert_with(|| Stream {
            waiting: BTreeMap::new(),
            runs: false,
            has_turn: false,
        });
        place.waiting.insert(ticket, command);
        self.look(stream);
    }

    /// Gives a stream its turn if its first command is ready; forgets it if it has none.
    fn look(&mut self, stream: &StreamId) {
        let Some(place) = self.streams.get_mut(stream) else { return };
        let first = place.waiting.first_key_value();
        if !place.runs && !place.has_turn && first.is_some_and(|(_, it)| it.is_ready()) {
            place.has_turn = true;
            self.turns.push_back(stream.clone());
        } else if first.is_none() && !place.runs {
            self.streams.remove(stream);
        }
    }

    /// Changes a command that waits; `None`: it is not there, or it is being executed.
    pub(super) fn change<R>(
        &mut self,
        stream: &StreamId,
        ticket: Ticket,
        change: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let changed = change(self.streams.get_mut(stream)?.waiting.get_mut(&ticket)?);
        self.look(stream);
        Some(changed)
    }

    /// Takes a command out for good.
    pub(super) fn remove(&mut self, stream: &StreamId, ticket: Ticket) -> Option<Box<T>> {
        let command = self.streams.get_mut(stream)?.waiting.remove(&ticket)?;
        self.commands -= 1;
        self.bytes -= command.bytes();
        self.forget(command.id());
        self.look(stream);
        Some(command)
    }

    /// Takes a command out that waits, if it `may` leave.
    pub(super) fn remove_id(&mut self, id: CommandId, may: impl Fn(&T) -> bool) -> Option<Box<T>> {
        let stream = self.ids.get(&id)?.stream.clone();
        let mut waiting = self.streams.get(&stream)?.waiting.iter();
        let it = waiting.find(|(_, it)| it.id() == id && may(it));
        let ticket = *it?.0;
        self.remove(&stream, ticket)
    }

    /// Whether a command is in the room: it waits, or it is being executed.
    pub(super) fn holds(&self, id: CommandId) -> bool {
        self.ids.contains_key(&id)
    }

    fn know(&mut self, id: CommandId, stream: &StreamId) {
        let known = self.ids.entry(id);
        known.or_insert_with(|| Known { count: 0, stream: stream.clone() }).count += 1;
    }

    fn forget(&mut self, id: CommandId) {
        if let Some(known) = self.ids.get_mut(&id) {
            known.count -= 1;
            if known.count == 0 {
                self.ids.remove(&id);
            }
        }
    }

    /// Nobody enters any more; gives back who waits and whom `leaves` says.
    pub(super) fn close(&mut self, leaves: impl Fn(&T) -> bool) -> Vec<Box<T>> {
        self.closed = true;
        let mut all = Vec::new();
        for (stream, place) in &self.streams {
            for (ticket, command) in &place.waiting {
                if leaves(command) {
                    all.push((stream.clone(), *ticket));
                }
            }
        }
        all.sort_by_key(|(_, ticket)| *ticket);
        all.iter().filter_map(|(stream, ticket)| self.remove(stream, *ticket)).collect()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Takes up to `most` commands that are ready, no id twice: a few of each stream in turn, in as
    /// many rounds as it takes.
    pub(super) fn take(&mut self, most: usize) -> Taken<T> {
        let mut taken = Taken { commands: Vec::new(), streams: Vec::new(), bytes: 0 };
        let mut ids = HashSet::new();
        while taken.commands.len() < most {
            let Some(stream) = self.turns.pop_front() else { break };
            let Some(place) = self.streams.get_mut(&stream) else { continue };
            let mut left = QUANTUM.min(most - taken.commands.len());
            while left > 0
                && let Some(first) = place.waiting.first_entry()
                // Its head may have become unready since it got its turn.
                && first.get().is_ready()
                && ids.insert(first.get().id())
            {
                let (ticket, command) = first.remove_entry();
                taken.bytes += command.bytes();
                taken.commands.push((ticket, command));
                left -= 1;
            }
            let goes_on = left == 0
                && place.waiting.first_key_value().is_some_and(|(_, first)| first.is_ready());
            if !place.runs {
                place.runs = !planted!(StreamNotSerialised);
                taken.streams.push(stream.clone());
            }
            place.has_turn = goes_on;
            if goes_on {
                // Another round, if there is room in this batch when all had their turn.
                self.turns.push_back(stream);
            }
        }
        // Those that still have a turn are being executed: they get it back afterwards.
        let streams = &mut self.streams;
        self.turns.retain(|stream| {
            let Some(place) = streams.get_mut(stream) else { return false };
            place.has_turn = !place.runs;
            place.has_turn
        });
        self.running += taken.commands.len();
        taken
    }

    /// They were executed, but for those in `back`, which take their old places.
    pub(super) fn done(
        &mut self,
        taken: &[CommandId],
        bytes: usize,
        streams: &[StreamId],
        back: Back<T>,
    ) {
        self.running -= taken.len();
        self.commands -= taken.len() - back.len();
        for id in taken {
            self.forget(*id);
        }
        for (stream, _, command) in &back {
            self.know(command.id(), stream);
        }
        self.bytes -= bytes - back.iter().map(|(_, _, command)| command.bytes()).sum::<usize>();
        for (stream, ticket, command) in back {
            self.put(&stream, ticket, command);
        }
        for stream in streams {
            if let Some(place) = self.streams.get_mut(stream) {
                place.runs = false;
            }
            self.look(stream);
        }
    }
}

/// Commands that were taken and come back, with their streams and places.
pub(super) type Back<T> = Vec<(StreamId, Ticket, Box<T>)>;

impl<T> Taken<T> {
    pub(super) fn into_parts(self) -> (InPlace<T>, Vec<StreamId>, usize) {
        (self.commands, self.streams, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Command {
        id: CommandId,
        name: String,
        ready: bool,
    }

    impl Waits for Command {
        fn id(&self) -> CommandId {
            self.id
        }
        fn bytes(&self) -> usize {
            10
        }
        fn is_ready(&self) -> bool {
            self.ready
        }
    }

    fn stream(name: &str) -> StreamId {
        format!("s/{name}").parse().unwrap()
    }

    fn enter(room: &mut Room<Command>, name: &str, ready: bool) -> Option<Ticket> {
        let id = CommandId::generate();
        let of = stream(name.trim_end_matches(char::is_numeric));
        room.enter(&of, Box::new(Command { id, name: name.into(), ready })).ok()
    }

    fn take(
        room: &mut Room<Command>,
        most: usize,
    ) -> (Vec<String>, impl FnOnce(&mut Room<Command>) + use<>) {
        let (commands, streams, bytes) = room.take(most).into_parts();
        let names: Vec<_> = commands.iter().map(|(_, command)| command.name.clone()).collect();
        let ids: Vec<_> = commands.iter().map(|(_, command)| command.id).collect();
        (names, move |room: &mut Room<Command>| room.done(&ids, bytes, &streams, Vec::new()))
    }

    #[test]
    fn a_stream_runs_in_order_and_one_batch_at_a_time() {
        let mut room = Room::new(100, 1_000);
        for name in ["a1", "a2", "b1"] {
            enter(&mut room, name, true);
        }
        let (first, done) = take(&mut room, 2);
        assert_eq!(first, ["a1", "a2"]);
        enter(&mut room, "a3", true);
        let (second, done_second) = take(&mut room, 10);
        assert_eq!(second, ["b1"], "a is being executed");
        assert!(!room.has_work());
        done(&mut room);
        assert!(room.has_work());
        let (third, done_third) = take(&mut room, 10);
        assert_eq!(third, ["a3"]);
        done_second(&mut room);
        done_third(&mut room);
        assert_eq!(room.load(), (0, 0, 0));
        assert!(room.ids.is_empty());
        assert!(room.streams.is_empty(), "nothing is remembered of streams that nobody asks for");
    }

    #[test]
    fn a_flood_does_not_starve_others() {
        let mut room = Room::new(1_000, 100_000);
        for n in 0..100 {
            enter(&mut room, &format!("flood{n}"), true);
        }
        enter(&mut room, "x1", true);
        enter(&mut room, "y1", true);
        let (first, _) = take(&mut room, 16);
        assert_eq!(first.iter().filter(|name| name.starts_with("flood")).count(), 14);
        assert_eq!(&first[8..10], ["x1", "y1"], "their turn came after the first eight");
    }

    #[test]
    fn what_is_not_ready_holds_its_stream_and_nobody_else() {
        let mut room = Room::new(100, 1_000);
        let first = enter(&mut room, "a1", false).unwrap();
        enter(&mut room, "a2", true);
        enter(&mut room, "b1", true);
        let (taken, done) = take(&mut room, 10);
        assert_eq!(taken, ["b1"]);
        done(&mut room);
        assert!(!room.has_work());
        room.change(&stream("a"), first, |command| command.ready = true);
        assert_eq!(take(&mut room, 10).0, ["a1", "a2"]);
    }

    #[test]
    fn who_leaves_lets_those_behind_go_on() {
        let mut room = Room::new(100, 1_000);
        let first = enter(&mut room, "a1", false).unwrap();
        enter(&mut room, "a2", true);
        assert!(room.remove(&stream("a"), first).is_some());
        assert_eq!(take(&mut room, 10).0, ["a2"]);
        assert!(room.remove(&stream("a"), first).is_none());
    }

    #[test]
    fn who_is_called_off_leaves_if_it_waits_and_may() {
        let mut room = Room::new(100, 1_000);
        enter(&mut room, "a1", true);
        let ids: Vec<_> = room.ids.keys().copied().collect();
        assert!(room.remove_id(ids[0], |_| false).is_none());
        assert!(room.remove_id(CommandId::generate(), |_| true).is_none());
        assert_eq!(room.remove_id(ids[0], |_| true).map(|it| it.name), Some("a1".to_owned()));
        assert_eq!(room.load(), (0, 0, 0));
        assert!(room.ids.is_empty() && room.streams.is_empty());
        enter(&mut room, "a2", true);
        let id = *room.ids.keys().next().unwrap();
        let (_, done) = take(&mut room, 10);
        assert!(room.remove_id(id, |_| true).is_none(), "it is being executed");
        done(&mut room);
        assert_eq!(room.load(), (0, 0, 0));
    }

    #[test]
    fn what_comes_back_takes_its_old_place() {
        let mut room = Room::new(100, 1_000);
        enter(&mut room, "a1", true);
        let (commands, streams, bytes) = room.take(1).into_parts();
        enter(&mut room, "a2", true);
        let ids: Vec<_> = commands.iter().map(|(_, command)| command.id).collect();
        let back = commands.into_iter().map(|(ticket, it)| (stream("a"), ticket, it)).collect();
        room.done(&ids, bytes, &streams, back);
        assert!(room.holds(ids[0]));
        assert_eq!(room.load(), (2, 20, 0));
        assert_eq!(take(&mut room, 10).0, ["a1", "a2"]);
    }

    #[test]
    fn the_room_is_bounded_in_count_and_bytes() {
        let mut room = Room::new(2, 1_000);
        assert!(enter(&mut room, "a1", true).is_some() && enter(&mut room, "a2", true).is_some());
        assert!(enter(&mut room, "a3", true).is_none(), "too many");
        let mut room = Room::new(100, 25);
        assert!(enter(&mut room, "a1", true).is_some() && enter(&mut room, "a2", true).is_some());
        assert!(enter(&mut room, "a3", true).is_none(), "too large");
        let mut room = Room::new(0, 5);
        assert!(enter(&mut room, "a1", true).is_some(), "what is alone fits");
    }

    #[test]
    fn a_closed_room_gives_back_who_waits() {
        let mut room = Room::new(100, 1_000);
        for name in ["b1", "a1", "b2"] {
            enter(&mut room, name, name != "a1");
        }
        let left = room.close(|command| command.ready);
        assert_eq!(left.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["b1", "b2"]);
        assert!(enter(&mut room, "c1", true).is_none());
        assert_eq!(room.load(), (1, 10, 0), "who is being accepted stays");
    }

    #[test]
    fn one_id_is_not_taken_twice_at_a_time() {
        let mut room = Room::new(100, 1_000);
        let id = CommandId::generate();
        for name in ["a", "b"] {
            let command = Box::new(Command { id, name: name.into(), ready: true });
            assert!(room.enter(&stream(name), command).is_ok());
        }
        let (first, done) = take(&mut room, 10);
        assert_eq!(first, ["a"]);
        done(&mut room);
        assert_eq!(take(&mut room, 10).0, ["b"]);
    }
}
