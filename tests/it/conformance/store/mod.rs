//! What every store does, written once and run on each: one test per (behaviour, store). The list
//! of tests and the matrix come from one macro, so that they cannot disagree.

mod accepting;
mod calling_back;
mod cancellation;
mod cancelling;
mod claiming;
mod committing;
mod correcting;
mod deadlines;
mod entering;
mod executing;
mod failing;
mod keeping;
mod lane;
mod letter_jobs;
mod letters;
mod look;
mod membership;
mod noticing;
mod parking;
mod querying;
mod racing;
mod recurring;
mod relaying;
mod suspecting;
mod viewing;
mod walking;

#[cfg(feature = "embedded")]
mod sqlite;

use std::{any::Any, future::Future, pin::Pin, sync::Arc};

use adjutant::store::Store;

use crate::support::sql::Sql;

/// A store of a test's own.
pub struct Truth {
    pub store: Arc<dyn Store>,
    /// What another owner would use: the same truth, by another way if there is one.
    pub other: Arc<dyn Store>,
    /// A way around it, for states that no operation brings about.
    pub sql: Sql,
    /// What goes away with the test.
    _keeps: Box<dyn Any + Send + Sync>,
}

/// Makes a store with this many partitions.
pub type Open = fn(i64) -> Pin<Box<dyn Future<Output = Truth>>>;

fn postgres(partitions: i64) -> Pin<Box<dyn Future<Output = Truth>>> {
    Box::pin(async move {
        let database = crate::support::database::Database::with_partitions(partitions).await;
        let (store, other) = (database.store().await, database.store().await);
        let sql = Sql::postgres(database.pool().await);
        Truth { store, other, sql, _keeps: Box::new(database) }
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
        entering: [
            a_command_is_accepted_by_the_transaction_that_ends_it,
            a_command_that_was_accepted_before_does_not_enter,
            a_held_command_is_finished_once,
            a_held_command_may_be_finished_under_the_locks,
            what_a_gone_process_held_enters_the_log_in_order,
            gone_processes_are_found_among_those_that_live,
            a_held_command_that_is_set_aside_is_held_no_more,
            what_a_process_holds_is_listed_in_order_and_let_go_of,
            a_strict_command_does_not_enter_before_those_of_the_log,
        ]
        claiming: [
            what_is_due_for_the_lanes_is_claimed_as_it_was_accepted,
            nothing_is_claimed_that_is_not_due_or_not_for_the_lanes,
            what_no_lane_claims_in_time_enters_the_log,
            many_who_claim_at_once_share_what_is_due,
            what_is_cancelled_and_claimed_at_once_is_held_by_nobody,
            an_orphan_is_claimed_by_nobody,
        ]
        executing: [
            the_second_try_sees_every_committed_event,
            a_second_try_that_fails_writes_nothing,
            a_stream_is_loaded_from_its_newest_usable_snapshot,
        a_stream_has_no_gap_though_its_snapshot_is_written_while_it_is_loaded,
            a_command_set_aside_comes_back_as_a_new_entry,
            a_reply_carries_the_outcome,
        ]
        failing: [
            a_failed_attempt_is_recorded_and_the_command_comes_back,
            an_attempt_is_recorded_once,
            commands_are_listed_by_what_they_wait_for,
            a_command_waits_only_while_something_holds_it,
            what_waits_is_released_in_order_when_nothing_holds_it,
            what_ends_and_what_waits_in_one_transaction_is_released_together,
            a_fence_that_holds_leaves_no_failure_behind,
        ]
        viewing: [
            a_document_of_one_stream_that_two_partitions_feed_is_refused,
            a_view_is_not_written_when_its_checkpoint_is_elsewhere,
            documents_that_many_fold_at_once_lose_no_update,
            a_fold_that_fails_writes_nothing,
            documents_are_loaded_in_the_order_of_their_keys,
            views_are_listed_by_prefix_and_page,
        ]
        parking: [
            a_key_is_parked_together_with_the_checkpoint_that_passes_its_event,
            a_commit_that_is_wrong_about_parked_keys_is_refused,
            events_that_wait_for_a_document_are_references_one_each,
            a_step_of_a_replay_takes_place_once,
            a_key_is_unparked_when_nothing_waits_before_the_checkpoint,
            no_event_is_lost_between_the_last_look_and_the_unparking,
            a_replay_is_asked_for_once_by_however_many,
            a_replay_that_fails_waits_for_a_person_again,
            a_step_of_a_replay_is_counted_until_one_takes_place,
            a_discarded_event_of_a_document_waits_no_longer,
            a_position_in_a_parked_part_is_told,
            a_position_that_waits_for_a_shared_document_is_told,
            what_is_parked_is_counted_and_listed,
        ]
        relaying: [
            outbox_rows_are_written_with_what_they_tell_or_not_at_all,
            the_outbox_is_read_from_an_exact_lower_bound,
            outbox_ids_are_never_used_again,
            aged_rows_that_a_log_holds_are_dropped_and_no_others,
            a_schedule_row_of_a_command_that_ended_runs_nothing,
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
        letters: [
            dead_letters_are_listed_newest_first_by_every_filter,
            dead_letters_are_counted_by_their_cause,
            a_dead_letter_shows_everything_that_is_known,
            a_retry_takes_the_outcome_back_and_is_due_at_once,
            a_retry_asked_for_by_fifty_at_once_is_one,
            a_batch_answers_each_and_does_what_can_be_done,
            a_corrected_payload_is_kept_beside_the_original,
            a_held_command_keeps_its_place_when_it_is_retried,
            a_discard_lets_go_on_what_waits,
            retrying_and_discarding_at_once_is_one_of_them,
            the_audit_is_append_only,
        ]
        correcting: [
            a_corrected_payload_is_what_is_executed,
            corrections_are_numbered_and_the_newest_one_counts,
        ]
        letter_jobs: [
            a_job_sees_the_letters_that_were_there_and_match,
            a_step_moves_the_job_with_what_it_did,
            a_step_of_who_is_not_the_owner_does_nothing,
            a_job_whose_owner_is_silent_is_taken_up,
            a_cancelled_job_does_nothing_more,
        ]
        membership: [
            a_member_is_live_while_it_beats,
            a_member_that_leaves_is_gone,
        ]
        suspecting: [
            a_partition_that_was_not_released_is_taken_only_by_force,
            crashes_are_counted_by_entry_until_it_is_finished,
        ]
        keeping: [
            commands_that_ended_are_removed_when_they_are_old,
            an_undecided_command_is_kept_however_old_it_is,
            a_command_that_waits_in_the_schedule_is_kept,
            entries_that_are_not_finished_are_kept,
            a_walk_over_old_commands_ends,
            outbox_rows_go_when_every_group_has_finished_them,
            counted_foreign_messages_are_bounded,
            members_that_are_long_gone_are_removed,
        ]
        noticing: [
            a_change_is_found_by_one_report_however_many_there_are,
            a_condition_is_over_once_when_nobody_sees_it_any_more,
            a_condition_that_lasts_is_told_again,
            changes_gather_in_one_message_and_messages_keep_apart,
            a_message_that_is_full_counts_what_it_does_not_carry,
            a_message_is_claimed_by_one_and_again_when_its_lease_ends,
            a_webhook_gets_only_so_many_messages_a_minute,
            the_lag_of_a_group_is_what_it_has_not_finished,
            a_member_that_vanished_is_lost_and_one_that_stopped_is_not,
        ]
        recurring: [
            a_recurring_command_is_kept_as_it_was_set,
            a_change_of_what_somebody_else_has_changed_has_no_effect,
            what_is_due_is_found_longest_due_first_and_nothing_else,
            what_is_owed_is_decided_once_and_settled_once,
            what_was_changed_removed_or_paused_meanwhile_is_not_decided,
            a_recurring_command_that_cannot_be_stored_leaves_nothing_behind,
        ]
        calling_back: [
            a_callback_is_owed_with_the_outcome_or_not_at_all,
            hosts_are_walked_through_in_order_and_have_what_room_they_are_given,
            a_callback_is_in_one_hand_and_in_another_when_its_lease_ends,
            a_dead_callback_is_a_dead_letter_and_a_retry_ends_it,
            a_dead_callback_is_acted_on_once_by_fifty_at_once,
            a_callback_that_is_given_up_is_gone,
            what_failing_hosts_are_owed_for_too_long_is_taken_in_hand,
            an_end_that_was_taken_back_can_still_be_told,
            what_waits_is_counted,
            a_command_whose_callback_waits_for_a_person_is_kept,
        ]
        cancellation: [
            a_command_is_cancelled_once_wherever_it_is,
            each_of_many_is_answered,
            whoever_executes_a_cancelled_command_writes_nothing,
            a_cancelled_command_does_not_come_back,
            what_a_cancelled_command_held_goes_on,
            whoever_holds_a_cancelled_command_is_fenced,
            cancelling_and_executing_at_once_is_one_of_them,
            a_command_that_fifty_cancel_at_once_is_cancelled_by_one,
            the_reply_tells_that_it_was_cancelled,
            a_dead_letter_that_was_retried_is_resolved_by_a_cancellation,
        ]
        racing: [
            of_cancelling_and_executing_exactly_one_wins,
        ]
        deadlines: [
            a_deadline_that_passes_while_nobody_executes_ends_the_command,
            a_retry_that_is_due_after_the_deadline_does_not_take_place,
            a_strict_command_that_expires_lets_go_of_those_behind,
            a_strict_command_that_is_late_does_not_wait,
            a_delayed_command_that_comes_late_is_not_started,
            the_immediate_lane_starts_nothing_that_is_late,
            the_immediate_lane_executes_nothing_that_is_cancelled,
            an_attempt_under_way_has_no_effect_when_its_command_is_cancelled,
        ]
        walking: [
            a_walk_meets_every_command_that_has_not_ended,
            a_walk_misses_nothing_that_moves,
            a_walk_misses_nothing_that_is_claimed,
            a_step_of_a_walking_job_moves_it,
            who_cancelled_is_kept_for_as_long_as_the_audit,
        ]
        cancelling: [
            an_accept_whose_caller_went_away_is_whole_or_nothing,
            a_second_try_whose_caller_went_away_holds_nobody_up,
        ]
    }
}
