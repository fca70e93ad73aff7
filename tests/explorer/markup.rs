//! What holds of every page: it is bounded and well-formed, can be used by everybody, holds no script of its own, and
//! leads nowhere else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use reqwest::Url;

use crate::{
    support::{
        gateway::{Backend, TestGateway, TestStore},
        html::{Document, Element},
    },
    world::{World, visit},
};

/// Longest page.
pub const MAX_BYTES: usize = 100_000;

/// Checks a page by itself.
pub fn check(path: &str, document: &Document) {
    assert_eq!(document.one("html").get("lang"), Some("en"), "{path}");
    assert!(!document.one("h1").text.trim().is_empty(), "{path}");
    // Drawings have titles too.
    let is_drawn = |title: &&Element| document.around(title).any(|outer| outer.name == "svg");
    let titles: Vec<_> = document.all("title").filter(|title| !is_drawn(title)).collect();
    assert!(matches!(&titles[..], [title] if title.text.contains(" · ")), "{path}: {titles:?}");
    for landmark in ["header", "main", "footer"] {
        document.one(landmark);
    }
    let skip = document.all("a").next().unwrap();
    assert_eq!(skip.get("href"), Some("#main"), "{path}: the first link skips the header");
    assert_eq!(document.by_id("main").map(|element| element.name.as_str()), Some("main"), "{path}");
    has_unique_ids(path, document);
    has_headings_in_order(path, document);
    has_names(path, document);
    has_no_code(path, document);
}

fn has_unique_ids(path: &str, document: &Document) {
    let mut ids = BTreeSet::new();
    for id in document.elements.iter().filter_map(|element| element.get("id")) {
        assert!(ids.insert(id), "{path}: the id {id} twice");
    }
    for element in &document.elements {
        for name in ["for", "aria-labelledby", "aria-describedby"] {
            for id in element.get(name).into_iter().flat_map(|ids| ids.split(' ')) {
                assert!(ids.contains(id), "{path}: {name} names {id}, which is not there");
            }
        }
    }
}

fn has_headings_in_order(path: &str, document: &Document) {
    let mut last = 0;
    let levels = document.elements.iter().filter_map(|element| match element.name.as_str() {
        "h1" => Some(1),
        "h2" => Some(2),
        "h3" => Some(3),
        _ => None,
    });
    for level in levels {
        assert!(level <= last + 1, "{path}: a heading of level {level} after one of {last}");
        last = level;
    }
}

/// Everything that is named or used has a name.
fn has_names(path: &str, document: &Document) {
    let labels: BTreeSet<_> = document.all("label").filter_map(|label| label.get("for")).collect();
    for control in document.elements.iter().filter(|element| matches!(element.name.as_str(), "input" | "select")) {
        assert!(control.get("id").is_some_and(|id| labels.contains(id)), "{path}: {control:?} has no label");
    }
    for element in &document.elements {
        match element.name.as_str() {
            "a" | "button" => assert!(!element.text.trim().is_empty(), "{path}: {element:?} has no text"),
            "nav" | "progress" | "meter" => assert!(element.get("aria-label").is_some(), "{path}: {element:?}"),
            "section" => {
                let name = element.get("aria-labelledby").or(element.get("aria-label"));
                assert!(name.is_some(), "{path}: {element:?}");
            }
            "svg" => {
                assert_eq!(element.get("role"), Some("img"), "{path}");
                assert!(element.get("aria-labelledby").is_some(), "{path}");
            }
            "th" => assert_eq!(element.get("scope"), Some("col"), "{path}"),
            "time" => assert!(element.get("datetime").unwrap().ends_with('Z'), "{path}"),
            _ => {}
        }
    }
    let navigations: Vec<_> = document.all("nav").map(|nav| nav.get("aria-label").unwrap()).collect();
    let different: BTreeSet<_> = navigations.iter().collect();
    assert_eq!(different.len(), navigations.len(), "{path}: {navigations:?}");
}

/// No script, style or address of another host.
fn has_no_code(path: &str, document: &Document) {
    for element in &document.elements {
        assert_ne!(element.name, "style", "{path}");
        assert!(element.name != "script" || (element.get("src").is_some() && element.text.is_empty()), "{path}");
        for (name, value) in &element.attributes {
            assert!(name != "style" && !name.starts_with("on"), "{path}: {name}={value:?}");
            if matches!(name.as_str(), "href" | "src" | "action" | "data-events") {
                let is_relative = ["./", "../", "?", "#"].iter().any(|start| value.starts_with(start));
                assert!(is_relative, "{path}: {name}={value:?}");
            }
        }
    }
}

/// The links of a page that browsers follow or load.
fn links(document: &Document) -> Vec<&str> {
    let linking = document.elements.iter().filter_map(|element| element.get("href").or(element.get("src")));
    linking.filter(|link| !link.starts_with('#')).collect()
}

/// Follows every link from the first page on, each kind of page so often; returns what was visited.
pub async fn crawl(gateway: &TestGateway, each: usize) -> BTreeMap<String, usize> {
    let base = Url::parse(&gateway.base).unwrap();
    let mut open = VecDeque::from([base.clone()]);
    let (mut seen, mut kinds) = (BTreeSet::from([base.clone()]), BTreeMap::<String, usize>::new());
    while let Some(url) = open.pop_front() {
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let kind = url.path().split('/').nth(1).unwrap().to_owned();
        let count = kinds.entry(kind).or_default();
        if *count >= each {
            continue;
        }
        *count += 1;
        let reply = visit(gateway, target).await;
        assert_eq!(reply.status, 200, "{target}: {}", String::from_utf8_lossy(&reply.body));
        if !reply.header("content-type").unwrap().starts_with("text/html") || url.path().starts_with("/docs") {
            continue;
        }
        assert!(reply.body.len() <= MAX_BYTES, "{target}: {} bytes", reply.body.len());
        let document = Document::parse(std::str::from_utf8(&reply.body).unwrap());
        check(target, &document);
        for link in links(&document) {
            let mut next = url.join(link).unwrap();
            next.set_fragment(None);
            assert_eq!(next.origin(), base.origin(), "{target}: {link}");
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    kinds
}

#[rstest::rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn every_page_that_is_linked_is_there_and_keeps_the_rules(#[case] backend: Backend) {
    let world = World::start(backend).await;
    let kinds = crawl(&world.gateway, 40).await;
    let expected = [
        "",
        "assets",
        "block",
        "blocks",
        "chain",
        "docs",
        "epoch",
        "epochs",
        "forks",
        "network",
        "nominee",
        "nominees",
        "openapi.json",
        "peers",
        "reorganisations",
        "search",
        "status",
    ];
    for kind in expected {
        assert!(kind == "search" || kinds.contains_key(kind), "nothing leads to {kind}: {kinds:?}");
    }
    assert!(kinds["block"] == 40 && kinds["epoch"] >= 4, "{kinds:?}");
    for path in ["/search", "/search?q=1", "/blocks?before=60", "/forks?hide=1", "/nominees?epochs=7", "/?refresh=10"] {
        check(path, &world.page(path).await);
    }
}

#[tokio::test]
async fn an_empty_store_has_pages_too() {
    let gateway = TestGateway::over(TestStore::create(Backend::Sqlite).await, &[], |config| config).await;
    let kinds = crawl(&gateway, 40).await;
    assert!(kinds.contains_key("forks") && !kinds.contains_key("block"), "{kinds:?}");
    let page = visit(&gateway, "/").await;
    assert!(String::from_utf8_lossy(&page.body).contains("this store has no block yet"));
}
