//! A request without a listener: the store is read and the answer encoded, nothing is cached.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use modal_gateway::{
    chain::BLOCKS_PER_EPOCH,
    source::{LocalSource, Origin, Settings, Source, view::ViewQuery},
};

use crate::{
    chain::{Kind, QUESTIONS, Question, Stores},
    measure::{Ask, Outcome, Pace, Rates, Table, Target, contender, thousands},
};

/// What is asked: a query of the protocol, or a view of a chain of so many blocks.
#[derive(Clone, Copy)]
enum Asked {
    Query(Question),
    View(fn(u64) -> ViewQuery),
}

/// Views, random over the chain.
const VIEWS: [(Asked, &str); 3] = [
    (
        Asked::View(|blocks| ViewQuery::Epoch(fastrand::u64(..(blocks - 1) / BLOCKS_PER_EPOCH))),
        "`/chain/epochs/{epoch}`",
    ),
    (Asked::View(|blocks| ViewQuery::Blocks { before: Some(fastrand::u64(20..blocks)), limit: 20 }), "`/chain/blocks`"),
    (Asked::View(|_| ViewQuery::Network), "`/chain/network`"),
];

/// What a gateway answers from, without a cache.
pub fn uncached(stores: &Stores, kind: Kind, length: usize) -> Outcome<Arc<Source>> {
    let settings = Settings {
        finality_depth: 40,
        peer_timeout: Duration::from_secs(10),
        cache_bytes: 0,
        sync: false,
        network: Arc::default(),
    };
    let local = LocalSource::new(stores.get(kind, length)?, PeerId::random(), settings);
    Ok(Arc::new(Source::local_only(Arc::new(local))))
}

/// Microseconds a request, one after the other.
pub async fn run(stores: &Stores, lengths: &[usize], pace: Pace) -> Outcome<String> {
    let blocks: Vec<String> = lengths.iter().map(|length| thousands(*length as f64)).collect();
    let [shortest, .., longest] = &blocks[..] else { return Err("one length shows no growth".into()) };
    let columns =
        [vec!["store".into(), "request".into()], blocks.clone(), vec![format!("{longest} : {shortest}")]].concat();
    let mut table = Table::new(2, &columns.iter().map(String::as_str).collect::<Vec<_>>());
    let mut target = Target::of_growth(lengths);
    for (kind, store_name) in stores.kinds.iter().copied() {
        for (asked, name) in QUESTIONS.map(|(question, name)| (Asked::Query(question), name)).iter().chain(&VIEWS) {
            let mut contenders = Vec::new();
            for length in lengths.iter().copied() {
                let source = uncached(stores, kind, length)?;
                let ask: Ask = match *asked {
                    Asked::Query(question) => {
                        let ask = stores.asker(question, length);
                        Arc::new(move || {
                            let (source, query) = (source.clone(), ask());
                            Box::pin(async move {
                                let answer = source.answer(query, &Origin::Local, 0).await;
                                answer.map(drop).map_err(|declined| declined.failure.to_string().into())
                            })
                        })
                    }
                    Asked::View(view) => Arc::new(move || {
                        let (source, query) = (source.clone(), view(length as u64));
                        Box::pin(async move {
                            let answer = source.view(query, None).await;
                            answer.map(drop).map_err(|failure| failure.to_string().into())
                        })
                    }),
                };
                contenders.push(contender(1, ask));
            }
            let rates = Rates::measure(&contenders, pace).await?;
            let mut row = vec![store_name.to_owned(), (*name).to_owned()];
            row.extend((0..lengths.len()).map(|length| format!("{:.0}", 1e6 / rates.of(length))));
            row.push(target.check(rates.ratio(0, lengths.len() - 1)));
            table.row(row);
        }
    }
    Ok(format!(
        "#### Store and encoding, without cache and network: µs a request, by blocks in the chain\n\n{table}\n\
         One request at a time, hashes, epochs and indexes at random over the whole chain. {target}\n"
    ))
}
