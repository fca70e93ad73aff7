//! The other protocols of a node: identify, Kademlia, gossip, ping; and the negotiation on streams.

use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Multiaddr;
use rstest::rstest;

use crate::{
    before_noise::AT_ONCE,
    dialer::{MULTISTREAM, end, line, prefixed, shove, strike, varint},
    program::{Program, Transport},
    session::{GOSSIP, Session, field, identity, number},
    support::gateway::PATIENCE,
};

const PUSH: &str = "/ipfs/id/push/1.0.0";
const KADEMLIA: &str = "/ipfs/kad/1.0.0";

/// Addresses of this machine, all different.
fn addresses(numbers: std::ops::Range<u32>) -> Vec<Multiaddr> {
    numbers.map(|n| format!("/ip4/127.1.{}.{}/tcp/1", n >> 8 & 0xff, n & 0xff).parse().unwrap()).collect()
}

/// How many of [`addresses`] there are in a message.
fn count(message: &[u8]) -> usize {
    message.windows(3).filter(|bytes| *bytes == [4, 127, 1]).count()
}

/// What is strange about a message, whatever it is of.
fn strange(message: &[u8]) -> Vec<Vec<u8>> {
    let mut strange = vec![
        vec![],
        vec![0],
        vec![0xff; 100],
        varint(u64::MAX),
        varint(100 << 20),
        prefixed(&[0xff; 1000]),
        prefixed(&[0; 1000]),
        prefixed(&field(1, b"")),
        prefixed(&[&varint(1 << 3 | 2)[..], &varint(u64::MAX)].concat()),
        prefixed(&[varint(2 << 3 | 2), varint(1 << 31)].concat()),
        // Groups within groups, which nobody writes any more.
        prefixed(&varint(1 << 3 | 3).repeat(10_000)),
        [prefixed(message), vec![0xff; 5000]].concat(),
        prefixed(message).repeat(500),
    ];
    strange.extend((0..message.len()).step_by(message.len() / 20 + 1).map(|cut| prefixed(&message[..cut])));
    let mut random = fastrand::Rng::with_seed(7);
    strange.extend((0..30).map(|_| {
        let mut changed = message.to_vec();
        for _ in 0..4 {
            let at = random.usize(..changed.len());
            changed[at] = random.u8(..);
        }
        prefixed(&changed)
    }));
    strange
}

/// Waits until a protocol is spoken: some begin only once the connection is known everywhere.
async fn spoken(session: &Session, protocol: &str) {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        while session.stream(protocol).await.is_err() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{protocol} is not spoken"));
}

/// Each of the messages on a stream of its own: ended, and left as it is. Any may end the connection.
async fn tell(session: &Session, protocol: &str, messages: &[Vec<u8>]) {
    spoken(session, protocol).await;
    let told = messages.iter().map(async |message| {
        if let Ok(mut stream) = session.stream(protocol).await {
            shove(&mut stream, message).await;
        }
        if let Ok(mut stream) = session.stream(protocol).await {
            shove(&mut stream, message).await;
            end(&mut stream).await;
            strike(&mut stream, b"").await;
        }
    });
    futures::stream::iter(told).buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[rstest]
#[tokio::test]
async fn floods_of_addresses(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let (session, asker) =
        (Session::start(program.address(transport)).await, Session::start(program.address(transport)).await);
    spoken(&asker, KADEMLIA).await;
    spoken(&session, PUSH).await;
    let known = async || {
        // FIND_NODE, as others who look for this peer ask.
        let request = [number(1, 4), field(2, &session.peer_id().to_bytes())].concat();
        let mut stream = asker.stream(KADEMLIA).await.unwrap();
        stream.write_all(&prefixed(&request)).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = vec![0; 64 << 10];
        let length = stream.read(&mut answer).await.unwrap();
        count(&answer[..length])
    };
    let attack = async {
        let mut most = 0;
        for round in 0..10 {
            let push = prefixed(&identity(&session.keypair, &addresses(8 * round..8 * round + 8)));
            let _ = session.ask(PUSH, &push).await;
            most = most.max(known().await);
        }
        assert!((1..=8).contains(&most), "{most} addresses of one peer are remembered");
        for round in 0..50 {
            let push = prefixed(&identity(&session.keypair, &addresses(200 * round..200 * round + 200)));
            let _ = session.ask(PUSH, &push).await;
        }
        let all = prefixed(&identity(&session.keypair, &addresses(0..10_000)));
        for _ in 0..10 {
            let _ = session.ask(PUSH, &all).await;
        }
        let strange = strange(&identity(&session.keypair, &addresses(0..8)));
        tell(&session, PUSH, &strange).await;
        assert!((1..=8).contains(&known().await));
    };
    program.survives(&format!("identify, {transport:?}"), attack).await;
}

#[rstest]
#[tokio::test]
async fn kademlia_and_gossip(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let address = program.address(transport).clone();
    let key = vec![7; 1000];
    let peer =
        [field(1, &Session::start(&address).await.peer_id().to_bytes()), field(2, b"garbage"), number(3, 99)].concat();
    let record = [field(1, &key), field(2, &vec![8; 12_000])].concat();
    let kademlia = [
        // Something to keep: a record, and a provider of each of many keys.
        [number(1, 0), field(2, &key), field(3, &record)].concat(),
        [number(1, 2), field(2, &key), field(9, &peer).repeat(20)].concat(),
        [number(1, 4), field(2, &key), field(8, &peer).repeat(200)].concat(),
        [number(1, u64::MAX), field(2, &key)].concat(),
        [number(1, 99), number(10, u64::MAX)].concat(),
    ];
    let topic = b"/miner/block";
    let subscription = field(1, &[number(1, 1), field(2, topic)].concat());
    let message = |data: &[u8]| {
        field(
            2,
            &[field(1, b"nobody"), field(2, data), field(3, &[1; 8]), field(4, topic), field(5, &[2; 64])].concat(),
        )
    };
    let other = |n: u32| field(1, &[number(1, 1), field(2, format!("/topic/{n}").as_bytes())].concat());
    let ids: Vec<u8> = (0..3000_u32).flat_map(|n| field(2, &n.to_be_bytes().repeat(4))).collect();
    let px: Vec<u8> = (0..200).flat_map(|_| field(2, &[field(1, b"peer"), field(2, &[9; 100])].concat())).collect();
    let gossip = [
        subscription.repeat(2000),
        (0..3000).flat_map(other).collect(),
        message(b"{}"),
        message("[".repeat(10_000).as_bytes()),
        message(&vec![b'x'; 63 << 10]),
        message(&vec![b'x'; 100 << 10]),
        message(b"x").repeat(500),
        field(3, &field(1, &[field(1, topic), ids.clone()].concat())),
        field(3, &field(2, &ids)),
        field(3, &field(3, &field(1, topic)).repeat(2000)),
        field(3, &field(4, &[field(1, topic), px, number(3, u64::MAX)].concat())),
        field(3, &field(4, &field(1, topic)).repeat(2000)),
    ];
    let heard = prefixed(&subscription);
    let attack = async {
        for message in &kademlia {
            let session = Session::start(&address).await;
            tell(&session, KADEMLIA, &[prefixed(message), prefixed(message).repeat(100)]).await;
            tell(&session, KADEMLIA, &strange(&message[..message.len().min(300)])).await;
        }
        // After five streams of one peer, gossip hears no more of it.
        let told = gossip.iter().flat_map(|message| [prefixed(message), [&heard[..], &prefixed(message)].concat()]);
        for messages in told.chain(strange(&gossip[2])).collect::<Vec<_>>().chunks(2) {
            tell(&Session::start(&address).await, GOSSIP, messages).await;
        }
        let session = Session::start(&address).await;
        tell(&session, "/ipfs/ping/1.0.0", &[vec![7; 31], vec![7; 33], vec![7; 1 << 20]]).await;
    };
    program.survives(&format!("kademlia and gossip, {transport:?}"), attack).await;
}

#[rstest]
#[tokio::test]
async fn garbage_on_streams(#[values(Transport::Tcp, Transport::WebSocket)] transport: Transport) {
    let mut program = Program::start().await;
    let session = Session::start(program.address(transport)).await;
    let header = |rest: &[u8]| [MULTISTREAM, rest].concat();
    let blows = [
        vec![],
        vec![0xff; 1 << 20],
        header(&line("ls").repeat(50_000)),
        header(&line("/not/spoken").repeat(50_000)),
        header(&line(&format!("/{}", "x".repeat(16_000))).repeat(50)),
        header(&varint(u64::MAX)),
        header(&prefixed(b"\xff\n")),
        header(&prefixed(b"")),
        MULTISTREAM[..10].to_vec(),
        MULTISTREAM.repeat(10_000),
    ];
    let attack = async {
        for _ in 0..3 {
            let struck = blows.iter().map(async |bytes| {
                strike(&mut session.raw().await.unwrap(), bytes).await;
                shove(&mut session.raw().await.unwrap(), bytes).await;
            });
            futures::stream::iter(struck).buffer_unordered(AT_ONCE).collect::<()>().await;
        }
    };
    program.survives(&format!("streams' negotiation, {transport:?}"), attack).await;
}
