//! What every [`Broker`](adjutant::broker::Broker) must do. Each behaviour is written once and is a
//! test of its own for each implementation; what only one implementation has is tested beside it.

mod bed;
mod consuming;
mod intake;
mod local;
mod losing;
mod publishing;
mod rabbit;

use std::process::Command;

/// The behaviours, once: the tests of each implementation and the matrix are made from this list.
macro_rules! behaviours {
    ($($file:ident: $($behaviour:ident)+;)+) => {
        const BEHAVIOURS: &[&str] = &[$($(stringify!($behaviour)),+),+];

        behaviours!(@implementation rabbitmq, super::super::rabbit::RabbitBed, $($file: $($behaviour)+;)+);
        behaviours!(@implementation in_process, super::super::local::LocalBed, $($file: $($behaviour)+;)+);
    };
    (@implementation $name:ident, $bed:ty, $($file:ident: $($behaviour:ident)+;)+) => {
        mod $name {
            $(mod $file {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $behaviour() {
                        super::super::$file::$behaviour::<$bed>().await;
                    }
                )+
            })+
        }
    };
}

behaviours! {
    publishing:
        messages_arrive_in_the_order_in_which_they_were_published
        every_projection_group_gets_each_event
        a_confirmed_message_is_in_its_queue
        an_unroutable_message_is_reported_and_confuses_no_neighbour
        a_reply_survives_the_road_with_all_its_headers
        a_full_reply_queue_refuses
        a_full_queue_drops_its_oldest_message
        nothing_is_published_on_a_closed_broker
        many_publishers_and_consumers_lose_nothing;
    consuming:
        one_consumer_is_active_and_its_successor_gets_the_rest_in_order
        what_is_redelivered_comes_before_newer_messages_and_is_counted
        no_more_than_the_prefetch_is_unacknowledged
        an_acknowledgement_through_a_message_covers_exactly_those_before
        a_message_that_keeps_killing_its_consumer_is_dead_lettered
        a_foreign_message_arrives_without_a_log
        cancelling_a_wait_loses_no_message;
    losing:
        order_survives_a_channel_that_the_broker_closed
        order_survives_a_lost_connection
        an_outage_is_reported_and_what_was_confirmed_is_there_afterwards
        a_deleted_queue_ends_its_consumer_and_the_next_one_declares_it
        declaring_twice_changes_nothing
        closing_one_connection_leaves_others_alone;
    intake:
        the_intake_is_shared_and_each_message_acknowledged_alone
        the_intake_can_acknowledge_through_a_message
        an_intake_message_that_keeps_killing_its_consumer_is_dead_lettered
        an_intake_dead_letter_goes_to_its_queue_or_is_unroutable;
}

/// Prints which test shows what, and fails on an empty cell: a behaviour whose test this binary
/// does not have, or ignores.
#[test]
fn every_behaviour_is_tested_for_every_implementation() {
    const IMPLEMENTATIONS: [&str; 2] = ["rabbitmq", "in_process"];
    let list = |further: &[&str]| {
        let binary = std::env::current_exe().unwrap();
        let listed = Command::new(binary)
            .args(["--list", "--format", "terse"])
            .args(further)
            .output()
            .unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let names = String::from_utf8(listed.stdout).unwrap();
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (all, ignored) = (list(&[]), list(&["--ignored"]));
    let is_tested = |implementation: &str, behaviour: &str| {
        let ours = |name: &&String| {
            name.starts_with(&format!("conformance::broker::{implementation}::"))
                && name.ends_with(&format!("::{behaviour}: test"))
        };
        all.iter().find(ours).is_some_and(|name| !ignored.contains(name))
    };
    let width = BEHAVIOURS.iter().map(|name| name.len()).max().unwrap_or_default();
    println!("{:width$} | {}", "behaviour", IMPLEMENTATIONS.join(" | "));
    let mut empty = Vec::new();
    for behaviour in BEHAVIOURS {
        print!("{behaviour:width$}");
        for implementation in IMPLEMENTATIONS {
            let tested = is_tested(implementation, behaviour);
            print!(" | {:^1$}", if tested { "tested" } else { "" }, implementation.len());
            if !tested {
                empty.push((behaviour, implementation));
            }
        }
        println!();
    }
    assert!(empty.is_empty(), "no test for {empty:?}");
}
