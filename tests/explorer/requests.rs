//! Requests for pages: caches, slashes, refreshing, assets.

use modal_gateway::chain::Level;

use crate::{
    support::{
        gateway::{Backend, TestGateway, TestStore},
        linked::linked,
        until::eventually,
    },
    world::{World, nominating, visit},
};

#[tokio::test]
async fn a_page_that_did_not_change_is_not_sent_again() {
    let store = TestStore::create(Backend::Sqlite).await;
    let chain = nominating(linked(None, 60, "main"), "Main");
    store.append(chain[..50].to_vec(), Level::None).await;
    let gateway = TestGateway::over(store, &[], |config| config).await;
    for path in ["/", "/blocks", "/block/3", "/epoch/0"] {
        let tag = visit(&gateway, path).await.header("etag").unwrap().to_owned();
        // A page says how old things are, in minutes: it may change between two requests.
        let same = eventually(async || {
            let tag = visit(&gateway, path).await.header("etag").unwrap().to_owned();
            let again = gateway.get_with(path, "if-none-match", &tag).await;
            (again.status == 304 && again.body.is_empty()).then_some(())
        });
        same.await;
        gateway.store.append(vec![], Level::None).await;
        assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    }
    let before = visit(&gateway, "/block/3").await.header("etag").unwrap().to_owned();
    gateway.store.append(chain[50..].to_vec(), Level::None).await;
    eventually(async || (visit(&gateway, "/block/3").await.header("etag") != Some(&before)).then_some(())).await;
}

#[tokio::test]
async fn pages_have_the_headers_of_pages() {
    let world = World::start(Backend::Sqlite).await;
    let reply = visit(&world.gateway, "/").await;
    let policy = reply.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(reply.header("x-frame-options"), Some("DENY"));
    assert_eq!(reply.header("x-modal-source"), Some("local"));
    assert_eq!(reply.header("x-modal-tip"), Some(&*format!("125:{}", world.chain[125].hash)));
    let head = world.gateway.request(|client, base| client.head(base)).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_the_name_of_their_content() {
    let world = World::start(Backend::Sqlite).await;
    let page = world.page("/").await;
    let links = page.all("link").map(|link| link.get("href").unwrap());
    let assets: Vec<_> = links.chain(page.all("script").map(|script| script.get("src").unwrap())).collect();
    assert_eq!(assets.len(), 3, "{assets:?}");
    for asset in assets {
        let path = asset.strip_prefix('.').unwrap();
        let reply = world.gateway.get(path).await;
        assert_eq!((reply.status, reply.header("cache-control")), (200, Some("public, max-age=31536000, immutable")));
        let current = world.gateway.get_with(path, "if-none-match", reply.header("etag").unwrap()).await;
        assert_eq!((current.status, current.header("vary")), (304, Some("accept-encoding")), "as the 200 varies");
    }
    assert_eq!(world.gateway.get("/assets/style.css").await.status, 404);
}

#[tokio::test]
async fn a_reader_can_have_a_page_loaded_again() {
    let world = World::start(Backend::Sqlite).await;
    let reply = visit(&world.gateway, "/blocks?before=100&refresh=15").await;
    assert_eq!(reply.header("refresh"), Some("15"));
    let page = world.page("/blocks?before=100&refresh=15").await;
    assert!(page.all("script").next().is_none(), "nothing else renews it");
    let stop = page.all("a").find(|link| link.text == "Stop that").unwrap();
    assert_eq!(stop.get("href"), Some("?before=100"));
    let plain = world.page("/blocks?before=100").await;
    let start = plain.all("a").find(|link| link.text.contains("every 10 seconds")).unwrap();
    assert_eq!(start.get("href"), Some("?before=100&refresh=10"));
    for wrong in ["4", "3601", "x", "-1"] {
        assert_eq!(visit(&world.gateway, &format!("/?refresh={wrong}")).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn slashes_at_the_end_lead_to_the_page_without() {
    let world = World::start(Backend::Sqlite).await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    for (path, location) in
        [("/epochs/", "../epochs"), ("/block/5/?a=1", "../5?a=1"), ("/block/5//", "../../5"), ("//", "../")]
    {
        let reply = client.get(format!("{}{path}", world.gateway.base)).send().await.unwrap();
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()["location"]),
            (308, &location.parse().unwrap()),
            "{path}"
        );
    }
    // Routes of the API have always been there with a slash too.
    assert_eq!(client.get(format!("{}/status/", world.gateway.base)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn parameters_of_others_are_left_alone() {
    let world = World::start(Backend::Sqlite).await;
    for path in ["/?utm_source=x", "/blocks?before=&x=1", "/network?page=99999999999"] {
        assert_eq!(visit(&world.gateway, path).await.status, 200, "{path}");
    }
    for path in ["/blocks?before=x", "/blocks?before=-1", "/network?page=x", "/forks?before=x"] {
        assert_eq!(visit(&world.gateway, path).await.status, 400, "{path}");
    }
}
