//! Blocks beside the chain that never were on it, as gossip brings them.

use modal_gateway::chain::{Election, MinerBlock};

use crate::{
    support::{
        gateway::{Backend, TestGateway, chain},
        linked::linked,
        until::eventually,
    },
    world::{World, add_orphans, nominating, page, text},
};

/// The page at a path, once it has a text.
async fn page_with(gateway: &TestGateway, path: &str, wanted: &str) -> String {
    eventually(async || {
        let shown = text(&page(gateway, path).await);
        shown.contains(wanted).then_some(shown)
    })
    .await
}

#[tokio::test]
async fn blocks_that_never_were_on_the_chain_are_told_apart_from_those_that_it_left() {
    let world = World::start(Backend::Sqlite).await;
    // A whole epoch, and the end of the one whose end was replaced.
    let epoch = nominating(linked(Some(&world.chain[40]), 40, "beside"), "Beside");
    let end = nominating(linked(Some(&world.chain[117]), 3, "end"), "End");
    add_orphans(&world.gateway.store, &[&epoch[..], &end].concat()).await;

    let shown = page_with(&world.gateway, "/epoch/1", &epoch[0].hash).await;
    assert!(!shown.contains("Replaced") && !shown.contains("What followed from them"), "{shown}");
    assert!(shown.contains("Beside the chain") && shown.contains("never were on the chain of this store"), "{shown}");
    assert!(shown.contains("30 more are beside it") && !shown.contains("least"), "{shown}");

    let shown = page_with(&world.gateway, "/epoch/2", &end[2].hash).await;
    let (replaced, beside) = shown.split_once("Beside the chain").unwrap();
    for (block, kin) in world.old[118..=120].iter().zip(&end) {
        assert!(replaced.contains(&block.hash) && !beside.contains(&block.hash), "{shown}");
        assert!(beside.contains(&kin.hash) && !replaced.contains(&kin.hash), "{shown}");
    }
    assert!(replaced.contains(&Election::of(&world.old[81..=120]).seed.to_string()), "{replaced}");

    let block = page_with(&world.gateway, &format!("/block/{}", end[2].hash), "not on the chain").await;
    assert!(block.contains("It never was on the chain of this store.") && block.contains("after block 117"), "{block}");
    let forks = world.page("/forks").await;
    let row = |hash: &str| forks.all("tr").find(|row| row.text.contains(hash)).unwrap().text.clone();
    assert!(row(&end[2].hash).contains("never on the chain here"), "{}", row(&end[2].hash));
    assert!(!row(&world.old[122].hash).contains("never"), "{}", row(&world.old[122].hash));
}

#[tokio::test]
async fn a_number_of_orphans_is_the_least_where_not_all_were_read() {
    let world = World::start(Backend::Sqlite).await;
    let kin: Vec<_> = (0..101).flat_map(|name| linked(Some(&world.chain[60]), 1, &name.to_string())).collect();
    add_orphans(&world.gateway.store, &kin).await;
    let shown = page_with(&world.gateway, "/epoch/1", "Beside the chain").await;
    assert!(shown.contains("At least 90 more are beside it"), "{shown}");
    assert!(!page_with(&world.gateway, "/epoch/2", "Replaced").await.contains("There may be more"));
}

#[tokio::test]
async fn a_branch_that_is_cut_within_its_second_block_says_so() {
    let world = World::start(Backend::Sqlite).await;
    let mut orphans: Vec<_> = (0..45).flat_map(|name| linked(Some(&world.chain[59]), 1, &name.to_string())).collect();
    // The last one by hash: its child is on the page, and it is not.
    let last = MinerBlock { hash: "z".repeat(64), ..orphans[0].clone() };
    let child = linked(Some(&last), 1, "child").remove(0);
    orphans.extend([last, child.clone()]);
    add_orphans(&world.gateway.store, &orphans).await;
    page_with(&world.gateway, "/forks", &child.hash).await;
    let forks = world.page("/forks").await;
    let row = |hash: &str| forks.all("tr").find(|row| row.text.contains(hash)).unwrap().text.clone();
    assert!(row(&child.hash).contains("may be on the next page"), "{}", row(&child.hash));
    assert!(!row(&world.old[122].hash).contains("may be on the next page"));
}

#[tokio::test]
async fn a_page_claims_no_verification_that_its_blocks_lack() {
    let gateway = TestGateway::start(Backend::Sqlite).await;
    let level = async |path: &str| {
        let state = page(&gateway, path).await.by_id("state").unwrap().text.clone();
        state.split_once("What is shown here: ").map(|(_, level)| level.split('.').next().unwrap().to_owned())
    };
    let linked_only = Some("◇ links verified, proof of work not");
    for path in ["/", "/blocks", "/epoch/1", "/block/60"] {
        assert_eq!(level(path).await.as_deref(), linked_only, "{path}");
    }
    for path in ["/forks", "/reorganisations", "/search", "/search?q=60"] {
        assert_eq!(level(path).await, None, "{path} has read no level");
    }
    let orphan = linked(Some(&chain()[59]), 1, "beside");
    add_orphans(&gateway.store, &orphan).await;
    for path in ["/", "/epoch/1", "/forks"] {
        page_with(&gateway, path, &orphan[0].hash).await;
        assert_eq!(level(path).await.as_deref(), Some("? not verified"), "{path}");
    }
    assert_eq!(level("/epoch/0").await.as_deref(), linked_only, "the orphan is of another epoch");
}
