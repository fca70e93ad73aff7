//! The whole chain over HTTP in one answer, against nginx with the same bytes in a file; and the memory that it takes.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    chain::Stores,
    machine::field,
    measure::{Outcome, Table, Target, median, thousands},
    nginx::Nginx,
    program::serve,
};

const PATH: &str = "/data/miner_block/canonical";

/// MB a second of either, and peak memory of `serve`, on chains of `length` blocks.
pub async fn run(stores: &Stores, length: usize, rounds: usize) -> Outcome<String> {
    let columns = ["store", "MB", "nginx, MB/s", "gateway, MB/s", "gateway : nginx", "peak memory of `serve`, MiB"];
    let mut table = Table::new(1, &columns);
    let (mut rate_target, mut memory_target) = (Target::at_least(0.5), Target::at_most(64.0));
    for (kind, name) in stores.kinds.iter().copied() {
        let folder = tempfile::tempdir()?;
        let (process, base) = serve(&stores.url(kind, length)?, folder.path()).await?;
        let gateway = base.strip_prefix("http://").ok_or("an address of HTTP")?;
        let body = reqwest::Client::builder().no_proxy().build()?.get(format!("{base}{PATH}")).send().await?;
        let nginx = Nginx::start(PATH, &body.error_for_status()?.bytes().await?).await?;
        let (mut size, mut rates, mut ratios) = (0, [Vec::new(), Vec::new()], Vec::new());
        for _ in 0..rounds {
            let (bytes, of_nginx) = read(&nginx.address.to_string()).await?;
            let (streamed, of_ours) = read(gateway).await?;
            // A stream has a length before each piece.
            if streamed < bytes || streamed > bytes + bytes / 100 {
                return Err(format!("{streamed} bytes instead of {bytes}").into());
            }
            size = bytes;
            let [nginx, ours] = [of_nginx, of_ours].map(|seconds| bytes as f64 / 1e6 / seconds);
            rates.iter_mut().zip([nginx, ours]).for_each(|(rates, rate)| rates.push(rate));
            ratios.push(ours / nginx);
        }
        let status = format!("/proc/{}/status", process.id().ok_or("`serve` has ended")?);
        let peak = field(&status, "VmHWM")?.trim_end_matches(" kB").parse::<f64>()? / 1024.0;
        memory_target.check(peak);
        let [nginx_rate, ours_rate] = rates.map(|rates| thousands(median(rates)));
        let ratio = rate_target.check(median(ratios));
        table.row(vec![name.into(), thousands(size as f64 / 1e6), nginx_rate, ours_rate, ratio, format!("{peak:.0}")]);
    }
    Ok(format!(
        "#### `canonical` of {} blocks over one connection\n\n{table}\n\
         The client drops what it gets. {rate_target} Memory: {memory_target}\n",
        thousands(length as f64)
    ))
}

/// Bytes of the server's answer, and the seconds that it took.
async fn read(address: &str) -> Outcome<(u64, f64)> {
    let mut stream = TcpStream::connect(address).await?;
    let start = Instant::now();
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok((bytes, start.elapsed().as_secs_f64())),
            read => bytes += read as u64,
        }
    }
}
