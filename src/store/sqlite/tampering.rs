//! A way around the operations, for tests that need a state which no operation brings about.

use super::SqliteStore;
use crate::store::StoreError;

impl SqliteStore {
    /// Runs statements as they are.
    #[doc(hidden)]
    pub async fn tamper(&self, sql: String) -> Result<(), StoreError> {
        let done = self.engine.write(move |transaction| {
            let done = transaction.connection.execute_batch(&sql);
            done.map_err(super::errors::statement)
        });
        done.await
    }
}
