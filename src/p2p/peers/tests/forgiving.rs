//! Clearing of reputations, and candidates of last resort.

use super::*;

#[test]
fn trusted_peers_are_candidates_of_last_resort() {
    let now = Instant::now();
    let mut book = PeerBook::new(&["n=/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
    let (own, untrusted) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    book.assign_id(0, own);
    book.penalise(own, Offence::InvalidBlock, now);
    assert_eq!(book.candidates(now), [untrusted], "a better one is connected");
    book.penalise(untrusted, Offence::BrokenAnswer, now);
    assert_eq!(book.candidates(now), [own], "though shunned; but no untrusted peer");
    book.disconnected(&own, 0);
    assert_eq!(book.candidates(now), [own], "it is dialled by the request");
    book.record_dial_failure(&own, "connection refused".into());
    assert_eq!(book.candidates(now), []);
}

#[test]
fn forgiving_clears_score_ban_and_kept_reputation() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let (bad, other) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    assert!(book.penalise(bad, Offence::InvalidBlock, now));
    book.record_failure(bad, &P2pError::Timeout, now);
    book.penalise(other, Offence::BrokenAnswer, now);
    book.ban(bad, Duration::from_secs(3600), now);
    let before = book.version();
    book.forgive(&bad);
    assert_ne!(book.version(), before, "it is written down");
    assert!(book.admits(&bad, now).is_ok() && !book.is_shunned(&bad, now));
    assert_eq!(book.candidates(now), [bad]);
    let remembered: Vec<_> = book.reputations(now).into_iter().map(|known| known.peer_id).collect();
    assert_eq!(remembered, [other.to_string()]);
    let info = book.infos(now).into_iter().find(|info| info.peer_id == Some(bad.to_string())).unwrap();
    assert_eq!((info.score, info.banned_until, info.penalties, info.last_penalty), (0.0, None, 0, None));
    assert_eq!(book.peers[&bad].recent_failures.at(now, FAILURE_HALF_LIFE), 0.0);
}

#[test]
fn an_unknown_offence_of_an_earlier_release_can_be_read() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let id = PeerId::random();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let text = format!(
        r#"[{{"peer_id":"{id}","score":60.0,"since":{since},"banned_until":null,"penalties":2,"last_penalty":"false_claim"}}]"#
    );
    book.restore(&serde_json::from_str::<Vec<Reputation>>(&text).unwrap(), now);
    let info = book.infos(now).remove(0);
    assert_eq!((info.penalties, info.last_penalty, info.shunned), (2, None, true));
}

#[test]
fn the_own_dialect_is_known_once_the_peer_has_identified_itself() {
    let mut book = PeerBook::new(&[]);
    let id = PeerId::random();
    let dialect = StreamProtocol::new(COMPRESSED_PROTOCOL);
    book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    assert!(!book.speaks_own_dialect(&id), "not identified yet");
    book.record_identify(id, "modal-node/0.1.0;status_url=http://192.0.2.7/;role=Miner", &[OURS]);
    assert!(!book.speaks_own_dialect(&id), "the network's protocol only");
    let info = book.infos(Instant::now()).remove(0);
    assert_eq!((info.role.as_deref(), info.status_url.as_deref()), (Some("Miner"), Some("http://192.0.2.7/")));
    book.record_identify(id, "agent", &[OURS, dialect]);
    assert!(book.speaks_own_dialect(&id));
    book.connected(id, 2, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    assert!(book.speaks_own_dialect(&id), "one more connection");
    book.disconnected(&id, 0);
    book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    assert!(!book.speaks_own_dialect(&id), "another program may be there now");
}
