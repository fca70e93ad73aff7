//! A gateway under attack and beyond its capacity. Times are measured: these tests need the machine for themselves, and
//! run one after the other. The gateway is the real program, in a process of its own.

mod support;

#[path = "overload/load.rs"]
mod load;

use std::time::{Duration, Instant};

use load::{Connection, Samples, Tally, address, median, serve};
use modal_gateway::chain::Level;
use support::{
    clock::judge,
    gateway::{Backend, TestStore, synthetic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

/// Held by the test that measures.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Times that each thing is measured, in turns with what it is compared with.
const ROUNDS: usize = 5;

/// Sockets that mean ill.
const SOCKETS: usize = 2_000;
/// How long the gateway may put up with them.
const PUT_UP: Duration = Duration::from_secs(10);
/// How many of them come per second.
const ARRIVALS: u32 = 1_000;
/// How long healthy requests are measured, with and without them.
const WINDOW: Duration = Duration::from_secs(8);

/// Opens a socket that never sends a whole request; returns how long it lasted.
async fn hold(address: &str, number: usize) -> Duration {
    let head = "POST /ping HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    let (first, drip) = match number % 4 {
        0 => (String::new(), None),
        1 => ("G".to_owned(), Some(b"E")),
        2 => (format!("{}x-slow: ", &head[..head.len() - 2]), Some(b"a")),
        _ => (head.to_owned() + &" ".repeat(500), Some(b" ")),
    };
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let (mut sink, mut ticks) = ([0; 1024], interval(Duration::from_secs(1)));
    let ended = async {
        loop {
            tokio::select! {
                read = from.read(&mut sink) => if !matches!(read, Ok(1..)) { break },
                _ = ticks.tick(), if drip.is_some() => if to.write_all(drip.unwrap()).await.is_err() { break },
            }
        }
    };
    let _ = timeout(3 * PUT_UP, ended).await;
    start.elapsed()
}

/// What a few healthy clients see: most keep their connections, some open new ones.
async fn healthy(address: &str) -> Samples {
    let mut clients = JoinSet::new();
    let end = Instant::now() + WINDOW;
    for number in 0..8 {
        let address = address.to_owned();
        clients.spawn(async move {
            let mut connection = Connection::open(&address).await;
            let mut ticks = interval(Duration::from_millis(20));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut samples = Samples::default();
            while Instant::now() < end {
                ticks.tick().await;
                let start = Instant::now();
                if number == 0 {
                    connection = Connection::open(&address).await;
                }
                assert_eq!(connection.get("/data/miner_block/epoch?epoch=1").await, 200);
                samples.add(start.elapsed());
            }
            samples
        });
    }
    clients.join_all().await.into_iter().fold(Samples::default(), Samples::with)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_slow_sockets_are_closed_and_do_not_slow_other_clients() {
    let _alone = ALONE.lock().await;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(1_000), Level::None).await;
    let program = serve(&store, &[]);
    let (mut quiet, mut attacked, mut longest, mut shortest) = (Vec::new(), Vec::new(), Duration::ZERO, Duration::MAX);
    healthy(address(&program)).await;
    for round in 0..ROUNDS {
        let before = healthy(address(&program)).await;
        let attack = {
            let address = address(&program).to_owned();
            tokio::spawn(async move {
                let (mut sockets, mut ticks) = (JoinSet::new(), interval(Duration::from_secs(1) / ARRIVALS));
                for number in 0..SOCKETS {
                    ticks.tick().await;
                    let address = address.clone();
                    sockets.spawn(async move { hold(&address, number).await });
                }
                sockets.join_all().await
            })
        };
        let during = healthy(address(&program)).await;
        let lasted = attack.await.unwrap();
        assert_eq!(lasted.len(), SOCKETS);
        longest = longest.max(*lasted.iter().max().unwrap());
        shortest = shortest.min(*lasted.iter().min().unwrap());
        eprintln!("round {round}: quiet {before}; attacked {during}");
        quiet.push(before.percentile(0.99));
        attacked.push(during.percentile(0.99));
    }
    let (quiet, attacked) = (median(&mut quiet), median(&mut attacked));
    let ratio = attacked.as_secs_f64() / quiet.as_secs_f64();
    eprintln!(
        "{SOCKETS} slow sockets: closed after {shortest:.1?} to {longest:.1?}; healthy p99 {quiet:.2?} quiet, {attacked:.2?} \
         attacked, {ratio:.2} times"
    );
    assert!(shortest > Duration::from_secs(4), "they were let in, and waited for");
    judge(longest < PUT_UP, format_args!("{longest:?}"));
    judge(ratio <= 1.5, ratio);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_out_of_files_goes_on_and_does_not_spin() {
    let _alone = ALONE.lock().await;
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(10), Level::None).await;
    let program = serve(&store, &[]);
    assert_eq!(Connection::open(address(&program)).await.get("/health/ready").await, 200);
    let process = format!("/proc/{}", program.id());
    let open = std::fs::read_dir(format!("{process}/fd")).unwrap().count() as u64;
    let limit = Some((open + 8, open + 8));
    rlimit::prlimit(program.id() as i32, rlimit::Resource::NOFILE, limit, None).unwrap();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(address(&program)).await.unwrap());
    }
    // In ticks of 10 ms, user and system.
    let worked = || {
        let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (start, before) = (Instant::now(), worked());
    let mut good = Connection::open(address(&program)).await;
    assert_eq!(good.get("/health/live").await, 200, "room is made for one that asks");
    let (took, share) = (start.elapsed(), (worked() - before) as f64 / 100.0 / start.elapsed().as_secs_f64());
    eprintln!("out of files: answered after {took:.1?}, {share:.2} of a core");
    assert!(took > Duration::from_millis(500), "there were files enough: {took:?}");
    judge(share < 0.5, share);
    drop(idle);
    assert_eq!(Connection::open(address(&program)).await.get("/health/ready").await, 200);
}

/// Requests that the gateway works at, at once.
const CAPACITY: usize = 4;
/// How long each rate is measured.
const MEASURE: Duration = Duration::from_secs(3);
/// How soon a request is refused for which there is no room.
const SHED_WITHIN: Duration = Duration::from_millis(20);
/// How soon after an overload all is as before.
const RECOVERY: Duration = Duration::from_secs(2);
/// Blocks in the chain.
const LENGTH: u64 = 20_000;
/// A unit of work: one that costs the gateway much more than its client.
const UNIT: &str = "/data/miner_block/canonical";

/// What as many clients get as there is room for, each of whom waits for its answer.
async fn at_capacity(address: &str, time: Duration) -> Tally {
    let end = Instant::now() + time;
    let mut clients = JoinSet::new();
    for _ in 0..CAPACITY {
        let address = address.to_owned();
        clients.spawn(async move {
            let (mut connection, mut tally) = (Connection::open(&address).await, Tally::default());
            while Instant::now() < end {
                let start = Instant::now();
                tally.add(connection.get(UNIT).await, start.elapsed());
            }
            tally
        });
    }
    clients.join_all().await.into_iter().fold(Tally::default(), Tally::with)
}

/// What comes of so many requests per second, whether or not those before are answered.
async fn offered(address: &str, per_second: f64, time: Duration) -> Tally {
    let mut free: Vec<Connection> = Vec::new();
    let (done, mut back) = tokio::sync::mpsc::unbounded_channel();
    let (start, mut sent, mut open) = (Instant::now(), 0u64, 0usize);
    let mut tally = Tally::default();
    let mut ticks = interval(Duration::from_millis(1));
    while start.elapsed() < time {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * per_second) as u64;
        while sent < due {
            while let Ok((connection, status, took)) = back.try_recv() {
                tally.add(status, took);
                free.push(connection);
            }
            let connection = match free.pop() {
                Some(connection) => connection,
                None => {
                    open += 1;
                    Connection::open(address).await
                }
            };
            sent += 1;
            let (done, mut connection) = (done.clone(), connection);
            tokio::spawn(async move {
                let start = Instant::now();
                let status = connection.get(UNIT).await;
                let _ = done.send((connection, status, start.elapsed()));
            });
        }
    }
    drop(done);
    let ended = start.elapsed();
    while let Some((_, status, took)) = back.recv().await {
        tally.add(status, took);
    }
    assert_eq!(tally.count(), sent, "every request is answered");
    eprintln!("offered {:.0}/s over {open} connections", sent as f64 / ended.as_secs_f64());
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_its_capacity_costs_a_gateway_little() {
    let _alone = ALONE.lock().await;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let store = TestStore::create(Backend::Sqlite).await;
    store.append(synthetic(LENGTH), Level::None).await;
    let requests = CAPACITY.to_string();
    let settings = [("MAX_REQUESTS", requests.as_str()), ("CACHE_MIB", "0"), ("STORE_CONNECTIONS", "2")];
    let program = serve(&store, &settings);
    let (mut ratios, mut sheds, mut recoveries) = (Vec::new(), Vec::new(), Vec::new());
    at_capacity(address(&program), MEASURE).await;
    for round in 0..ROUNDS {
        let peak = at_capacity(address(&program), MEASURE).await.good.rate(MEASURE);
        let overloaded = offered(address(&program), 10.0 * peak, MEASURE).await;
        let ended = Instant::now();
        let mut slice;
        let recovered = loop {
            slice = at_capacity(address(&program), Duration::from_millis(400)).await;
            let as_before = slice.good.rate(Duration::from_millis(400)) > 0.8 * peak;
            // Who is slow for long may share the machine.
            if slice.shed.is_empty() && (as_before || ended.elapsed() > 10 * RECOVERY) {
                break ended.elapsed();
            }
            assert!(ended.elapsed() < 20 * RECOVERY, "it goes on to refuse requests");
        };
        let ratio = overloaded.good.rate(MEASURE) / peak;
        eprintln!(
            "round {round}: peak {peak:.0}/s, goodput {ratio:.2}, shed {}; recovered in {recovered:.1?}",
            overloaded.shed
        );
        ratios.push(ratio);
        sheds.push(overloaded.shed.percentile(0.99));
        recoveries.push(recovered);
    }
    let (ratio, shed, recovered) = (median(&mut ratios), median(&mut sheds), median(&mut recoveries));
    eprintln!(
        "10 times capacity: goodput {ratio:.2} of peak, p99 of shed answers {shed:.1?}, recovered in {recovered:.1?}"
    );
    judge(ratio >= 0.8, ratio);
    judge(shed <= SHED_WITHIN, format_args!("{shed:?}"));
    judge(recovered <= RECOVERY, format_args!("{recovered:?}"));
}
