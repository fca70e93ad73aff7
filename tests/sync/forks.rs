//! Chains that part: what wins, what is refused, and what is kept of the loser.

use modal_gateway::{
    chain::MinerBlock,
    source::job::{Mode, Phase},
    store::EventKind,
};
use rstest::rstest;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::node::{Syncing, by, eventually, serve};
use crate::support::{
    chain::{Chain, HEAVY, LIGHT, MIDDLE, main_chain},
    gateway::Backend,
    serving::Serving,
};

/// Where both branches end at the most.
const LENGTH: usize = 401;

/// Two branches of equal length that part `depth` blocks before their ends: the light and the heavy one.
fn branches(depth: usize) -> (Chain, Chain) {
    let light = main_chain().first(LENGTH);
    let heavy = light.fork((LENGTH - 1 - depth) as u64, "heavy").extend(depth, &MIDDLE);
    assert!(heavy.len() == light.len() && heavy.work() > light.work());
    (light, heavy)
}

fn position(block: &MinerBlock) -> Value {
    json!({"index": block.index, "hash": block.hash})
}

#[rstest]
#[tokio::test]
async fn a_heavier_fork_is_adopted(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(1, 10, 200)] depth: usize,
    #[values("today's", "first release")] kind: &str,
) {
    let (light, heavy) = branches(depth);
    // A peer that does not tell its work is judged by its length until its blocks are there.
    let heavy = if kind == "first release" { heavy.extend(1, &MIDDLE) } else { heavy };
    let node = Serving::of(&heavy);
    let peer = serve(&if kind == "first release" { node.first_release() } else { node }).await;
    let syncing = Syncing::with(backend, &light).await;
    let before = syncing.store.events(0, 100).await.unwrap().last().unwrap().id;
    syncing.meet(&peer).await;
    let progress = syncing.sync(&by(Mode::Delta)).await.unwrap();
    syncing.assert_holds(&heavy).await;

    let (ancestor, fetched) = (LENGTH - 1 - depth, heavy.len() + depth - LENGTH);
    assert_eq!((progress.phase, progress.blocks), (Phase::Done, fetched as u64));
    assert_eq!(progress.common_ancestor_index, Some(ancestor as u64));
    assert_eq!((progress.from_index, progress.to_index), (Some(ancestor as u64 + 1), Some(heavy.tip().index)));

    let events = syncing.store.events(before, 100).await.unwrap();
    let reorganised: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Reorganised).collect();
    assert_eq!(reorganised.len(), 1, "{events:?}");
    let event: Value = serde_json::from_str(&reorganised[0].document).unwrap();
    assert_eq!((&event["ancestor"], &event["old_tip"]), (&position(&heavy[ancestor]), &position(light.tip())));
    assert_eq!(event["orphaned"], depth);
    let adopted = event["adopted"].as_u64().unwrap() as usize;
    assert_eq!(event["new_tip"], position(&heavy[ancestor + adopted]));
    assert!(event["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{event}");
    assert_eq!(events.last().unwrap().tip.as_ref().map(|tip| &tip.hash), Some(&heavy.tip().hash));

    for lost in &light[ancestor + 1..] {
        let found = syncing.store.get(&lost.hash).await.unwrap().expect("the old branch stays readable");
        let text: Value = serde_json::from_str(&found.json).unwrap();
        assert!(!found.canonical && text["is_orphaned"] == true && text["is_canonical"] == false, "{text}");
        assert_eq!(text["orphan_reason"], event["reason"]);
        let winner = text["competing_hash"].as_str().unwrap();
        assert!(heavy[ancestor + 1..].iter().any(|block| block.hash == winner), "{text}");
        let (at_index, count, _) = syncing.store.at_index(lost.index).await.unwrap();
        let hashes: Vec<_> = at_index.iter().map(|entry| (&entry.hash, entry.canonical)).collect();
        assert_eq!((hashes, count), (vec![(&heavy[lost.index as usize].hash, true), (&lost.hash, false)], 2));
    }
}

#[rstest]
#[tokio::test]
async fn a_lighter_fork_is_refused(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(1, 10, 200)] depth: usize,
    // So much longer, and still lighter.
    #[values(0, 1)] longer: usize,
    #[values("honest", "first release", "liar")] kind: &str,
) {
    let (light, heavy) = branches(depth);
    let light = if longer > 0 { main_chain().first(light.len() + longer) } else { light };
    assert!(light.work() < heavy.work());
    let node = Serving::of(&light);
    let node = match kind {
        "first release" => node.first_release(),
        "liar" => node.info(|info| info["cumulative_difficulty"] = json!("1000000")),
        _ => node,
    };
    let peer = serve(&node).await;
    let syncing = Syncing::with(backend, &heavy).await;
    let (before, events) = (syncing.store.state().await.unwrap(), syncing.store.events(0, 100).await.unwrap());
    syncing.meet(&peer).await;
    let ended = syncing.sync(&by(Mode::Delta)).await;
    syncing.assert_holds(&heavy).await;
    assert_eq!(syncing.store.state().await.unwrap(), before);
    assert_eq!(syncing.store.events(0, 100).await.unwrap(), events);
    for block in &light[LENGTH - depth..] {
        assert!(syncing.store.get(&block.hash).await.unwrap().is_none(), "nothing of it is kept");
    }
    let (blocks, penalty) = (progress_blocks(&syncing).await, syncing.info(&peer).last_penalty);
    // A claim is a hint: a greater one, or a greater length without one, is looked into, and a false one is no offence.
    // A long branch weighs too little before a hash of it is computed.
    let is_fetched = kind == "liar" || (kind == "first release" && longer > 0);
    let verified = if is_fetched && depth < 64 { (depth + longer) as u64 } else { 0 };
    assert_eq!((ended.unwrap().phase, blocks, penalty), (Phase::Done, verified, None));
}

#[rstest]
#[tokio::test]
async fn a_branch_of_several_plans_counts_with_its_whole_work(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    // The heavier one does not win before its 50th block.
    #[values(30, 200)] plan: u64,
    #[values("heavier", "longer")] kind: &str,
) {
    let (light, heavy) = branches(200);
    let longer = main_chain().first(LENGTH + 1);
    let (ours, theirs) = if kind == "heavier" { (&light, &heavy) } else { (&heavy, &longer) };
    let node = Serving::of(theirs);
    // Only its length makes the lighter one look better.
    let peer = serve(&if kind == "heavier" { node } else { node.first_release() }).await;
    let syncing = Syncing::with(backend, ours).await;
    syncing.meet(&peer).await;
    let service = syncing.service().with_plan_blocks(plan);
    let progress = service.sync_once(&by(Mode::Delta), &CancellationToken::new(), |_| {}).await.unwrap();
    syncing.assert_holds(&heavy).await;
    let branch = (theirs.len() - (LENGTH - 200)) as u64;
    assert_eq!((progress.phase, progress.blocks, progress.retries), (Phase::Done, branch, 0), "each once");
}

/// Blocks that the latest job has verified.
async fn progress_blocks(syncing: &Syncing) -> u64 {
    let job = syncing.store.jobs(1).await.unwrap().remove(0);
    serde_json::from_str::<Value>(&job.progress).unwrap()["blocks"].as_u64().unwrap()
}

#[rstest]
#[tokio::test]
async fn another_genesis_is_refused_by_name(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Mode::Full, Mode::Incremental, Mode::Epoch, Mode::Headers, Mode::Delta)] mode: Mode,
) {
    let ours = main_chain().first(100);
    let theirs = Chain::genesis(1).extend(150, &HEAVY);
    let peer = serve(&Serving::of(&theirs)).await;
    let syncing = Syncing::with(backend, &ours).await;
    syncing.meet(&peer).await;
    let error = syncing.sync(&by(mode)).await.unwrap_err().to_string();
    assert!(error.contains(&theirs[0].hash) && error.contains(&ours[0].hash), "{error}");
    syncing.assert_holds(&ours).await;
    assert_eq!(syncing.info(&peer).penalties, 0, "to be on another network is no offence");
    assert!(peer.requests().len() <= 5, "only its beginning is looked at: {:?}", peer.requests());
}

/// What was fetched of a branch outlives a peer that claims more and sends nothing.
#[rstest]
// Where the chain that is only claimed leaves ours: at our tip, and before it.
#[case::longer(Backend::Sqlite, 1_200)]
#[case::another_branch(Backend::Postgres, 1_100)]
#[tokio::test]
async fn a_staged_branch_is_kept_until_another_one_shows_blocks(#[case] backend: Backend, #[case] at: usize) {
    let light = main_chain();
    // The first thousand blocks, which are asked for together, do not win.
    let heavy = light.fork(100, "heavy").extend(1_050, &LIGHT).extend(20, &HEAVY);
    let peer = serve(&Serving::of(&heavy).at_most(100).silent_beyond(1_100)).await;
    let syncing = Syncing::with(backend, light).await;
    syncing.meet(&peer).await;
    let (service, job, stop) = (syncing.service(), by(Mode::Delta), CancellationToken::new());
    let staged = async {
        let staged = eventually(async || syncing.store.staged().await.unwrap()).await;
        stop.cancel();
        staged
    };
    let (_, begun) = tokio::join!(service.sync_once(&job, &stop, |_| {}), staged);
    drop(peer);

    let claimed = light.fork(at as u64, "claimed").extend(light.len() - at, &LIGHT);
    let claims = Serving::of(&claimed).info(|info| info["cumulative_difficulty"] = json!("9".repeat(30)));
    let liar = serve(&claims.blocks(move |blocks| blocks.retain(|block| block.index <= at as u64))).await;
    let another = syncing.beside().await;
    another.meet(&liar).await;
    another.sync_until(&by(Mode::Delta), |progress| progress.retries > 0).await;
    let left = syncing.store.staged().await.unwrap().expect("the branch is still there");
    assert!(left.end.index >= begun.end.index && left.ancestor == begun.ancestor, "{left:?}");
    drop((another, liar));

    let peer = serve(&Serving::of(&heavy)).await;
    let another = syncing.beside().await;
    another.meet(&peer).await;
    let progress = another.sync(&by(Mode::Delta)).await.unwrap();
    another.assert_holds(&heavy).await;
    assert_eq!(progress.blocks, heavy.tip().index - left.end.index, "what was there is not fetched again");
}
