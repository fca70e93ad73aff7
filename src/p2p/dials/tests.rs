use super::*;

fn dials(private_addresses: bool) -> Dials {
    Dials::new(private_addresses, &[9090], Instant::now())
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn id(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

#[test]
fn the_network_sends_us_only_where_the_settings_allow() {
    let public = ["/ip4/1.1.1.1/tcp/1", "/ip4/100.63.0.1/tcp/1/ws", "/ip6/2606:4700::1/tcp/1"];
    let private = ["/ip4/10.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1/ws", "/ip4/100.64.0.1/tcp/1", "/ip6/fd00::1/tcp/1"];
    let here = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1"];
    let nowhere = [
        "/ip4/169.254.169.254/tcp/80",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.251/tcp/1",
        "/ip6/fe80::1/tcp/1",
        "/ip6/64:ff9b::7f00:1/tcp/1",
        "/dns4/example.org/tcp/1",
        "/dns/localhost/tcp/1",
        "/dnsaddr/example.org",
        "/ip4/1.1.1.1/udp/1/quic-v1",
        "/ip4/1.1.1.1/tcp/0",
        "/ip4/127.0.0.1/tcp/9090",
    ];
    let (strict, loose) = (dials(false), dials(true));
    let all = |dials: &Dials, list: &[&str], local| list.iter().filter(|a| dials.allows(&address(a), local)).count();
    for local in [false, true] {
        assert_eq!((all(&strict, &public, local), all(&loose, &public, local)), (3, 3));
        assert_eq!((all(&strict, &private, local), all(&loose, &private, local)), (0, 4));
        assert_eq!((all(&strict, &here, local), all(&loose, &here, local)), (0, if local { 3 } else { 0 }));
        assert_eq!((all(&strict, &nowhere, local), all(&loose, &nowhere, local)), (0, 0));
    }
}

#[test]
fn loopback_is_dialled_only_while_everybody_is_here() {
    let (mut dials, now, here) = (dials(true), Instant::now(), address("/ip4/127.0.0.1/tcp/1"));
    assert!(dials.allows_now(&here, now));
    dials.established(id(1), &here, false);
    assert!(dials.allows_now(&here, now));
    dials.established(id(2), &address("/ip4/10.0.0.1/tcp/1"), false);
    assert!(!dials.allows_now(&here, now));
    dials.ended(&id(2), now);
    assert!(!dials.allows_now(&here, now + ECHO / 2), "what it said may still be acted on");
    assert!(dials.allows_now(&here, now + ECHO));
}

#[test]
fn one_target_and_all_together_are_dialled_so_often_and_no_more() {
    let (mut dials, now) = (dials(false), Instant::now());
    let ports = |ip: &str| (1..50).map(|port| address(&format!("/ip4/{ip}/tcp/{port}"))).collect::<Vec<_>>();
    assert_eq!(dials.take(ports("1.1.1.1"), now).len(), MAX_ADDRESSES);
    assert_eq!(dials.take(ports("1.1.1.1"), now), [], "whatever the port");
    let taken: usize = (0..100).map(|n| dials.take(ports(&format!("1.1.2.{n}")), now).len()).sum();
    assert_eq!(taken + MAX_ADDRESSES, BURST as usize);
    assert!(!dials.take(ports("1.1.1.1"), now + WINDOW).is_empty());
    assert_eq!(dials.targets.len(), 1, "the others are forgotten");
}

#[test]
fn dials_of_the_network_leave_room_for_the_operators() {
    let (mut dials, now) = (dials(false), Instant::now());
    for n in 0..MAX_PENDING {
        dials.begin(id(n)).unwrap();
    }
    assert_eq!(dials.begin(id(100)), Err(Refused::Full));
    dials.ended(&id(0), now);
    dials.begin(id(100)).unwrap();
    for n in 0..=100 {
        dials.ended(&id(n), now);
    }
    for n in 200..200 + MAX_OPEN {
        dials.begin(id(n)).unwrap();
        assert!(n < 199 + MAX_OPEN || dials.begin(id(101)) == Err(Refused::Full), "those under way count as well");
        dials.established(id(n), &address("/ip4/1.1.1.1/tcp/1"), true);
    }
    assert_eq!(dials.begin(id(101)), Err(Refused::Full));
    dials.permit(id(102));
    assert!(dials.is_operators(&id(102)));
    dials.established(id(102), &address("/ip4/1.1.1.1/tcp/1"), true);
    assert_eq!((dials.open.len(), dials.is_operators(&id(102))), (MAX_OPEN, false));
}
