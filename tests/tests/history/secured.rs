//! A broker that is reached by TLS alone, and one that wants to know who comes.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use carillon_persist::history::kafka::{KafkaError, KafkaOptions, Producer, Reader, Tail};
use carillon_tests::history::{Broker, TlsFront};
use carillon_tests::process::free_address;
use carillon_world::{Seq, ShardId};

use super::{EPOCH, records};
use crate::topic::kept;

const RECORDS: u64 = 5_000;
const SHARD: u16 = 2;
/// In vain, so not long.
const WAIT: Duration = Duration::from_secs(3);
const PASSWORD: &str = "correct horse";

struct Secured {
    front: TlsFront,
    broker: Broker,
    listen: SocketAddr,
}

impl Secured {
    async fn start() -> Secured {
        let listen = free_address();
        let front = TlsFront::start(listen).await;
        let broker = Broker::start_behind(listen, front.address());
        Secured { front, broker, listen }
    }

    fn options(&self, properties: &[(&str, &str)]) -> KafkaOptions {
        let mut options = KafkaOptions::new(self.broker.brokers(), self.broker.topic());
        for (name, value) in properties {
            options.properties.insert((*name).to_owned(), (*value).to_owned());
        }
        options
    }
}

/// Sends records, and reads them back.
async fn works(options: &KafkaOptions) {
    let mut producer = Producer::open(options, ShardId::new(SHARD)).await.expect("good options");
    let sent = records(SHARD, 1..=RECORDS);
    producer.send(&sent).await.expect("a broker that trusts us");
    let tail = Tail { epoch: EPOCH, n: RECORDS, seq: Some(Seq::new(RECORDS)) };
    assert_eq!(producer.tail().await.expect("a broker that trusts us"), Some(tail));
    assert_eq!(Reader::partitions(options).await.expect("a topic"), 1);
    assert_eq!(kept(options, 0, RECORDS).await, sent);
}

/// What is said where nothing can be sent.
async fn refused(options: &KafkaOptions) -> String {
    let options = KafkaOptions { wait_max: WAIT, ..options.clone() };
    let opened = Producer::open(&options, ShardId::new(SHARD)).await;
    let error = match opened {
        Ok(mut producer) => producer.send(&records(SHARD, 1..=10)).await.expect_err("no trust"),
        Err(error) => error,
    };
    told(&error)
}

fn told(error: &KafkaError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_by_tls_to_a_broker_that_is_trusted_and_to_no_other() {
    let secured = Secured::start().await;
    let ca = secured.front.ca().display().to_string();
    works(&secured.options(&[("security.protocol", "ssl"), ("ssl.ca.location", &ca)])).await;
    let said = refused(&secured.options(&[("security.protocol", "ssl")])).await;
    assert!(said.contains("certificate"), "{said}");
    let other = TlsFront::start(secured.listen).await;
    let ca = other.ca().display().to_string();
    let options = [("security.protocol", "ssl"), ("ssl.ca.location", &*ca)];
    let said = refused(&secured.options(&options)).await;
    assert!(said.contains("certificate"), "{said}");
    let plain = refused(&secured.options(&[])).await;
    assert!(!plain.is_empty());
}

/// The broker keeps its users in memory and takes none from who is not known, so nobody can be known to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_wants_a_password_says_why_it_refuses_one() {
    let listen = free_address();
    let front = TlsFront::start(listen).await;
    let broker = Broker::start_closed(listen, front.address());
    let secured = Secured { front, broker, listen };
    let ca = secured.front.ca().display().to_string();
    let tls = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", &*ca)];
    let shown = [("sasl.username", "carillon"), ("sasl.password", PASSWORD)];
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let mut properties = [&tls[..], &shown[..]].concat();
        properties.push(("sasl.mechanism", mechanism));
        let said = refused(&secured.options(&properties)).await;
        assert!(said.contains("SASL") && said.contains("authentication"), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
}
