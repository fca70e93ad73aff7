//! Search: by index, epoch, hash, its beginning, peer id.

use crate::{
    support::gateway::{Backend, Reply},
    world::{World, visit},
};

async fn search(world: &World, query: &str) -> Reply {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    world
        .gateway
        .request(|_, base| {
            let client =
                reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
            client.get(format!("{base}/search?q={query}")).header("accept", "text/html")
        })
        .await
}

fn links(reply: &Reply) -> Vec<String> {
    let document = crate::support::html::Document::parse(std::str::from_utf8(&reply.body).unwrap());
    let inside = document.all("a").filter(|link| document.around(link).any(|outer| outer.name == "main"));
    inside.map(|link| link.get("href").unwrap().to_owned()).collect()
}

#[rstest::rstest]
#[case(Backend::Sqlite)]
#[case(Backend::Postgres)]
#[tokio::test]
async fn everything_is_found_by_its_name(#[case] backend: Backend) {
    let world = World::start(backend).await;
    let (chain, old) = (&world.chain, &world.old);

    let whole = search(&world, &chain[5].hash).await;
    assert_eq!(whole.status, 303, "{}", String::from_utf8_lossy(&whole.body));
    assert_eq!((whole.status, whole.header("location")), (303, Some(&*format!("./block/{}", chain[5].hash))));
    let spaced = search(&world, &format!("  {} ", old[120].hash)).await;
    assert_eq!(spaced.header("location"), Some(&*format!("./block/{}", old[120].hash)));
    let nominee = search(&world, "12D3KooNew1").await;
    assert_eq!(nominee.header("location"), Some("./nominee/12D3KooNew1"));

    let number = search(&world, "3").await;
    assert_eq!(links(&number), ["./epoch/3", "./block/3", &format!("./block/{}", chain[3].hash)]);
    let fork = links(&search(&world, "120").await);
    assert!(
        fork.contains(&format!("./block/{}", chain[120].hash)) && fork.contains(&format!("./block/{}", old[120].hash))
    );
    let body = String::from_utf8(search(&world, "120").await.body.to_vec()).unwrap();
    assert!(body.contains("</span> orphaned</span>"), "orphans are told apart: {body}");

    let prefix = links(&search(&world, &chain[9].hash[..8]).await);
    assert_eq!(prefix, ["./block/9", &*format!("./block/{}", chain[9].hash)]);
    let upper = links(&search(&world, &chain[9].hash[..12].to_uppercase()).await);
    assert_eq!(upper, prefix);
    assert!(links(&search(&world, &chain[9].hash[..7]).await).is_empty(), "too short");
    assert!(links(&search(&world, "nothing of that name").await).is_empty());
    assert_eq!(search(&world, "").await.status, 200);
    // Also one that is longer than any name: the API takes none of that length.
    let long = search(&world, &"é".repeat(2_000)).await;
    assert_eq!(long.status, 200);
    assert!(!String::from_utf8_lossy(&long.body).contains("These results as JSON"));
    let form = visit(&world.gateway, "/search?q=1%E2%80%AF0").await;
    assert!(links(&form).contains(&"./block/10".to_owned()), "numbers as pages group them");
}
