//! Opens the replicas, compares them with the primary, and leaves out those that can't be used.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::choice::{CATCH_UP, Replica, Replicas};
use crate::{
    chain::Position,
    store::{backend::postgres, error::StoreError, model::OpenOptions, reader::SqlStore, traits::BlockStore},
};

/// How often the primary is asked for its version.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often a replica is compared with the primary.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long a replica that was left out is not asked.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for the primary's version: it may be gone.
const PRIMARY_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the primary for its version, again and again: reads are not to be behind it for long, whichever process writes.
pub async fn look_at_primary(replicas: Arc<Replicas>) {
    loop {
        let before = replicas.required();
        // While the primary is away, reads go on from what the replicas have.
        if let Ok(Ok(state)) = timeout(PRIMARY_TIMEOUT, replicas.primary.state()).await {
            replicas.see_primary(state, before);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Keeps the replica at `place`.
pub async fn keep(replicas: Arc<Replicas>, place: usize, options: OpenOptions) {
    let replica = &replicas.all[place];
    let store = loop {
        match open(&replica.url, &options).await {
            Ok(store) => break store,
            Err(error) => replica.leave_out(unusable(&error)),
        }
        sleep(PAUSE).await;
    };
    // Whether it was found to be the primary's.
    let mut known = false;
    loop {
        match check(&replicas, replica, &store, &mut known).await {
            Ok(()) => replica.use_again(&store),
            Err(reason) => replica.leave_out(reason),
        }
        tokio::select! {
            () = sleep(CHECK_EVERY) => {}
            () = replica.left_out.notified() => sleep(PAUSE).await,
        }
    }
}

async fn open(url: &str, options: &OpenOptions) -> Result<Arc<dyn BlockStore>, StoreError> {
    Ok(Arc::new(SqlStore::new(postgres::open(url, options).await?, options).await?))
}

/// Why a replica can't be opened.
fn unusable(error: &StoreError) -> String {
    match error {
        StoreError::OlderSchema => "its schema is older: it has not replayed the migrations yet".into(),
        error => error.to_string(),
    }
}

/// Compares a replica with the primary. One that is `known` to be the primary's stays so while the primary can't be
/// asked.
///
/// # Errors
/// Why it should be left out.
async fn check(
    replicas: &Replicas,
    replica: &Replica,
    store: &Arc<dyn BlockStore>,
    known: &mut bool,
) -> Result<(), String> {
    let text = |error: StoreError| error.to_string();
    if !store.is_standby().await.map_err(text)? {
        *known = false;
        return Err("it is no standby: it takes writes of its own".into());
    }
    let state = store.state().await.map_err(text)?;
    replica.version.store(state.version, Ordering::Release);
    let before = replicas.required();
    let compared = async {
        let primary = replicas.primary.state().await?;
        // The tip that the primary had at this version. The event may be deleted; the replica is far behind then.
        let event = replicas.primary.event_at(state.version).await?;
        Ok::<_, StoreError>((primary, event))
    };
    match timeout(PRIMARY_TIMEOUT, compared).await {
        Ok(Ok((primary, event))) => {
            let ahead = state.version > primary.version;
            replicas.see_primary(primary, before);
            let same = event.is_none_or(|event| event.tip == state.tip.as_ref().map(Position::from));
            *known = same && !ahead;
            if !*known {
                let foreign = "its chain is not the primary's: it replicates another database, or has parted from it";
                return Err(foreign.into());
            }
        }
        _ if *known => {}
        _ => return Err("the primary can't be asked whether it is a replica of the same database".into()),
    }
    let required = replicas.required();
    let behind = |_| format!("it is behind the primary for longer than {CATCH_UP:?}");
    replica.catch_up(store, required).await.map_err(behind)
}
