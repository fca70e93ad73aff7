//! A request without a listener: the store is read and the answer encoded, nothing is cached.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use modal_gateway::source::{LocalSource, Origin, Settings, Source};

use crate::{
    chain::{KINDS, LENGTHS, QUESTIONS, Stores},
    measure::{Ask, Outcome, Pace, Rates, Table, Target, contender},
};

/// Microseconds a request, one after the other.
pub async fn run(stores: &Stores, pace: Pace) -> Outcome<String> {
    let mut table = Table::new(2, &["store", "request", "1,000", "10,000", "100,000", "100,000 : 1,000"]);
    let mut target = Target::at_most(1.3);
    for (kind, store_name) in KINDS {
        for (question, name) in QUESTIONS {
            let mut contenders = Vec::new();
            for length in LENGTHS {
                let settings = Settings {
                    finality_depth: 40,
                    peer_timeout: Duration::from_secs(10),
                    cache_bytes: 0,
                    sync: false,
                    network: Arc::default(),
                };
                let local = LocalSource::new(stores.get(kind, length)?, PeerId::random(), settings);
                let source = Arc::new(Source::local_only(Arc::new(local)));
                let ask = stores.asker(question, length);
                let ask: Ask = Arc::new(move || {
                    let (source, query) = (source.clone(), ask());
                    Box::pin(async move {
                        let answer = source.answer(query, &Origin::Local, 0).await;
                        answer.map(drop).map_err(|declined| declined.failure.to_string().into())
                    })
                });
                contenders.push(contender(1, ask));
            }
            let rates = Rates::measure(&contenders, pace).await?;
            let mut row = vec![store_name.to_owned(), name.to_owned()];
            row.extend((0..LENGTHS.len()).map(|length| format!("{:.0}", 1e6 / rates.of(length))));
            row.push(target.check(rates.ratio(0, LENGTHS.len() - 1)));
            table.row(row);
        }
    }
    Ok(format!(
        "#### Store and encoding, without cache and network: µs a request, by blocks in the chain\n\n{table}\n\
         One request at a time, hashes, epochs and indexes at random over the whole chain. {target}\n"
    ))
}
