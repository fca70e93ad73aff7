//! What each page says.

use modal_gateway::chain::{Election, Level};
use rstest::rstest;

use crate::{
    support::{
        gateway::{Backend, TestGateway, TestStore},
        html::Document,
        linked::linked,
    },
    world::{ANCESTOR, OLD_TIP, TIP, World, add_orphans, grouped, nominating, page, reorganise, text, visit},
};

#[rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn a_hash_shows_exactly_that_block(#[case] backend: Backend) {
    let world = World::start(backend).await;
    for block in &world.chain[ANCESTOR as usize - 2..] {
        let page = world.page(&format!("/block/{}", block.hash)).await;
        assert_eq!(page.one("h1").text, format!("Block {}", block.index));
        assert_eq!(page.marks()[..3], ["canonical", "not final", "not verified"], "{}", block.index);
        assert!(page.all("code").any(|code| code.text == block.hash));
    }
    assert_eq!(world.page(&format!("/block/{}", world.chain[3].hash)).await.marks()[..2], ["canonical", "final"]);
    // Every block of the branch, not only its first.
    for block in &world.old[ANCESTOR as usize + 1..] {
        let page = world.page(&format!("/block/{}", block.hash)).await;
        assert_eq!(page.marks()[..2], ["orphaned", "not verified"], "{}", block.index);
        assert!(page.all("s").any(|struck| struck.text == block.hash), "{}", block.index);
        let text = text(&page);
        assert!(text.contains("This block is not on the chain"), "{text}");
        assert!(text.contains(&format!("parts from the chain after block {ANCESTOR}")), "{text}");
        assert!(text.contains("heavier chain") && text.contains(&world.chain[TIP as usize].hash), "{text}");
    }
    let unknown = visit(&world.gateway, &format!("/block/{}", "ab".repeat(32))).await;
    assert_eq!(unknown.status, 404);
    assert!(String::from_utf8_lossy(&unknown.body).contains("Block not found"));
}

#[tokio::test]
async fn an_index_follows_the_chain_and_links_its_siblings() {
    let world = World::start(Backend::Sqlite).await;
    let page = world.page("/block/120").await;
    assert_eq!(page.marks()[0], "canonical");
    let links: Vec<_> = page.all("a").filter_map(|link| link.get("href")).collect();
    for block in [&world.chain[120], &world.old[120], &world.chain[119], &world.chain[121]] {
        assert!(links.contains(&format!("../block/{}", block.hash).as_str()), "{links:?}");
    }
    assert!(text(&page).contains("This address follows the chain"));
    let reply = visit(&world.gateway, "/block/120").await;
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    assert_eq!(visit(&world.gateway, "/block/126").await.status, 404);
    // The chain goes on, and another block is there.
    let before = page.all("dd").next().unwrap().text.clone();
    let branch = nominating(linked(Some(&world.chain[118]), 12, "third"), "Third");
    reorganise(&world.gateway.store, 118, branch.clone()).await;
    let after = crate::support::until::eventually(async || {
        let page = world.page("/block/120").await;
        let now = page.all("dd").next().unwrap().text.clone();
        (now != before).then_some(page)
    })
    .await;
    assert!(after.all("code").any(|code| code.text == branch[1].hash));
    assert!(after.marks().iter().filter(|mark| *mark == "orphaned").count() >= 2, "{:?}", after.marks());
}

#[tokio::test]
async fn an_epoch_shows_positions_order_and_validators_and_what_was_replaced() {
    let world = World::start(Backend::Sqlite).await;
    let page = world.page("/epoch/2").await;
    let shown = text(&page);
    let election = Election::of(&world.chain[81..=120]);
    assert!(shown.contains(&format!("Seed {}", election.seed)), "{shown}");
    assert!(shown.contains("Validators of epoch 4") && shown.contains("follow from epoch 0"), "{shown}");
    assert_eq!(page.marks()[..2], ["not final", "provisional"]);
    let order: Vec<_> = page.elements.iter().filter(|element| element.name == "li").collect();
    let order =
        order.iter().filter(|item| page.around(item).any(|outer| outer.name == "ol" && outer.has_class("order")));
    let order: Vec<u64> = order.map(|item| item.text.split(' ').next().unwrap().parse().unwrap()).collect();
    let expected: Vec<u64> = election.order.iter().map(|position| world.chain[81 + position].index).collect();
    assert_eq!(order, expected);
    for (peer, stake) in &election.validators {
        assert!(shown.contains(&format!("{peer}{stake}validator")), "{peer} {stake}: {shown}");
    }
    // The blocks that the reorganisation took out, and what had followed from them.
    let struck: Vec<_> = page.all("s").map(|struck| struck.text.clone()).collect();
    for block in &world.old[ANCESTOR as usize + 1..=120] {
        assert!(struck.contains(&block.hash), "{struck:?}");
    }
    assert!(!struck.contains(&world.old[121].hash), "that one is of the next epoch");
    assert!(shown.contains("Replaced by a reorganisation") && shown.contains("heavier chain"), "{shown}");
    let before = Election::of(&world.old[81..=120]);
    assert!(struck.contains(&before.seed.to_string()), "the seed of before: {struck:?}");
    assert!(before.validators.iter().all(|(peer, _)| struck.contains(peer)), "{struck:?}");

    let next = world.page("/epoch/3").await;
    assert_eq!(next.marks()[0], "incomplete");
    assert!(text(&next).contains("35 blocks are missing") && text(&next).contains("Validators of epoch 5"));
    let settled = world.page("/epoch/0").await;
    assert_eq!(settled.marks()[..2], ["final", "settled"]);
    assert!(!text(&settled).contains("Replaced"));
    assert_eq!(visit(&world.gateway, "/epoch/4").await.status, 404);
    assert_eq!(visit(&world.gateway, "/epoch/x").await.status, 400);
}

#[tokio::test]
async fn forks_and_reorganisations_are_told() {
    let world = World::start(Backend::Sqlite).await;
    let depth = OLD_TIP - ANCESTOR;
    let page = world.page("/reorganisations").await;
    let shown = text(&page);
    assert!(shown.contains(&format!("{depth} left the chain, {} joined", TIP - ANCESTOR)), "{shown}");
    for hash in
        [&world.old[OLD_TIP as usize].hash, &world.chain[TIP as usize].hash, &world.chain[ANCESTOR as usize].hash]
    {
        assert!(shown.contains(hash.as_str()), "{shown}");
    }
    assert!(shown.contains("Epochs with changed blocks: 2 to 3"), "{shown}");
    assert!(shown.contains("One node does not see every fork"), "{shown}");
    let forks = world.page("/forks").await;
    let rows: Vec<_> = forks.all("tr").filter(|row| row.text.contains("heavier chain")).collect();
    assert_eq!(rows.len(), 1, "one branch, however many blocks it has");
    assert!(rows[0].text.contains(&world.old[OLD_TIP as usize].hash), "its tip");
    let tree: Vec<_> =
        forks.elements.iter().filter(|element| element.name == "li" && element.text.contains('├')).collect();
    assert_eq!(tree.len() as u64, depth);
    for place in ["/", "/forks", "/reorganisations"] {
        assert!(text(&world.page(place).await).contains(&depth.to_string()), "{place}");
    }
}

#[tokio::test]
async fn forks_of_one_block_can_be_hidden() {
    let world = World::start(Backend::Sqlite).await;
    let orphan = nominating(linked(Some(&world.chain[60]), 1, "short"), "Short");
    add_orphans(&world.gateway.store, &orphan).await;
    let all = crate::support::until::eventually(async || {
        let shown = text(&world.page("/forks").await);
        shown.contains(&orphan[0].hash).then_some(shown)
    })
    .await;
    assert!(all.contains(&world.old[120].hash));
    let hidden = world.page("/forks?hide=1").await;
    assert!(!text(&hidden).contains(&orphan[0].hash) && text(&hidden).contains(&world.old[120].hash));
    assert!(text(&hidden).contains("1 fork of one block is hidden"));
    let checkbox = hidden.by_id("hide").unwrap();
    assert!(checkbox.attributes.contains_key("checked"));
}

#[tokio::test]
async fn every_page_names_its_source_its_tip_and_that_it_is_not_live() {
    let world = World::start(Backend::Sqlite).await;
    for path in
        ["/", "/blocks", "/block/3", "/epochs", "/epoch/1", "/nominees", "/network", "/forks", "/reorganisations"]
    {
        let page = world.page(path).await;
        let state = &page.by_id("state").unwrap().text;
        assert!(state.contains("Source: this gateway’s store"), "{path}: {state}");
        assert!(state.contains(&world.chain[TIP as usize].hash), "{path}: {state}");
        assert!(state.contains("Not live:") && state.contains("years ago"), "{path}: {state}");
        assert!(state.contains("Sync: off"), "{path}: {state}");
    }
}

#[tokio::test]
async fn a_page_of_blocks_stays_where_it_is_while_blocks_arrive() {
    let store = TestStore::create(Backend::Sqlite).await;
    let chain = nominating(linked(None, 1_300, "main"), "Main");
    store.append(chain[..1_200].to_vec(), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let hashes = |page: &Document| -> Vec<String> {
        let codes = page.all("code").filter(|code| page.around(code).any(|outer| outer.name == "tbody"));
        codes.map(|code| code.text.clone()).filter(|text| text.len() == 64).collect()
    };
    let first = page(&gateway, "/blocks").await;
    let newest: Vec<_> = chain[1_150..1_200].iter().rev().map(|block| block.hash.clone()).collect();
    assert_eq!(hashes(&first), newest);
    let next = first.all("a").find(|link| link.get("rel") == Some("next")).unwrap().get("href").unwrap().to_owned();
    assert_eq!(next, "?before=1150");
    let older = page(&gateway, &format!("/blocks{next}")).await;
    gateway.store.append(chain[1_200..].to_vec(), Level::None).await;
    crate::support::until::eventually(async || {
        text(&page(&gateway, "/blocks").await).contains(&grouped("1_299")).then_some(())
    })
    .await;
    let again = page(&gateway, &format!("/blocks{next}")).await;
    assert_eq!(hashes(&older), hashes(&again));
    assert_eq!(hashes(&again)[0], chain[1_149].hash);
}

#[tokio::test]
async fn a_nominee_has_its_blocks_and_its_rank() {
    let world = World::start(Backend::Sqlite).await;
    let page = world.page("/nominee/12D3KooOld3").await;
    let count = world.chain.iter().filter(|block| block.nominated_peer_id == "12D3KooOld3").count();
    assert!(text(&page).contains(&format!("{count} canonical blocks nominate this peer")), "{}", text(&page));
    assert!(text(&page).contains("met no peer of that id"));
    let ranking = world.page("/nominees?epochs=1").await;
    assert!(text(&ranking).contains("12D3KooNew1") && !text(&ranking).contains("12D3KooOld3"));
    assert!(text(&ranking).contains("5 blocks of the epoch 3, which may be incomplete"), "{}", text(&ranking));
    let several = text(&world.page("/nominees?epochs=2").await);
    assert!(several.contains("45 blocks of the epochs 2 to 3, the last of which"), "{several}");
    assert_eq!(visit(&world.gateway, "/nominee/12D3KooWNobody").await.status, 404);
    assert_eq!(visit(&world.gateway, "/nominees?epochs=26").await.status, 400);
}

#[tokio::test]
async fn one_block_is_one_block() {
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(nominating(linked(None, 2, "main"), "Main"), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    let ranking = text(&page(&gateway, "/nominees").await);
    assert!(ranking.contains("1 block of the epoch 0, which may be incomplete"), "{ranking}");
    let nominee = text(&page(&gateway, "/nominee/12D3KooMain1").await);
    assert!(nominee.contains("1 canonical block nominates this peer"), "{nominee}");
}

#[tokio::test]
async fn the_nominee_of_an_orphan_is_no_link() {
    let world = World::start(Backend::Sqlite).await;
    let orphan = nominating(linked(Some(&world.chain[60]), 1, "short"), "Short");
    add_orphans(&world.gateway.store, &orphan).await;
    let (hash, nominee) = (&orphan[0].hash, &orphan[0].nominated_peer_id);
    for path in [format!("/block/{hash}"), "/epoch/1".into()] {
        let page = crate::support::until::eventually(async || {
            let page = world.page(&path).await;
            text(&page).contains(nominee.as_str()).then_some(page)
        })
        .await;
        let links: Vec<_> = page.all("a").filter_map(|link| link.get("href")).collect();
        assert!(!links.iter().any(|link| link.contains(nominee.as_str())), "{path}: {links:?}");
        assert!(path.contains("block") || links.iter().any(|link| link.contains("nominee/")), "{path}: {links:?}");
    }
    assert_eq!(visit(&world.gateway, &format!("/nominee/{nominee}")).await.status, 404);
}

/// What a page shows is also there as JSON: as many entries, and those of the same part of the list.
#[tokio::test]
async fn the_json_link_gives_what_the_page_shows() {
    let world = World::start(Backend::Sqlite).await;
    let old = &world.old[120];
    let behind = format!("120%3A{}", old.hash);
    for (path, expected) in [
        ("/".into(), "chain/blocks?limit=15".into()),
        ("/blocks".into(), "chain/blocks?limit=50".into()),
        ("/blocks?before=60".into(), "chain/blocks?limit=50&before=60".into()),
        ("/epochs?before=2".into(), "chain/epochs?limit=20&before=2".into()),
        ("/reorganisations?before=9".into(), "chain/reorganisations?limit=40&before=9".into()),
        ("/forks".into(), "chain/orphans?limit=45".into()),
        (format!("/forks?before={behind}"), format!("chain/orphans?limit=45&before={behind}")),
        ("/search?q=a+b%26c".into(), "chain/search?q=a%20b%26c".into()),
        ("/nominee/12D3KooOld3?before=60".into(), "chain/nominees/12D3KooOld3?limit=50&before=60".into()),
    ] {
        let page = world.page(&path).await;
        let link = page.all("a").find(|link| link.text.ends_with("as JSON")).unwrap().get("href").unwrap();
        let link = link.trim_start_matches(['.', '/']);
        assert_eq!(link, expected, "{path}");
        let reply = world.gateway.get(&format!("/{link}")).await;
        assert_eq!(reply.status, 200, "{link}");
        if !link.contains("blocks") && !link.contains("nominees") {
            continue;
        }
        let shown = text(&page);
        for block in reply.json()["data"]["blocks"].as_array().unwrap() {
            assert!(shown.contains(block["hash"].as_str().unwrap()), "{path} lacks {block}");
        }
    }
}

#[tokio::test]
async fn charts_have_a_title_a_description_and_a_table() {
    let world = World::start(Backend::Sqlite).await;
    let page = world.page("/epochs").await;
    let titles: Vec<_> = page.all("svg").map(|svg| svg.get("aria-labelledby").unwrap().to_owned()).collect();
    assert_eq!(titles.len(), 3);
    for ids in titles {
        for id in ids.split(' ') {
            assert!(!page.by_id(id).unwrap().text.is_empty(), "{id}");
        }
    }
    assert_eq!(page.all("tr").count(), 1 + 4, "a row for each of the four epochs");
    assert!(text(&page).contains("10.0 s"), "the mean block time: {}", text(&page));
}
