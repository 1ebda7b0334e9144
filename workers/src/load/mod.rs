//! Drives the service through its HTTP API and measures it: what `bank demo` and `bank bench`
//! share. The client is kept cheap, because it runs on the same machine as what it measures.

mod answers;
mod client;
mod cpu;
mod figures;
mod follow;
mod latency;
mod measure;
mod proc_fs;
mod random;
mod send;
mod setup;
mod sources;
mod watermarks;
mod workload;

pub use answers::AnswersFile;
pub use client::{Answer, ClientError, Connection, Target};
pub use cpu::{CpuMeter, CpuSeconds, MemoryMeter, ProcessMeter};
pub use figures::{BatchSizes, batch_sizes, clock};
pub use follow::Followers;
pub use latency::{Latency, Percentiles};
pub use measure::{Measured, Measurement, Stages, WaitFor, measure};
pub(crate) use random::Random;
pub use send::{Load, Plan, Sent, Until};
pub use setup::{accept_all, open_accounts};
pub use sources::{Entries, Sources};
pub use watermarks::{Reached, Watch, Watermarks};
pub use workload::{Drills, Kind, Planned, Workload};

/// Why a load cannot be driven or measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The API's address is no URL that this client can use.
    #[error("`{0}` is no address of an API: write http://host:port")]
    Address(String),
    /// The API does not answer.
    #[error("the API does not answer: {0}")]
    Client(#[from] ClientError),
    /// The API answered something that is not in its contract.
    #[error("unexpected answer of the API: {0}")]
    Answer(String),
    /// The database does not answer.
    #[error("the database does not answer: {0}")]
    Database(#[from] crate::database::DatabaseError),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nothing moved for too long.
    #[error("nothing has moved for {seconds} s: {reached}")]
    Stuck {
        /// For how long.
        seconds: u64,
        /// How far it was.
        reached: String,
    },
}
