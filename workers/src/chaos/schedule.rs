//! Which faults come in which order: rounds in which every class comes once, shuffled by the seed.

use std::collections::VecDeque;

use super::{class::Class, random::Draw};

/// A fault that is to come.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// Its class.
    pub class: Class,
    /// What its victim and its duration are drawn from.
    pub draw: Draw,
}

/// All faults of a run, one or two at a time, for as long as somebody asks.
#[derive(Debug)]
pub(super) struct Schedule {
    seed: u64,
    classes: Vec<Class>,
    /// How often, in a hundred, two come together.
    together: u32,
    draw: Draw,
    left: VecDeque<Class>,
    round: u64,
    drawn: u64,
}

impl Schedule {
    /// The schedule of a seed.
    pub(super) fn new(seed: u64, classes: Vec<Class>, together: u32) -> Self {
        let draw = Draw::of(seed, "schedule", 0);
        Self { seed, classes, together, draw, left: VecDeque::new(), round: 0, drawn: 0 }
    }

    /// What comes next: one fault, or two that happen together, which they do each time when the
    /// run is late; none if there is no class at all.
    pub(super) fn next(&mut self, is_late: bool) -> Vec<Drawn> {
        if self.left.is_empty() {
            let mut round = self.classes.clone();
            self.draw.shuffle(&mut round);
            self.left = round.into();
            self.round += 1;
        }
        let Some(first) = self.left.pop_front() else { return Vec::new() };
        // The first round is for each class alone, so that each one's recovery is measured.
        let may_be_two = self.round > 1 || self.together >= 100;
        let second = if may_be_two && (self.draw.happens(self.together) || is_late) {
            let fits = self.left.iter().position(|class| class.goes_with(first));
            fits.and_then(|place| self.left.remove(place))
        } else {
            None
        };
        let mut drawn = vec![self.draw_for(first)];
        drawn.extend(second.map(|class| self.draw_for(class)));
        drawn
    }

    fn draw_for(&mut self, class: Class) -> Drawn {
        self.drawn += 1;
        Drawn { class, draw: Draw::of(self.seed, "fault", self.drawn) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn classes(seed: u64, together: u32, steps: usize) -> Vec<Vec<Class>> {
        let mut schedule = Schedule::new(seed, Class::all(), together);
        (0..steps).map(|_| schedule.next(false).iter().map(|drawn| drawn.class).collect()).collect()
    }

    #[test]
    fn a_seed_repeats_its_schedule() {
        assert_eq!(classes(7, 30, 100), classes(7, 30, 100));
        assert_ne!(classes(7, 30, 100), classes(8, 30, 100));
    }

    #[test]
    fn every_class_comes_once_a_round_alone_or_with_one_that_it_goes_with() {
        let rounds = 5;
        let total = rounds * Class::all().len();
        let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
        let (mut drawn, mut pairs) = (0, 0);
        for step in classes(3, 30, total) {
            if drawn == total {
                break;
            }
            if let [first, second] = step[..] {
                assert!(first.goes_with(second));
                pairs += 1;
            }
            drawn += step.len();
            for class in step {
                *counts.entry(class).or_default() += 1;
            }
        }
        assert!(counts.values().all(|count| *count == rounds), "{counts:?}");
        assert!(pairs > 10, "{pairs}");
    }

    #[test]
    fn a_run_that_is_late_brings_two_at_a_time() {
        let mut schedule = Schedule::new(3, Class::all(), 0);
        for _ in Class::all() {
            assert_eq!(schedule.next(true).len(), 1, "not in the first round");
        }
        assert_eq!(schedule.next(false).len(), 1);
        assert_eq!(schedule.next(true).len(), 2);
    }
}
