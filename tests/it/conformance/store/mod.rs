//! What every store does, written once and run on each: one test per (behaviour, store). The list
//! of tests and the matrix come from one macro, so that they cannot disagree.

mod accepting;
mod cancelling;
mod committing;
mod executing;
mod look;
mod membership;
mod querying;
mod relaying;
mod viewing;

#[cfg(feature = "embedded")]
mod sqlite;

use std::{any::Any, future::Future, pin::Pin, sync::Arc};

use adjutant::store::Store;

/// A store of a test's own.
pub struct Truth {
    pub store: Arc<dyn Store>,
    /// What another owner would use: the same truth, by another way if there is one.
    pub other: Arc<dyn Store>,
    /// What goes away with the test.
    _keeps: Box<dyn Any + Send + Sync>,
}

/// Makes a store with this many partitions.
pub type Open = fn(i64) -> Pin<Box<dyn Future<Output = Truth>>>;

fn postgres(partitions: i64) -> Pin<Box<dyn Future<Output = Truth>>> {
    Box::pin(async move {
        let database = crate::support::database::Database::with_partitions(partitions).await;
        let (store, other) = (database.store().await, database.store().await);
        Truth { store, other, _keeps: Box::new(database) }
    })
}

macro_rules! conformance {
    ([$($(#[$gate:meta])* $store:ident = $open:path),* $(,)?] $behaviours:tt) => {
        $(
            $(#[$gate])*
            mod $store {
                const OPEN: crate::conformance::store::Open = $open;
                conformance!(@tests $behaviours);
            }
        )*

        /// Prints the matrix; a cell is a test that exists.
        #[test]
        fn the_matrix_of_behaviours_and_stores_has_no_empty_cell() {
            let stores: Vec<(&str, &[&str])> = vec![
                $($(#[$gate])* (stringify!($store), $store::TESTS)),*
            ];
            conformance!(@matrix stores $behaviours);
        }
    };
    (@tests { $($group:ident: [$($behaviour:ident),* $(,)?])* }) => {
        pub const TESTS: &[&str] = &[$($(stringify!($behaviour)),*),*];
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                crate::conformance::store::$group::$behaviour(OPEN).await;
            }
        )*)*
    };
    (@matrix $stores:ident { $($group:ident: [$($behaviour:ident),* $(,)?])* }) => {
        let names: Vec<&str> = $stores.iter().map(|(name, _)| *name).collect();
        println!("{:80} {}", "behaviour", names.join("  "));
        for behaviour in [$($(stringify!($behaviour)),*),*] {
            let mut row = format!("{behaviour:80}");
            for (name, tests) in &$stores {
                assert!(tests.contains(&behaviour), "{behaviour} is not run on {name}");
                row.push_str(&format!(" {:1$} ", "yes", name.len()));
            }
            println!("{row}");
        }
    };
}

conformance! {
    [
        postgres = crate::conformance::store::postgres,
        #[cfg(feature = "embedded")]
        sqlite_file = crate::conformance::store::sqlite::file,
        #[cfg(feature = "embedded")]
        sqlite_memory = crate::conformance::store::sqlite::memory,
    ]
    {
        accepting: [
            a_command_accepted_twice_is_one_command,
            an_id_twice_in_a_batch_is_one_command,
            the_same_id_accepted_by_many_at_once_is_one_command,
            offsets_are_gapless_and_in_commit_order_under_concurrent_writers,
            an_unstorable_value_leaves_nothing_of_its_batch,
            a_delayed_command_enters_the_log_when_it_is_due,
            due_commands_enter_the_log_in_the_order_of_their_times,
            a_large_batch_is_told_in_several_messages,
        ]
        committing: [
            a_checkpoint_moves_only_from_where_it_is,
            two_owners_of_a_partition_move_its_checkpoint_once,
            a_second_outcome_of_a_command_is_refused_with_all_its_effects,
            a_taken_stream_version_is_refused,
            a_command_that_is_not_in_the_log_has_no_effect,
            a_rejection_that_was_decided_on_an_old_state_is_refused,
            a_fence_that_holds_leaves_nothing_half_written,
            an_unstorable_event_leaves_nothing_half_written,
            event_offsets_are_gapless_under_concurrent_writers,
            events_and_outcomes_say_the_same_positions,
        ]
        executing: [
            the_second_try_sees_every_committed_event,
            a_second_try_that_fails_writes_nothing,
            a_stream_is_loaded_from_its_newest_usable_snapshot,
            a_command_set_aside_comes_back_as_a_new_entry,
            a_reply_carries_the_outcome,
        ]
        viewing: [
            a_document_of_one_stream_that_two_partitions_feed_is_refused,
            a_view_is_not_written_when_its_checkpoint_is_elsewhere,
            documents_that_many_fold_at_once_lose_no_update,
            a_fold_that_fails_writes_nothing,
            documents_are_loaded_in_the_order_of_their_keys,
            views_are_listed_by_prefix_and_page,
        ]
        relaying: [
            outbox_rows_are_written_with_what_they_tell_or_not_at_all,
            the_outbox_is_read_from_an_exact_lower_bound,
            outbox_ids_are_never_used_again,
            aged_rows_that_a_log_holds_are_dropped_and_no_others,
            refused_messages_wait_in_the_outbox,
        ]
        querying: [
            a_command_is_found_with_its_outcome,
            how_far_commands_are_is_told_of_many_at_once,
            commands_are_found_by_many_ids,
            commands_are_listed_newest_first_by_filter_and_page,
            a_log_is_read_in_pages,
            a_page_of_a_log_is_bounded_by_bytes,
            the_events_of_a_stream_are_listed_after_a_version,
            foreign_messages_are_counted,
        ]
        membership: [
            a_member_is_live_while_it_beats,
            a_member_that_leaves_is_gone,
        ]
        cancelling: [
            an_accept_whose_caller_went_away_is_whole_or_nothing,
            a_second_try_whose_caller_went_away_holds_nobody_up,
        ]
    }
}
