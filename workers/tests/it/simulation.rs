//! Histories in which everything goes wrong: they keep the laws, repeat exactly, and find every bug
//! that is planted.

use bank::simulate::{Report, history, planted};

use adjutant::simulation::{Bug, SimulationSettings};

/// Each planted bug is found in at most so many histories (in those from 1 on, the worst needs 26).
const FOUND_WITHIN: u64 = 40;

fn settings() -> SimulationSettings {
    SimulationSettings::default()
}

#[test]
fn histories_keep_the_laws_and_repeat_exactly() {
    let mut report = Report::default();
    for seed in 1..=8 {
        let first = history(seed, &settings()).unwrap();
        let again = history(seed, &settings()).unwrap();
        assert!(first.commands > 400, "{first:?}");
        report.add(&first, Some(&again));
    }
    assert!(report.is_clean(), "{}", report.to_text());
    assert_eq!(report.missing_faults(), [""; 0], "every kind of fault occurs");
}

#[test]
fn the_seeds_that_find_bugs_are_clean_without_them() {
    let mut report = Report::default();
    for seed in 9..=FOUND_WITHIN {
        report.add(&history(seed, &settings()).unwrap(), None);
    }
    assert!(report.is_clean(), "{}", report.to_text());
}

fn all_are_found(bugs: &[Bug]) {
    let look = |bug: &Bug| planted::find(*bug, 1, FOUND_WITHIN, &settings()).unwrap();
    let found: Vec<_> = bugs.iter().map(look).collect();
    let text = planted::to_text(&found);
    println!("{text}");
    assert!(found.iter().all(|found| found.after.is_some()), "not all are found:\n{text}");
}

/// Several tests, so that they share the cores, and none takes long.
const PARTS: usize = 6;

fn those_of_part_are_found(part: usize) {
    let size = Bug::ALL.len().div_ceil(PARTS);
    let from = (part * size).min(Bug::ALL.len());
    all_are_found(&Bug::ALL[from..(from + size).min(Bug::ALL.len())]);
}

#[test]
fn planted_bugs_of_the_first_part_are_found() {
    those_of_part_are_found(0);
}

#[test]
fn planted_bugs_of_the_second_part_are_found() {
    those_of_part_are_found(1);
}

#[test]
fn planted_bugs_of_the_third_part_are_found() {
    those_of_part_are_found(2);
}

#[test]
fn planted_bugs_of_the_fourth_part_are_found() {
    those_of_part_are_found(3);
}

#[test]
fn planted_bugs_of_the_fifth_part_are_found() {
    those_of_part_are_found(4);
}

#[test]
fn planted_bugs_of_the_sixth_part_are_found() {
    those_of_part_are_found(PARTS - 1);
}
