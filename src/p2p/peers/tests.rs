use libp2p::StreamProtocol;

use super::info::PeerInfo;
use super::record::Reputation;
use super::*;
use crate::p2p::config::Trust;
use crate::p2p::error::Refusal;

pub(super) const OURS: StreamProtocol = StreamProtocol::new(PROTOCOL);

pub(super) fn connected(book: &mut PeerBook, protocols: &[StreamProtocol]) -> PeerId {
    let id = PeerId::random();
    book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
    book.record_identify(id, "agent", protocols);
    id
}

pub(super) fn info(book: &PeerBook, id: PeerId, now: Instant) -> PeerInfo {
    book.infos(now).into_iter().find(|info| info.peer_id == Some(id.to_string())).unwrap()
}

#[test]
fn names_get_their_ids() {
    let pinned = PeerId::random();
    let mut book = PeerBook::new(&[
        "node=/ip4/127.0.0.1/tcp/1".parse().unwrap(),
        format!("seed=/ip4/127.0.0.1/tcp/2/p2p/{pinned}").parse().unwrap(),
    ]);
    assert_eq!(book.find("seed"), Ok(pinned));
    assert_eq!(book.find(&pinned.to_string()), Ok(pinned));
    assert!(matches!(book.find("node"), Err(P2pError::Unreachable(_))));
    assert!(matches!(book.find("nobody"), Err(P2pError::UnknownPeer)));
    let (first, second) = (PeerId::random(), PeerId::random());
    assert!(matches!(book.find(&first.to_string()), Err(P2pError::UnknownPeer)));
    book.assign_id(0, first);
    assert_eq!(book.find("node"), Ok(first));
    book.assign_id(0, second);
    assert_eq!(book.find("node"), Ok(second), "another peer is at the address now");
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
    book.record_answer(slow, Duration::from_millis(900));
    book.record_answer(fast, Duration::from_millis(3));
    book.record_answer(flaky, Duration::from_millis(1));
    book.record_failure(flaky, &P2pError::Timeout, now);
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
    book.assign_id(0, id);
    book.disconnected(&id, 0);
    assert_eq!(book.candidates(now), [id]);
    book.record_dial_failure(&id, "connection refused".into());
    assert_eq!(book.candidates(now), []);
}

#[test]
fn idle_peers_are_forgotten_over_the_limit_and_addresses_are_not_serialized() {
    let mut book = PeerBook::new(&[format!("n=/ip4/192.0.2.1/tcp/1/p2p/{}", PeerId::random()).parse().unwrap()]);
    let online = connected(&mut book, &[OURS]);
    for _ in 0..2 * MAX_PEERS {
        let id = connected(&mut book, &[OURS]);
        book.disconnected(&id, 0);
    }
    assert_eq!(book.infos(Instant::now()).len(), MAX_PEERS);
    assert!(book.find("n").is_ok() && book.find(&online.to_string()).is_ok());
    let info = book.infos(Instant::now()).into_iter().find(|info| info.connected).unwrap();
    assert!(!info.addresses.is_empty());
    assert!(!serde_json::to_string(&book.infos(Instant::now())).unwrap().contains("192.0.2"));
}

#[test]
fn a_shunned_peer_is_no_candidate_until_its_score_has_decayed() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let (good, bad) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    book.record_answer(bad, Duration::from_millis(1));
    book.record_answer(good, Duration::from_millis(9));
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
    (0..9).for_each(|_| _ = book.penalise(bad, Offence::Unreliable, now));
    assert_eq!(book.candidates(now), [bad, good], "slow is not malicious");
    (0..2).for_each(|_| _ = book.penalise(bad, Offence::Unreliable, now));
    assert_eq!(book.candidates(now), [good]);
    let info = info(&book, bad, now);
    assert_eq!((info.score, info.shunned, info.penalties, info.last_penalty), (55.0, true, 11, Some("unreliable")));
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
fn verified_work_is_shown_and_the_own_dialect_is_enough() {
    let mut book = PeerBook::new(&[]);
    let id = connected(&mut book, &[StreamProtocol::new(COMPRESSED_PROTOCOL)]);
    assert_eq!(book.candidates(Instant::now()), [id]);
    assert_eq!(book.infos(Instant::now())[0].verified_work, None);
    book.note_work(id, [u128::MAX, 1].into_iter().sum());
    let work = book.infos(Instant::now()).remove(0).verified_work;
    assert_eq!(work.as_deref(), Some("340282366920938463463374607431768211456"));
}

#[test]
fn trust_decides_on_admission_requests_and_gossip() {
    let now = Instant::now();
    let (friend, foe) = (PeerId::random(), PeerId::random());
    for (mode, admitted, asked) in
        [(Trust::Open, true, true), (Trust::Listed, true, false), (Trust::Closed, false, false)]
    {
        let list = TrustList { mode, allow: [friend, foe].into(), deny: [foe].into() };
        let pinned = PeerId::random();
        let configured = format!("n=/ip4/192.0.2.1/tcp/1/p2p/{pinned}").parse().unwrap();
        let mut book = PeerBook::new(&[configured]).with_trust(list);
        let untrusted = connected(&mut book, &[OURS]);
        for id in [friend, foe, pinned] {
            book.connected(id, 1, "/ip4/192.0.2.7/tcp/4001".parse().unwrap());
            book.record_identify(id, "agent", &[OURS]);
        }
        assert_eq!(book.admits(&untrusted, now).is_ok(), admitted, "{mode:?}");
        assert_eq!((book.is_eligible(&untrusted, now), book.find(&untrusted.to_string()).is_ok()), (asked, asked));
        assert_eq!(book.candidates(now).contains(&untrusted), asked, "{mode:?}");
        for id in [friend, pinned] {
            assert!(book.admits(&id, now).is_ok() && book.is_trusted(&id) && book.candidates(now).contains(&id));
        }
        assert_eq!((book.admits(&foe, now), book.is_trusted(&foe)), (Err(Refusal::Denied), false), "deny wins");
        assert!(book.find(&foe.to_string()).is_err() && !book.candidates(now).contains(&foe));
        let not_admitted = book.not_admitted(now);
        assert_eq!((not_admitted.contains(&foe), not_admitted.contains(&untrusted)), (true, !admitted));
    }
}

#[test]
fn a_provable_offence_bans_until_the_score_has_decayed_also_over_a_restart() {
    let now = Instant::now();
    let configured = PeerId::random();
    let mut book = PeerBook::new(&[format!("n=/ip4/192.0.2.1/tcp/1/p2p/{configured}").parse().unwrap()]);
    let (bad, slow) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    assert!(book.penalise(bad, Offence::InvalidBlock, now), "banned");
    assert!(!book.penalise(configured, Offence::InvalidBlock, now), "only shunned: it is the operator's");
    for _ in 0..1000 {
        assert!(!book.penalise(slow, Offence::Unreliable, now), "slow is not malicious");
    }
    assert_eq!(book.admits(&bad, now), Err(Refusal::Banned));
    assert!(book.admits(&configured, now).is_ok() && book.is_shunned(&configured, now));
    assert!(book.admits(&slow, now).is_ok() && book.is_shunned(&slow, now));
    let left = info(&book, bad, now).banned_until.unwrap() - unix_now().unsigned_abs();
    assert!((1195..=1201).contains(&left), "{left} s");
    assert!(book.admits(&bad, now + Duration::from_secs(1199)).is_err());
    assert!(
        book.admits(&bad, now + Duration::from_secs(1201)).is_ok()
            && !book.is_shunned(&bad, now + Duration::from_secs(1201))
    );

    let kept = book.reputations(now);
    assert_eq!(kept.len(), 3);
    assert_eq!(kept.iter().filter(|known| known.banned_until.is_some()).count(), 2, "worst first");
    assert!(kept[0].banned_until.is_some() && kept[1].banned_until.is_some());
    let text = serde_json::to_string(&kept).unwrap();
    let mut next = PeerBook::new(&[]);
    next.restore(&serde_json::from_str::<Vec<Reputation>>(&text).unwrap(), now);
    assert_eq!(next.admits(&bad, now), Err(Refusal::Banned));
    assert!(next.admits(&bad, now + Duration::from_secs(1202)).is_ok(), "it is not for ever");
    let mut old = kept.clone();
    for known in &mut old {
        known.since -= 600;
        known.banned_until = known.banned_until.map(|until| until - 600);
    }
    let mut later = PeerBook::new(&[]);
    later.restore(&old, now);
    assert!(later.admits(&bad, now + Duration::from_secs(595)).is_err());
    assert!(later.admits(&bad, now + Duration::from_secs(602)).is_ok(), "time counts while the node is down");
    let info = info(&later, bad, now);
    assert!((99.0..101.0).contains(&info.score) && info.last_penalty == Some("invalid_block"), "{}", info.score);
    for known in &mut old {
        known.since += 4200;
        known.banned_until = known.banned_until.map(|until| until + 4200);
    }
    let mut back = PeerBook::new(&[]);
    back.restore(&old, now);
    assert!(back.admits(&bad, now + Duration::from_secs(1195)).is_err());
    assert!(back.admits(&bad, now + Duration::from_secs(1202)).is_ok(), "a clock that went back makes no ban longer");
    for nonsense in [f64::NAN, -1.0, f64::INFINITY] {
        let mut book = PeerBook::new(&[]);
        book.restore(&[Reputation { score: nonsense, ..kept[0].clone() }], now);
        assert_eq!(book.reputations(now), []);
    }
}

#[test]
fn new_ids_displace_no_offender() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let (bad, unwanted, old) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]), PeerId::random());
    book.penalise(bad, Offence::InvalidBlock, now);
    book.ban(unwanted, Duration::from_secs(600), now);
    let mut before = PeerBook::new(&[]);
    before.penalise(old, Offence::BrokenAnswer, now);
    book.restore(&before.reputations(now), now);
    for id in [bad, unwanted] {
        book.disconnected(&id, 0);
    }
    for _ in 0..2 * MAX_PEERS {
        let id = connected(&mut book, &[OURS]);
        book.penalise(id, Offence::Unreliable, now);
        book.disconnected(&id, 0);
    }
    assert_eq!(book.admits(&bad, now), Err(Refusal::Banned));
    assert_eq!(book.admits(&unwanted, now), Err(Refusal::Banned), "the operator's ban needs no offence");
    assert!(book.is_shunned(&old, now), "remembered from an earlier run");
}

#[test]
fn banned_ids_displace_no_ban_of_the_operator() {
    let now = Instant::now();
    let mut book = PeerBook::new(&[]);
    let unwanted = connected(&mut book, &[OURS]);
    book.ban(unwanted, Duration::from_secs(3600), now);
    book.disconnected(&unwanted, 0);
    for _ in 0..2 * MAX_PEERS {
        let id = connected(&mut book, &[OURS]);
        assert!(book.penalise(id, Offence::InvalidBlock, now), "banned for 20 minutes");
        book.disconnected(&id, 0);
    }
    assert_eq!(book.admits(&unwanted, now), Err(Refusal::Banned));
}

#[test]
fn a_peer_at_two_addresses_stays_configured_when_another_answers_at_one() {
    let configured = ["a=/ip4/127.0.0.1/tcp/1", "b=/ip4/127.0.0.1/tcp/2"].map(|peer| peer.parse().unwrap());
    let mut book = PeerBook::new(&configured);
    let (one, other) = (connected(&mut book, &[OURS]), connected(&mut book, &[OURS]));
    book.assign_id(1, one);
    book.assign_id(0, one);
    book.assign_id(0, other);
    assert!(book.is_configured(&one) && book.is_configured(&other));
    let names: Vec<_> = book.infos(Instant::now()).into_iter().map(|info| (info.alias, info.peer_id)).collect();
    assert_eq!(names, [("a", other), ("b", one)].map(|(alias, id)| (Some(alias.into()), Some(id.to_string()))));
}

#[test]
fn the_operator_adds_and_forgets_peers() {
    let now = Instant::now();
    let mut book = PeerBook::new(&["a=/ip4/192.0.2.1/tcp/1".parse().unwrap()]);
    let id = PeerId::random();
    let more = format!("b=/ip4/192.0.2.2/tcp/1/p2p/{id}").parse().unwrap();
    assert_eq!((book.add(&more), book.add(&more)), (Ok(true), Ok(false)));
    let taken = "a=/ip4/192.0.2.3/tcp/1".parse().unwrap();
    assert_eq!(book.add(&taken), Err(P2pError::DuplicateAlias("a".into())));
    assert!(book.is_trusted(&id) && book.find("b") == Ok(id));
    book.ban(id, Duration::from_secs(60), now);
    assert!(book.admits(&id, now).is_ok(), "it is the operator's own");
    assert_eq!(book.remove("b"), Some((Some(id), vec![1])));
    assert!(!book.is_trusted(&id) && book.find("b").is_err());
    assert_eq!(book.admits(&id, now), Err(Refusal::Banned));
    assert_eq!(book.remove(&PeerId::random().to_string()), None);
    assert_eq!(book.remove("a"), Some((None, vec![0])), "it was never reached");
    assert_eq!(book.remove("a"), None);
    let unseen = PeerId::random();
    let mut book = book.with_trust(TrustList { allow: [unseen].into(), ..TrustList::default() });
    assert_eq!(book.remove(&unseen.to_string()), Some((Some(unseen), vec![])));
    assert!(!book.is_trusted(&unseen));
}
