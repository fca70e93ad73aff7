//! A connection for one statement. Where a pooler shares sessions, the statement is a transaction.

use std::sync::Arc;

use super::{InUse, Pool, PooledConnection, State};
use crate::store::{backend::Backend, error::Result};

impl<DB: Backend> Pool<DB> {
    /// A connection for one statement, whose outcome goes to [`InUse::end_statement`].
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire), and of a transaction that can't begin.
    pub async fn acquire_for_statement(self: &Arc<Self>) -> Result<PooledConnection<DB>> {
        match self.connector.shared_session {
            None => self.acquire().await,
            Some(_) => self.begin().await,
        }
    }
}

impl<DB: Backend> InUse<DB> {
    /// Like [`record_outcome`](Self::record_outcome), for the statement of [`Pool::acquire_for_statement`]: where it is
    /// a transaction, it is committed.
    pub async fn end_statement<T>(&mut self, outcome: sqlx::Result<T>) -> Result<T> {
        let outcome = self.record_outcome(outcome);
        if self.pool.connector.shared_session.is_some() && self.state == State::Clean {
            self.state = State::InTransaction;
            if outcome.is_ok() {
                self.commit().await?;
            }
        }
        outcome
    }
}
