use libp2p::StreamProtocol;

use super::*;

const OURS: StreamProtocol = StreamProtocol::new(PROTOCOL);

fn connected(book: &mut PeerBook, protocols: &[StreamProtocol]) -> PeerId {
    let id = PeerId::random();
    book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    book.identified(id, "agent", protocols);
    id
}

#[test]
fn names_get_their_ids() {
    let pinned = PeerId::random();
    let mut book = PeerBook::new(&[
        "node=/ip4/127.0.0.1/tcp/1".parse().unwrap(),
        format!("seed=/ip4/127.0.0.1/tcp/2/p2p/{pinned}").parse().unwrap(),
    ]);
    assert_eq!(book.resolve("seed"), Some(pinned));
    assert_eq!(book.resolve(&pinned.to_string()), Some(pinned));
    assert!(matches!(book.find("node"), Err(P2pError::Unreachable(_))));
    assert!(matches!(book.find("nobody"), Err(P2pError::UnknownPeer)));
    let (first, second) = (PeerId::random(), PeerId::random());
    assert!(matches!(book.find(&first.to_string()), Err(P2pError::UnknownPeer)));
    book.learn(0, first);
    assert_eq!(book.resolve("node"), Some(first));
    book.learn(0, second);
    assert_eq!(book.resolve("node"), Some(second), "somebody else answers at the address now");
    assert!(!book.is_configured(&first));
    assert_eq!(book.addresses(&first), Some(&[][..]));
    let names: Vec<_> = book.infos(Instant::now()).into_iter().map(|info| (info.alias, info.configured)).collect();
    let named = |name: &str| (Some(name.to_string()), true);
    assert_eq!(names, [named("node"), named("seed"), (None, false)]);
}

#[test]
fn the_best_candidate_fails_least_then_answers_fastest() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let deaf = connected(&mut book, &[]);
    let gone = connected(&mut book, &[OURS]);
    book.disconnected(&gone, 0);
    let fresh = connected(&mut book, &[OURS]);
    let (slow, fast, flaky) =
        (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    book.answered(slow, Duration::from_millis(900));
    book.answered(fast, Duration::from_millis(3));
    book.answered(flaky, Duration::from_millis(1));
    book.failed(flaky, &P2pError::Timeout, now);
    assert_eq!(book.candidates(now), [fast, slow, fresh, flaky]);
    let later = now + 3 * FAILURE_HALF_LIFE;
    assert_eq!(book.candidates(later), [flaky, fast, slow, fresh], "failures are forgotten with time");
    assert!(!book.candidates(now).contains(&deaf));
}

#[test]
fn a_configured_peer_that_hung_up_is_a_candidate_until_a_dial_fails() {
    let now = Instant::now();
    let mut book = PeerBook::new(&["n=/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
    let id = connected(&mut book, &[OURS]);
    book.learn(0, id);
    book.disconnected(&id, 0);
    assert_eq!(book.candidates(now), [id]);
    book.dial_failed(&id, "connection refused".into());
    assert_eq!(book.candidates(now), []);
}

#[test]
fn strangers_are_forgotten_before_memory_runs_out_and_never_shown_with_addresses() {
    let mut book = PeerBook::new(&[format!("n=/ip4/192.0.2.1/tcp/1/p2p/{}", PeerId::random()).parse().unwrap()]);
    let online = connected(&mut book, &[OURS]);
    for _ in 0..2 * MAX_PEERS {
        let id = connected(&mut book, &[OURS]);
        book.disconnected(&id, 0);
    }
    assert_eq!(book.infos(Instant::now()).len(), MAX_PEERS);
    assert!(book.resolve("n").is_some() && book.resolve(&online.to_string()).is_some());
    let info = book.infos(Instant::now()).into_iter().find(|info| info.connected).unwrap();
    assert!(!info.addresses.is_empty());
    assert!(!serde_json::to_string(&book.infos(Instant::now())).unwrap().contains("192.0.2"));
}

#[test]
fn a_shunned_peer_is_no_candidate_until_its_offences_fade() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let (good, bad) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    book.answered(bad, Duration::from_millis(1));
    book.answered(good, Duration::from_millis(9));
    assert_eq!(book.candidates(now), [bad, good]);
    for (offence, until) in [(Offence::InvalidBlock, 20), (Offence::BrokenAnswer, 10)]
        .map(|(offence, m)| (offence, Duration::from_secs(m * 60)))
    {
        let mut book = PeerBook::new(&[]);
        let (good, bad) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
        book.penalise(bad, offence, now);
        assert!(book.is_shunned(&bad, now) && !book.is_shunned(&good, now));
        assert_eq!(book.candidates(now), [good], "{offence:?}");
        assert!(!book.is_useful(&bad, now) && book.is_useful(&good, now));
        assert_eq!(book.candidates(now + until - Duration::from_secs(1)), [good], "{offence:?}");
        assert!(book.candidates(now + until + Duration::from_secs(1)).contains(&bad), "{offence:?}");
    }
    book.penalise(bad, Offence::FalseClaim, now);
    assert_eq!(book.candidates(now), [bad, good], "one false claim may be a reorganisation");
    book.penalise(bad, Offence::FalseClaim, now);
    assert_eq!(book.candidates(now), [good]);
    let info =
        |book: &PeerBook| book.infos(now).into_iter().find(|info| info.peer_id == Some(bad.to_string())).unwrap();
    let told = info(&book);
    assert_eq!((told.score, told.shunned, told.penalties, told.last_penalty), (60.0, true, 2, Some("false_claim")));
}

#[test]
fn a_slow_peer_is_shunned_only_when_it_fails_all_the_time() {
    let mut now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let slow = connected(&mut book, &[OURS]);
    for _ in 0..100 {
        now += Duration::from_secs(120);
        book.penalise(slow, Offence::Unreliable, now);
        assert!(!book.is_shunned(&slow, now), "every two minutes");
    }
    for _ in 0..10 {
        book.penalise(slow, Offence::Unreliable, now);
    }
    assert!(book.is_shunned(&slow, now));
}

#[test]
fn verified_work_is_told_and_a_gateways_own_protocol_is_enough() {
    let mut book = PeerBook::new(&[]);
    let id = connected(&mut book, &[StreamProtocol::new(COMPRESSED_PROTOCOL)]);
    assert_eq!(book.candidates(Instant::now()), [id]);
    assert_eq!(book.infos(Instant::now())[0].verified_work, None);
    book.note_work(id, [u128::MAX, 1].into_iter().sum());
    let told = book.infos(Instant::now()).remove(0).verified_work;
    assert_eq!(told.as_deref(), Some("340282366920938463463374607431768211456"));
}
