//! How many records a second one writer of the lake takes, and how many bytes a row takes there.
//!
//! `cargo run --release -p carillon-persist --example lake [ROWS] [ROWS A COMMIT] [PLACE]`
//!
//! Without a place, in a temporary folder. S3 (`s3://bucket/prefix`) is reached as the environment says: `AWS_ENDPOINT_URL`,
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`.

#![expect(clippy::print_stdout, reason = "it is here to tell")]

use std::error::Error;
use std::time::{Duration, Instant};

use carillon_persist::history::lake::{Lake, LakeOptions, LakeUrl, Query, S3Options};
use carillon_persist::history::{EventName, Pseudonym, Record, RecordId};
use carillon_world::{AppId, Epoch, MessageId, Millis, Seq, ShardId};
use serde_json::value::RawValue;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut number = |otherwise: u64| args.next().map_or(Ok(otherwise), |arg| arg.parse());
    let (rows, a_commit) = (number(3_000_000)?, number(500_000)?);
    let temporary = tempfile::tempdir()?;
    let url = match args.next() {
        Some(place) => place.parse()?,
        None => LakeUrl::Local(temporary.path().to_owned()),
    };
    let s3 = S3Options { path_style: true, allow_http: true, ..S3Options::default() };
    let lake = Lake::open(&LakeOptions { s3, ..LakeOptions::new(url) })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&lake, rows, a_commit))
}

async fn measure(lake: &Lake, rows: u64, a_commit: u64) -> Result<(), Box<dyn Error>> {
    let mut writer = lake.resume("shard-0").await?;
    let begin = writer.end().unwrap_or(0);
    let (mut wall, mut processor) = (Duration::ZERO, Duration::ZERO);
    let (mut files, mut bytes, mut buffered) = (0, 0, 0);
    for from in (0..rows).step_by(a_commit as usize) {
        let range = from..rows.min(from + a_commit);
        let records: Vec<Record> = range.clone().map(|n| record(begin + n)).collect();
        let (clock, used) = (Instant::now(), processor_time()?);
        for record in &records {
            assert!(writer.push(record), "each is new");
        }
        buffered = buffered.max(writer.bytes());
        let done = writer.commit(begin + range.end).await?;
        wall += clock.elapsed();
        processor += processor_time()? - used;
        files += done.files;
        bytes += done.bytes;
    }
    let a_second = |of: Duration| rows as f64 / of.as_secs_f64();
    println!("rows {rows}, commits of {a_commit}, files {files}");
    println!("rows a second {:.0}", a_second(wall));
    println!("rows a second of processor time {:.0}", a_second(processor));
    println!("bytes a row in the lake {:.1}", bytes as f64 / rows as f64);
    println!("bytes a row in memory {:.1}", buffered as f64 / a_commit.min(rows) as f64);
    let clock = Instant::now();
    let device = Some(device(begin + rows / 2));
    let mut found = 0;
    let query = Query { device, ..Query::first(1000) };
    let sink = |_| {
        found += 1;
        std::ops::ControlFlow::Continue(())
    };
    lake.read(&query, sink).await?;
    println!("records of one device {found}, found in {:?}", clock.elapsed());
    Ok(())
}

/// What both kinds of events of a campaign look like: each device is told of a few messages and answers some.
fn record(n: u64) -> Record {
    let (event, data) = match n % 4 {
        0 => ("device.changed", r#"{"attributes":{"app_version":"4.2.1"},"groups":["vip","de"]}"#),
        1 => ("receipt", r#"{"kind":"displayed"}"#),
        2 => ("push.sent", r#"{"channel":"fcm","attempt":1}"#),
        _ => ("push.sent", r#"{"channel":"apns","attempt":1}"#),
    };
    let data = match n % 8 {
        0 => format!(r#"{{"attributes":{{"seen_at":{}}},"groups":["vip"]}}"#, hash(n)),
        _ => data.to_owned(),
    };
    Record {
        id: RecordId { shard: ShardId::FIRST, epoch: Epoch { number: 7, tag: 7 }, seq: n + 1 },
        change: Some(Seq::new(n / 2 + 1)),
        at: Millis(1_763_721_575_123 + n / 20),
        event: EventName::of(event),
        app: Some(AppId::new(hash(n % 3))),
        device: Some(device(n)),
        message: (!n.is_multiple_of(4)).then(|| MessageId::new(hash(n / 500_000))),
        data: RawValue::from_string(data).expect("JSON"),
    }
}

fn device(n: u64) -> Pseudonym {
    let of = n * 7 % 1_000_003;
    let mut bytes = [0; Pseudonym::BYTES];
    bytes[..8].copy_from_slice(&hash(of).to_be_bytes());
    bytes[8..].copy_from_slice(&hash(!of).to_be_bytes());
    Pseudonym::new(bytes)
}

/// SplitMix64: looks random, and is the same each time.
fn hash(of: u64) -> u64 {
    let of = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let of = (of ^ (of >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let of = (of ^ (of >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    of ^ (of >> 31)
}

/// Of all threads, in hundredths of a second.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
