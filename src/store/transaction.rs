//! A transaction on a connection that is lent.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};

use super::{
    Result,
    pool::{Lent, Pool},
    sql::Backend,
};

/// How long taking a transaction back may take; its connection is closed then, which does the same.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// A transaction; dropping it takes it back.
pub(super) struct Transaction<DB: Backend> {
    /// Taken when the transaction ends.
    lent: Option<Lent<DB>>,
}

impl<DB: Backend> Transaction<DB> {
    /// Begins one that is going to write.
    pub async fn begin(pool: &Arc<Pool<DB>>) -> Result<Self> {
        let mut lent = pool.acquire().await?;
        // Whoever doesn't wait for its end leaves it open, perhaps.
        lent.soil();
        DB::run(&mut lent, DB::BEGIN).await.map_err(DB::error)?;
        Ok(Self { lent: Some(lent) })
    }

    /// Makes it count. After an error it may count or not: the connection that could tell is gone.
    pub async fn commit(mut self) -> Result<()> {
        let Some(mut lent) = self.lent.take() else { return Ok(()) };
        let committed = DB::run(&mut lent, "COMMIT").await;
        // SQLite's would go on after an error.
        lent.judge(committed).inspect_err(|_| lent.soil())
    }
}

impl<DB: Backend> Drop for Transaction<DB> {
    fn drop(&mut self) {
        let (Some(mut lent), Ok(runtime)) = (self.lent.take(), Handle::try_current()) else { return };
        runtime.spawn(timeout(ROLLBACK_TIMEOUT, async move {
            // An error may be the late answer to the statement before, with which the driver sends nothing at all: the
            // connection stays soiled then, for it is in the middle of a transaction.
            if DB::run(&mut lent, "ROLLBACK").await.is_ok() {
                let _ = lent.judge(Ok(()));
            }
        }));
    }
}

impl<DB: Backend> Deref for Transaction<DB> {
    type Target = DB::Connection;
    fn deref(&self) -> &DB::Connection {
        self.lent.as_ref().expect("it is taken only when this ends")
    }
}

impl<DB: Backend> DerefMut for Transaction<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.lent.as_mut().expect("it is taken only when this ends")
    }
}
