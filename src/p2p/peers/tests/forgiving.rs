//! Never alone for want of forgiveness.

use super::*;

#[test]
fn the_operators_own_are_candidates_when_nobody_better_is_left() {
    let now = Instant::now();
    let mut book = PeerBook::new(&["n=/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
    let (own, stranger) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    book.learn(0, own);
    book.penalise(own, Offence::InvalidBlock, now);
    assert_eq!(book.candidates(now), [stranger], "somebody better is there");
    book.penalise(stranger, Offence::BrokenAnswer, now);
    assert_eq!(book.candidates(now), [own], "whatever it did; but no stranger");
    book.disconnected(&own, 0);
    assert_eq!(book.candidates(now), [own], "it is dialled by the request");
    book.dial_failed(&own, "connection refused".into());
    assert_eq!(book.candidates(now), []);
}

#[test]
fn who_is_forgiven_has_a_clean_slate_here_and_in_what_is_remembered() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let (bad, other) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    assert!(book.penalise(bad, Offence::InvalidBlock, now));
    book.failed(bad, &P2pError::Timeout, now);
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
fn what_earlier_releases_called_a_false_claim_can_be_read() {
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
fn own_dialect_is_what_the_peer_said_since_it_connected() {
    let mut book = PeerBook::new(&[]);
    let id = PeerId::random();
    let dialect = StreamProtocol::new(COMPRESSED_PROTOCOL);
    book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    assert!(!book.speaks_own_dialect(&id), "not identified yet");
    book.identified(id, "modal-node/0.1.0;status_url=http://192.0.2.7/;role=Miner", &[OURS]);
    assert!(!book.speaks_own_dialect(&id), "the network's protocol only");
    let info = book.infos(Instant::now()).remove(0);
    assert_eq!((info.role.as_deref(), info.status_url.as_deref()), (Some("Miner"), Some("http://192.0.2.7/")));
    book.identified(id, "agent", &[OURS, dialect]);
    assert!(book.speaks_own_dialect(&id));
    book.connected(id, 2, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    assert!(book.speaks_own_dialect(&id), "one more connection");
    book.disconnected(&id, 0);
    book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    assert!(!book.speaks_own_dialect(&id), "another program may be there now");
}
