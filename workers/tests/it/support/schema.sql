CREATE TABLE log_identity (
    only_row       integer     PRIMARY KEY DEFAULT 1,
    log_id         blob        NOT NULL,
    partitions     integer    NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    initialised_at integer NOT NULL
);
CREATE TABLE commands (
    bucket           integer    NOT NULL,
    id               blob        NOT NULL,
    partition        integer    NOT NULL,
    stream           text        NOT NULL,
    type             text        NOT NULL,
    lane             integer    NOT NULL,
    payload          text       NOT NULL,
    metadata         text,
    expected_version integer,
    not_before       integer,
    reply_to         text,
    content_hash     blob       NOT NULL,
    accepted_at      integer NOT NULL,
    PRIMARY KEY (bucket, id)
);
CREATE TABLE command_log (
    partition   integer    NOT NULL,
    "offset"    integer      NOT NULL,
    command_id  blob        NOT NULL,
    bucket      integer    NOT NULL,
    recorded_at integer NOT NULL,
    PRIMARY KEY (partition, "offset")
);
CREATE TABLE events (
    partition      integer    NOT NULL,
    "offset"       integer      NOT NULL,
    stream         text        NOT NULL,
    version        integer      NOT NULL,
    type           text        NOT NULL,
    schema_version integer    NOT NULL,
    data           text       NOT NULL,
    metadata       text,
    command_id     blob        NOT NULL,
    recorded_at    integer NOT NULL,
    PRIMARY KEY (partition, "offset"),
    UNIQUE (partition, stream, version)
);
CREATE TABLE outcomes (
    partition    integer    NOT NULL,
    command_id   blob        NOT NULL,
    status       integer    NOT NULL,
    first_offset integer,
    events       integer     NOT NULL,
    version      integer      NOT NULL,
    reply        text,
    error        text,
    attempts     integer     NOT NULL,
    completed_at integer NOT NULL,
    PRIMARY KEY (partition, command_id)
);
CREATE TABLE schedule (
    partition  integer    NOT NULL,
    due_at     integer NOT NULL,
    id         integer      ,
    command_id blob        NOT NULL,
    bucket     integer    NOT NULL,
    reason     text        NOT NULL,
    PRIMARY KEY (partition, due_at, id)
);
CREATE TABLE checkpoints (
    group_name text        NOT NULL,
    partition  integer    NOT NULL,
    previous   integer      NOT NULL,
    reached    integer      NOT NULL CHECK (reached > previous),
    moved_at   integer NOT NULL ,
    PRIMARY KEY (group_name, partition, previous)
);
CREATE TABLE views (
    view       text        NOT NULL,
    key        text        NOT NULL,
    partition  integer,
    version    integer      NOT NULL,
    value      text,
    as_of      text       NOT NULL,
    updated_at integer NOT NULL,
    PRIMARY KEY (view, key)
);
