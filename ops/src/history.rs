//! Where the history goes, from settings to the terms of the store's crate; and `carillon history`, which asks it.

mod options;
pub(crate) mod query;

use carillon_persist::history::kafka::KafkaOptions;
use carillon_persist::history::lake::{LakeOptions, S3Options};

use crate::config::{HistorySettings, Password};

pub(crate) use self::options::Options;

/// The topic; `None` if no broker is named.
pub(crate) fn kafka(history: &HistorySettings) -> Option<KafkaOptions> {
    let brokers = history.kafka_brokers.as_ref()?;
    let properties = history.kafka_properties.as_ref();
    // The check of the configuration refuses more than fit.
    let fitting = |number: u32| number.try_into().unwrap_or(u16::MAX);
    Some(KafkaOptions {
        properties: properties.map(|properties| properties.0.clone()).unwrap_or_default(),
        partitions: fitting(history.kafka_partitions.get()),
        replication: history.kafka_replication.map(|copies| fitting(copies.get())),
        wait_max: history.kafka_timeout,
        ..KafkaOptions::new(&brokers.0, &history.kafka_topic.0)
    })
}

/// The lake; `None` if there is to be none.
pub(crate) fn lake(history: &HistorySettings) -> Option<LakeOptions> {
    Some(LakeOptions {
        s3: S3Options {
            endpoint: history.s3_endpoint.clone(),
            region: history.s3_region.clone(),
            key_id: history.s3_key_id.clone(),
            secret: history.s3_secret.as_ref().map(Password::reveal).map(str::to_owned),
            path_style: history.s3_path_style,
            allow_http: history.s3_allow_http,
        },
        file_rows_max: history.lake_file_rows_max.get(),
        // The check of the configuration refuses more than 22.
        zstd_level: history.lake_compression.get().try_into().unwrap_or(LakeOptions::ZSTD_LEVEL),
        ..LakeOptions::new(history.lake.clone()?)
    })
}
