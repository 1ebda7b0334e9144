//! What can be wrong, and who looks.

use async_trait::async_trait;
use serde_json::Value;

/// Something that is not as it should be, now.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What has it: a group, a member, a kind of error.
    pub subject: String,
    /// A sentence for people, without a full stop.
    pub summary: String,
    /// The figures: a JSON object.
    pub detail: Value,
}

/// Looks for one condition. A source that sees only its own process (an open breaker, say) puts
/// what identifies the process into the subject: it is over when no process sees it any more.
#[async_trait]
pub trait ConditionSource: Send + Sync {
    /// The condition's name, as in metrics and messages: `group_lag`.
    fn condition(&self) -> &'static str;

    /// Every subject that has it now. An error says that nobody could look, which is no statement.
    async fn look(&self) -> Result<Vec<Seen>, String>;
}
