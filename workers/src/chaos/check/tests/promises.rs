//! What clients were told, order, money.

use super::*;

#[test]
fn a_history_in_which_everything_went_well_has_no_violation() {
    let mut story = Story::new();
    let deposit = story.sends(Kind::Deposit, Door::Http, &[refused(), unknown(), Told::Accepted]);
    story.stores(deposit, &[RUN]);
    let amount = story.entry(deposit).command.amount;
    let overdraft = story.sends(Kind::Overdraft, Door::Http, &[Told::Accepted]);
    story.stores(overdraft, &[REJECTED]);
    let nobody_knows = story.sends(Kind::Deposit, Door::Http, &[unknown()]);
    story.stores(nobody_knows, &[RUN]);
    let twice = amount + story.entry(nobody_knows).command.amount;
    story.sends(Kind::Deposit, Door::Amqp, &[unknown()]);
    story.sends(Kind::Deposit, Door::Http, &[refused(), refused()]);
    story.sends(Kind::BreaksRules, Door::Http, &[refused()]);
    let poison = story.sends(Kind::UnknownType, Door::Amqp, &[Told::Accepted]);
    story.letters.push((poison, "unknown_command_type".into()));
    assert_eq!(story.found(Some(twice)), [""; 0]);
}

#[test]
fn what_was_accepted_must_be_there_with_exactly_one_outcome() {
    let story = Story::new();
    story.sends(Kind::Deposit, Door::Amqp, &[Told::Accepted]);
    assert_eq!(story.found(None), ["accepted command lost"]);

    let story_of = |outcomes: &[Outcome]| {
        let mut story = Story::new();
        let id = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
        story.stores(id, outcomes);
        story.found(None)
    };
    assert_eq!(story_of(&[]), ["not exactly one outcome"]);
    assert_eq!(story_of(&[RUN, RUN]), ["not exactly one outcome"]);
    assert_eq!(story_of(&[REJECTED]), ["wrong outcome"], "a deposit succeeds");
    assert_eq!(
        story_of(&[Outcome { status: 3, attempts: 0, ..REJECTED }]),
        ["death without a dead letter", "wrong outcome"]
    );
}

#[test]
fn what_was_refused_each_time_must_not_be_there() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[refused(), refused()]);
    story.stores(id, &[RUN]);
    assert_eq!(story.found(None), ["refused command executed"]);
}

#[test]
fn what_nobody_knows_of_must_have_ended_if_it_is_there() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[refused(), unknown()]);
    story.stores(id, &[]);
    assert_eq!(story.found(None), ["not exactly one outcome"]);
}

#[test]
fn poison_ends_in_the_dead_letters_and_nothing_else_does() {
    let story = Story::new();
    story.sends(Kind::BreaksRules, Door::Amqp, &[Told::Accepted]);
    assert_eq!(story.found(None), ["poison vanished"]);

    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Amqp, &[Told::Accepted]);
    story.stores(id, &[RUN]);
    story.letters.push((id, "delivery_limit".into()));
    assert_eq!(story.found(None), ["dead letter without poison"]);

    let story = Story::new();
    story.sends(Kind::BreaksRules, Door::Http, &[Told::Accepted]);
    assert_eq!(story.found(None), ["poison accepted"]);
}

#[test]
fn what_was_sent_after_an_acceptance_must_run_later() {
    let mut story = Story::new();
    let first = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    let second = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    story.stores(second, &[RUN]);
    story.stores(first, &[RUN]);
    assert_eq!(story.found(None), ["order broken"]);
    // Its attempt took too long, and the second overtook it.
    let code = Some("timed_out".to_owned());
    let attempt = Attempt { command: first, number: 1, code, failed_at: NOON };
    story.failed.attempts.insert(first, vec![attempt]);
    if let Some(outcome) = story.rows.get_mut(&first).and_then(|it| it.outcomes.first_mut()) {
        outcome.attempts = 2;
    }
    assert_eq!(story.found(None), [""; 0]);

    let mut story = Story::new();
    let first = story.sends(Kind::Deposit, Door::Http, &[unknown()]);
    let second = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    story.stores(second, &[RUN]);
    story.stores(first, &[RUN]);
    assert_eq!(story.found(None), [""; 0], "the first was not known to be accepted");
}

#[test]
fn money_content_and_strangers_are_looked_at() {
    let mut story = Story::new();
    let id = story.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    story.stores(id, &[RUN]);
    let amount = story.entry(id).command.amount;
    assert_eq!(story.found(Some(amount)), [""; 0]);
    assert_eq!(story.found(Some(amount + 1)), ["money not conserved"]);

    if let Some(record) = story.rows.get_mut(&id) {
        record.payload = serde_json::json!({ "amount": amount + 1 });
    }
    assert_eq!(story.found(None), ["other content"]);

    let mut story = Story::new();
    let other = Story::new();
    let stranger = other.sends(Kind::Deposit, Door::Http, &[Told::Accepted]);
    let record = Record {
        kind: String::new(),
        stream: String::new(),
        payload: serde_json::Value::Null,
        accepted_at: NOON,
        not_before: None,
        not_after: None,
        first_offset: None,
        own_events: 1,
        outcomes: vec![RUN],
        says: Says::default(),
    };
    story.rows.insert(stranger, record);
    assert_eq!(story.found(None), ["command of nobody"]);
}

#[test]
fn a_lookup_that_showed_another_ending_is_told() {
    let mut story = Story::new();
    let id = story.sends(Kind::Withdrawal, Door::Http, &[Told::Accepted]);
    story.stores(id, &[RUN]);
    story.log.shows(0, &ended("succeeded", 1));
    assert_eq!(story.found(None), [""; 0]);
    story.log.shows(0, &Ended { status: "rejected".into(), ..ended("succeeded", 1) });
    assert_eq!(story.found(None), ["outcome replaced"]);
}
