use std::collections::HashSet;

use expect_test::expect;

use super::*;

const SEED: u64 = 1;

fn lines(seed: u64, indices: std::ops::Range<u64>, can_log_in: bool) -> Vec<u8> {
    let fleet = Fleet::new(seed);
    let mut text = Vec::new();
    indices.for_each(|index| fleet.device(index).write_line(can_log_in, &mut text));
    text
}

fn digest(text: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
    hexadecimal::encode(digest.as_ref().try_into().expect("32 bytes"))
}

/// Measurements of different days are of the same fleet: whoever changes it has to change this and say so.
#[test]
fn a_seed_gives_the_same_bytes_for_ever() {
    expect![[r#"
        {"id":"7ab40e090f363a7d","secret_sha256":"c2bcf23d0e9b75d81e7914627ae0bfe1a64a7c2cd97a66df41263636cce56f40","attributes":{"platform":"android","locale":"en-CA","country":"CA","app_version":"3.1.0","premium":false},"groups":["g0","g1","g10","g27","g145","g333","g1331","g4995"]}
        {"id":"d9bf17d113f38956","secret_sha256":"cc0ee42a14be3c20d155402bc4dda9c562b533a8a2ce00952434689ece50114e","attributes":{"platform":"ios","locale":"en-US","app_version":"3.0.0","premium":false,"age":52},"groups":["g0","g1","g2","g5","g28","g163","g373","g384"]}
    "#]].assert_eq(str::from_utf8(&lines(SEED, 0..2, true)).expect("UTF-8"));
    expect!["45b15d8e239e3a45db22db04a4d3b8d915ee326d8b8261144cbe4048d504a991"]
        .assert_eq(&digest(&lines(SEED, 0..20_000, false)));
}

#[test]
fn a_device_does_not_depend_on_those_before_it() {
    let all = lines(SEED, 0..50, false);
    assert!(all.ends_with(&lines(SEED, 40..50, false)));
    assert_ne!(digest(&all), digest(&lines(SEED + 1, 0..50, false)));
}

#[test]
fn ids_are_unique_and_groups_distinct() {
    let fleet = Fleet::new(SEED);
    let mut ids = HashSet::new();
    for device in (0..50_000).map(|index| fleet.device(index)) {
        assert!(ids.insert(device.id));
        assert!(device.groups.is_sorted_by(|a, b| a < b), "{:?}", device.groups);
        assert!(device.groups[GROUPS_PER_DEVICE - 1] < GROUPS);
    }
}

#[test]
fn lines_are_json_of_the_declared_types() {
    for line in lines(SEED, 0..500, true).split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
        let line: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        assert_eq!(line["secret_sha256"].as_str().map(str::len), Some(64));
        assert_eq!(line["groups"].as_array().map(Vec::len), Some(GROUPS_PER_DEVICE));
        for (name, value) in line["attributes"].as_object().expect("an object") {
            let (_, kind) = ATTRIBUTES.iter().find(|(known, _)| known == name).expect("declared");
            let fits = match *kind {
                "bool" => value.is_boolean(),
                "number" => value.is_u64(),
                _ => value.is_string(),
            };
            assert!(fits, "{name} is {value}");
        }
    }
}

#[test]
fn groups_follow_zipf() {
    let fleet = Fleet::new(SEED);
    let mut members = vec![0_u32; usize::from(GROUPS)];
    let devices = 50_000;
    for device in (0..devices).map(|index| fleet.device(index)) {
        device.groups.iter().for_each(|group| members[usize::from(*group)] += 1);
    }
    // One draw takes rank k with 1 / (k + 1) / H(10,000); eight different draws take a small group eight times as often.
    let harmonic = 9.787_606;
    for rank in [50_u16, 100, 200, 400] {
        let expected = f64::from(devices as u32) * 8.0 / (f64::from(rank) + 1.0) / harmonic;
        let found = f64::from(members[usize::from(rank)]);
        // What the large groups do not take twice falls to the others: a little more than that.
        let ratio = found / expected;
        assert!((0.85..1.45).contains(&ratio), "group {rank}: {found} for {expected}");
    }
    assert!(members[0] > members[1] && members[1] > members[3] && members[3] > members[9]);
    let empty = members.iter().filter(|members| **members == 0).count();
    assert!(empty < 500, "the tail is long, not empty: {empty}");
}

#[test]
fn every_attribute_but_platform_and_locale_is_lacked_by_some() {
    let fleet = Fleet::new(SEED);
    let traits: Vec<Traits> = (0..1_000).map(|index| fleet.device(index).traits).collect();
    let share = |has: fn(&Traits) -> bool| traits.iter().filter(|t| has(t)).count();
    for (name, count) in [
        ("country", share(|t| t.country.is_some())),
        ("app_version", share(|t| t.app_version.is_some())),
        ("premium", share(|t| t.premium.is_some())),
        ("age", share(|t| t.age.is_some())),
    ] {
        assert!((600..990).contains(&count), "{name}: {count} of 1,000 have it");
    }
}
