//! The name of every metric, with its description and unit. `adjutant_<what>_<unit>`, counters end
//! in `_total`; durations are seconds, sizes bytes.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Commands accepted for the first time, by intake (`http`, `batch`, `amqp`).
pub const INTAKE_ACCEPTED_TOTAL: &str = "adjutant_intake_accepted_total";
/// Commands that had been accepted before, by intake.
pub const INTAKE_REPLAYED_TOTAL: &str = "adjutant_intake_replayed_total";
/// Commands refused, by intake and problem code.
pub const INTAKE_REFUSED_TOTAL: &str = "adjutant_intake_refused_total";
/// Commands that shared a commit.
pub const INTAKE_BATCH_COMMANDS: &str = "adjutant_intake_batch_commands";
/// How long a commit of the intake took, its retries included.
pub const INTAKE_COMMIT_SECONDS: &str = "adjutant_intake_commit_seconds";
/// Tries of a commit that failed and were made again.
pub const INTAKE_COMMIT_RETRIES_TOTAL: &str = "adjutant_intake_commit_retries_total";
/// Commands that wait to be accepted, those being committed included.
pub const INTAKE_WAITING_COMMANDS: &str = "adjutant_intake_waiting_commands";
/// Bytes of the commands that wait to be accepted.
pub const INTAKE_WAITING_BYTES: &str = "adjutant_intake_waiting_bytes";
/// Rows in the outbox, counted up to the limit at which intake stops.
pub const OUTBOX_ROWS: &str = "adjutant_outbox_rows";
/// Age of the oldest row in the outbox.
pub const OUTBOX_OLDEST_SECONDS: &str = "adjutant_outbox_oldest_seconds";
/// Transactions that the SQLite store committed; each is one sync of its file.
pub const SQLITE_COMMITS_TOTAL: &str = "adjutant_sqlite_commits_total";
/// Size of the SQLite store's write-ahead log.
pub const SQLITE_WAL_BYTES: &str = "adjutant_sqlite_wal_bytes";
/// Messages that a broker answered for, by route (`commands`, `events`, `reply`, `intake_dlq`) and
/// result (`published`, `unroutable`, `refused`; without an answer `timeout`, `unavailable`).
pub const BROKER_PUBLISHED_TOTAL: &str = "adjutant_broker_published_total";
/// Messages that arrived, by group (`intake` for commands of other systems).
pub const BROKER_DELIVERIES_TOTAL: &str = "adjutant_broker_deliveries_total";
/// Messages that the in-process broker moved to a dead-letter queue, by the queue they left and
/// reason (`delivery_limit`, `maxlen`).
pub const BROKER_DEAD_LETTERED_TOTAL: &str = "adjutant_broker_dead_lettered_total";
/// Times that the broker would not declare a queue, for a reason of its own; its group reads the log.
pub const BROKER_UNDECLARED_TOTAL: &str = "adjutant_broker_undeclared_total";
/// Messages that the in-process broker dropped for good, by queue.
pub const BROKER_DROPPED_TOTAL: &str = "adjutant_broker_dropped_total";
/// Messages that wait in a queue, by queue; those that a consumer holds are not counted.
pub const QUEUE_MESSAGES: &str = "adjutant_queue_messages";
/// Dead letters by kind (`command`, `parked_key`, `callback`) and state (`open`): the same in every process with
/// the role ingress.
pub const DEAD_LETTERS: &str = "adjutant_dead_letters";
/// Dead letters that were retried, by kind.
pub const DEAD_LETTERS_RETRIED_TOTAL: &str = "adjutant_dead_letters_retried_total";
/// Dead letters that were discarded, by kind.
pub const DEAD_LETTERS_DISCARDED_TOTAL: &str = "adjutant_dead_letters_discarded_total";
/// Keys that are parked, by group.
pub const PARKED_KEYS: &str = "adjutant_parked_keys";
/// How a breaker stands (0 closed, 1 half open, 2 open): that of a command type (`type`) or of a
/// group (`group`).
pub const BREAKER_STATE: &str = "adjutant_breaker_state";
/// How often a breaker opened, of a command type (`type`) or of a group (`group`).
pub const BREAKER_OPENED_TOTAL: &str = "adjutant_breaker_opened_total";
/// Open connections of the HTTP API.
pub const HTTP_CONNECTIONS: &str = "adjutant_http_connections";
/// Connections of the HTTP API whose requests wait, and that have no buffers meanwhile.
pub const HTTP_DETACHED: &str = "adjutant_http_detached";
/// Connections of the HTTP API that were dropped because their clients took nothing for too long.
pub const HTTP_STALLED_TOTAL: &str = "adjutant_http_stalled_total";
/// Clients that wait for commands, by kind (`outcome`: until it ends; `status`: every change).
pub const WATCHERS: &str = "adjutant_watchers";

/// Changes of conditions, by condition, state (`firing`, `resolved`) and result (`logged` once a
/// change; for each webhook `sent`, `failed` at each try that is made again, `given_up`).
pub const NOTIFICATIONS_TOTAL: &str = "adjutant_notifications_total";
/// Subjects that have a condition now, by condition. The same in every process that looks.
pub const CONDITIONS_FIRING: &str = "adjutant_conditions_firing";
/// Rows that housekeeping removed, by what they were.
pub const HOUSEKEEPING_REMOVED_TOTAL: &str = "adjutant_housekeeping_removed_total";
/// Rounds of housekeeping that could not be finished, by what was to be removed.
pub const HOUSEKEEPING_FAILED_TOTAL: &str = "adjutant_housekeeping_failed_total";
/// How long a round of housekeeping took, its pauses included.
pub const HOUSEKEEPING_SECONDS: &str = "adjutant_housekeeping_seconds";
/// Schedule rows whose command was gone or had ended; they are removed and run nothing.
pub const SCHEDULE_ORPHANS_TOTAL: &str = "adjutant_schedule_orphans_total";
/// Rows of the outbox that one read of a relay has brought.
pub const RELAY_PAGE_ROWS: &str = "adjutant_relay_page_rows";
/// Rows of the outbox that one message carries.
pub const RELAY_MESSAGE_ROWS: &str = "adjutant_relay_message_rows";
/// Commands that fell due and were claimed by this process for its immediate lane.
pub const IMMEDIATE_CLAIMED_TOTAL: &str = "adjutant_immediate_claimed_total";
/// Commands of the immediate lane whose process was gone; they went through the queue.
pub const IMMEDIATE_TAKEN_OVER_TOTAL: &str = "adjutant_immediate_taken_over_total";
/// Commands that a process held by the database and did not have; they went through the queue.
pub const IMMEDIATE_LET_GO_TOTAL: &str = "adjutant_immediate_let_go_total";
/// The age of the oldest command that a process holds, if it is old (`immediate.lost_after_ms`).
pub const IMMEDIATE_OLDEST_SECONDS: &str = "adjutant_immediate_held_oldest_seconds";
/// Commands that wait in the immediate lane.
pub const IMMEDIATE_WAITING: &str = "adjutant_immediate_waiting_commands";
/// Bytes that they hold.
pub const IMMEDIATE_WAITING_BYTES: &str = "adjutant_immediate_waiting_bytes";
/// Commands that the immediate lane executes now.
pub const IMMEDIATE_RUNNING: &str = "adjutant_immediate_running_commands";
/// Commands that the immediate lane had no room for, by what became of them.
pub const IMMEDIATE_REFUSED_TOTAL: &str = "adjutant_immediate_refused_total";
/// Commands that the immediate lane executed, by how that ended.
pub const IMMEDIATE_EXECUTED_TOTAL: &str = "adjutant_immediate_executed_total";
/// How long a command took from its arrival to its end, by lane.
pub const LANE_SECONDS: &str = "adjutant_lane_seconds";
/// Runs of recurring commands that were sent.
pub const RECURRING_FIRED_TOTAL: &str = "adjutant_recurring_fired_total";
/// Due times of recurring commands that passed without a run of their own, by policy.
pub const RECURRING_MISSED_TOTAL: &str = "adjutant_recurring_missed_total";
/// How late runs of recurring commands were sent, those that were made up for included.
pub const RECURRING_LATE_SECONDS: &str = "adjutant_recurring_late_seconds";
/// Times that firing recurring commands had to be put off.
pub const RECURRING_FAILED_TOTAL: &str = "adjutant_recurring_failed_total";

/// Tries to deliver callbacks, by result: `delivered`; `failed`, tried again; `refused`, the address
/// is not a public one; `dead`, given up. What is refused or given up is a dead letter.
pub const CALLBACKS_TOTAL: &str = "adjutant_callbacks_total";
/// Callbacks that wait in the partitions of this relay, counted up to 20,000 each.
pub const CALLBACKS_PENDING: &str = "adjutant_callbacks_pending";
/// Since when the oldest of them is owed.
pub const CALLBACKS_OLDEST_SECONDS: &str = "adjutant_callbacks_oldest_seconds";
/// Hosts that this process leaves alone for a while, because they take no callbacks.
pub const CALLBACK_HOSTS_FAILING: &str = "adjutant_callback_hosts_failing";

/// Commands that somebody called off, by type.
pub const COMMANDS_CANCELLED_TOTAL: &str = "adjutant_commands_cancelled_total";

/// Names of histograms that count things; all others measure seconds.
pub(super) const COUNTING_HISTOGRAMS: &[&str] =
    &[INTAKE_BATCH_COMMANDS, RELAY_PAGE_ROWS, RELAY_MESSAGE_ROWS];

/// Gives the recorder every description; called once when it is installed.
pub fn describe() {
    describe_counter!(INTAKE_ACCEPTED_TOTAL, "Commands accepted for the first time");
    describe_counter!(INTAKE_REPLAYED_TOTAL, "Commands that had been accepted before");
    describe_counter!(INTAKE_REFUSED_TOTAL, "Commands refused, by problem code");
    describe_histogram!(INTAKE_BATCH_COMMANDS, "Commands that shared a commit");
    describe_histogram!(
        INTAKE_COMMIT_SECONDS,
        Unit::Seconds,
        "Duration of an intake commit with its retries"
    );
    describe_counter!(INTAKE_COMMIT_RETRIES_TOTAL, "Intake commits that were tried again");
    describe_gauge!(INTAKE_WAITING_COMMANDS, "Commands that wait to be accepted");
    describe_gauge!(
        INTAKE_WAITING_BYTES,
        Unit::Bytes,
        "Bytes of the commands that wait to be accepted"
    );
    describe_gauge!(OUTBOX_ROWS, "Rows in the outbox, counted up to the intake's limit");
    describe_gauge!(OUTBOX_OLDEST_SECONDS, Unit::Seconds, "Age of the oldest outbox row");
    describe_counter!(SQLITE_COMMITS_TOTAL, "Transactions that the SQLite store committed");
    describe_gauge!(SQLITE_WAL_BYTES, Unit::Bytes, "Size of the SQLite store's write-ahead log");
    describe_counter!(
        BROKER_PUBLISHED_TOTAL,
        "Messages published, by route and the broker's answer"
    );
    describe_counter!(BROKER_DELIVERIES_TOTAL, "Messages that arrived, by group");
    describe_counter!(
        BROKER_DEAD_LETTERED_TOTAL,
        "Messages that the in-process broker moved to a dead-letter queue"
    );
    describe_counter!(BROKER_UNDECLARED_TOTAL, "Queues that the broker would not declare");
    describe_counter!(BROKER_DROPPED_TOTAL, "Messages that the in-process broker dropped");
    describe_gauge!(QUEUE_MESSAGES, "Messages that wait in a queue");
    describe_gauge!(DEAD_LETTERS, "Dead letters, by kind and state; the same in every process");
    describe_counter!(DEAD_LETTERS_RETRIED_TOTAL, "Dead letters that were retried");
    describe_counter!(DEAD_LETTERS_DISCARDED_TOTAL, "Dead letters that were discarded");
    describe_gauge!(
        BREAKER_STATE,
        "State of a command type's or a group's breaker: 0 closed, 1 half open, 2 open"
    );
    describe_counter!(BREAKER_OPENED_TOTAL, "Times that a type's or a group's breaker opened");
    describe_gauge!(PARKED_KEYS, "Keys that are parked, by group");
    describe_counter!(NOTIFICATIONS_TOTAL, "Changes of conditions, by what became of telling them");
    describe_gauge!(CONDITIONS_FIRING, "Subjects that have a condition now");
    describe_counter!(HOUSEKEEPING_REMOVED_TOTAL, "Rows that housekeeping removed");
    describe_counter!(HOUSEKEEPING_FAILED_TOTAL, "Rounds of housekeeping that were not finished");
    describe_histogram!(HOUSEKEEPING_SECONDS, Unit::Seconds, "Duration of a round of housekeeping");
    describe_counter!(SCHEDULE_ORPHANS_TOTAL, "Schedule rows that had nothing to run");
    describe_histogram!(RELAY_PAGE_ROWS, "Outbox rows of one read");
    describe_histogram!(RELAY_MESSAGE_ROWS, "Outbox rows of one message");
    describe_counter!(IMMEDIATE_CLAIMED_TOTAL, "Due commands claimed by this process");
    describe_counter!(IMMEDIATE_TAKEN_OVER_TOTAL, "Commands whose process was gone");
    describe_counter!(IMMEDIATE_LET_GO_TOTAL, "Commands that a process held and did not have");
    describe_gauge!(IMMEDIATE_OLDEST_SECONDS, Unit::Seconds, "Age of the oldest held command");
    describe_gauge!(IMMEDIATE_WAITING, "Commands that wait in the immediate lane");
    describe_gauge!(IMMEDIATE_WAITING_BYTES, Unit::Bytes, "Bytes that they hold");
    describe_gauge!(IMMEDIATE_RUNNING, "Commands that the immediate lane executes now");
    describe_counter!(IMMEDIATE_REFUSED_TOTAL, "Commands that the immediate lane had no room for");
    describe_counter!(IMMEDIATE_EXECUTED_TOTAL, "Commands that the immediate lane executed");
    describe_histogram!(LANE_SECONDS, Unit::Seconds, "From a command's arrival to its end");
    describe_counter!(RECURRING_FIRED_TOTAL, "Runs of recurring commands that were sent");
    describe_counter!(RECURRING_MISSED_TOTAL, "Due times of recurring commands without a run");
    describe_histogram!(
        RECURRING_LATE_SECONDS,
        Unit::Seconds,
        "How late runs of recurring commands were sent"
    );
    describe_counter!(RECURRING_FAILED_TOTAL, "Times that firing was put off");
    describe_counter!(COMMANDS_CANCELLED_TOTAL, "Commands that somebody called off, by type");
    describe_gauge!(HTTP_CONNECTIONS, "Open connections of the HTTP API");
    describe_gauge!(HTTP_DETACHED, "Open connections whose requests wait, without buffers");
    describe_counter!(HTTP_STALLED_TOTAL, "Connections dropped because their clients took nothing");
    describe_counter!(CALLBACKS_TOTAL, "Tries to deliver callbacks, by result");
    describe_gauge!(CALLBACKS_PENDING, "Callbacks that wait in this relay's partitions");
    describe_gauge!(CALLBACKS_OLDEST_SECONDS, Unit::Seconds, "Age of the oldest callback");
    describe_gauge!(CALLBACK_HOSTS_FAILING, "Hosts that take no callbacks");
    describe_gauge!(WATCHERS, "Clients that wait for commands, by what they wait for");
}
