use super::*;

const APP: AppId = AppId::new(0xa);
const MESSAGE: MessageId = MessageId::new(7);

fn all() -> Vec<Counter> {
    let channels = [PushChannel::Apns, PushChannel::Fcm, PushChannel::WebPush];
    let mut all = vec![
        Counter::Delivered,
        Counter::Displayed,
        Counter::Opened,
        Counter::Dismissed,
        Counter::Action,
        Counter::Withdrawn,
        Counter::Skipped(Skip::Quiet),
        Counter::Skipped(Skip::Capped),
    ];
    for channel in channels {
        all.extend([
            Counter::Pushed(channel),
            Counter::Removed(channel),
            Counter::WithdrawPushed(channel),
            Counter::Failed(channel, Reason::new("Too_Many-1")),
            Counter::Failed(channel, Reason::new(&"r".repeat(REASON_BYTES_MAX))),
        ]);
    }
    all
}

#[test]
fn the_name_of_a_counter_reads_back_and_fits_the_store() {
    for counter in all() {
        let name = counter.to_string();
        assert_eq!(name.parse(), Ok(counter));
        assert!(name.len() <= CountRow::COUNTER_BYTES_MAX, "{name}");
    }
    for bad in ["", "deliver", "pushed", "pushed:sms", "failed:apns", "skipped:x", "delivered:apns"]
    {
        assert_eq!(bad.parse::<Counter>(), Err(()), "{bad}");
    }
}

#[test]
fn a_reason_is_a_word_and_never_what_a_provider_wrote() {
    let long = "x".repeat(REASON_BYTES_MAX + 1);
    for bad in ["", "two words", "a:b", "é", "{\"error\":1}", &long] {
        assert_eq!(Reason::new(bad).as_str(), "other", "{bad}");
    }
    assert_eq!(Reason::new("BadDeviceToken").as_str(), "BadDeviceToken");
}

#[test]
fn a_selection_is_the_first_words_of_names() {
    let selected = |text: &str| {
        let selection: Selection = text.parse().unwrap();
        all().into_iter().filter(|counter| selection.has(counter)).count()
    };
    for (text, count) in [
        ("delivered", 1),
        ("pushed", 3),
        ("pushed:apns", 1),
        ("failed", 6),
        ("failed:web_push", 2),
        ("failed:fcm:Too_Many-1", 1),
        ("skipped", 2),
        ("skipped:quiet", 1),
        ("withdraw_pushed", 3),
        ("withdrawn", 1),
    ] {
        assert_eq!(selected(text), count, "{text}");
    }
    for bad in ["", "deliver", "delivered:", "pushed:sms", "failed:sms:x", "failed:", "skipped:x"] {
        assert!(bad.parse::<Selection>().is_err(), "{bad}");
    }
}

#[test]
fn reasons_of_a_message_are_bounded() {
    let mut funnel = Funnel::default();
    for n in 0..200 {
        let counter = Counter::Failed(PushChannel::Fcm, Reason::new(&format!("r{n}")));
        funnel.count(Millis(1), (APP, MESSAGE), counter, 1);
    }
    let counts: Vec<_> = funnel.totals(APP, MESSAGE).collect();
    assert_eq!(counts.len(), REASONS_MAX + 1);
    assert_eq!(counts.iter().map(|(_, n)| n).sum::<u64>(), 200);
    let other = Counter::Failed(PushChannel::Fcm, Reason::new("other"));
    assert_eq!(funnel.total(APP, MESSAGE, &other), 200 - REASONS_MAX as u64);
}

/// Random counts at random times, with a plain list of them as the oracle; written as rows now and then and read back.
#[test]
fn totals_and_series_are_those_of_a_plain_list() {
    let mut random = 1_u64;
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (random >> 33) % bound
    };
    let counters = all();
    let (mut funnel, mut list) = (Funnel::default(), Vec::new());
    let mut rows: BTreeMap<CountKey, CountRow> = BTreeMap::new();
    let mut now = Millis(1_700_000_000_000);
    for round in 0..2_000 {
        now = now.plus(below(20) * MINUTE / 3);
        let message = MessageId::new(below(3));
        let counter = counters[below(counters.len() as u64) as usize].clone();
        let n = 1 + below(5);
        for key in funnel.count(now, (APP, message), counter.clone(), n) {
            rows.insert(key.clone(), funnel.row(&key));
        }
        list.push((now, message, counter, n));
        if round % 100 != 0 {
            continue;
        }
        let again = Funnel::load(rows.values().cloned().collect());
        for (span, length) in SPANS {
            let name = ["failed:apns", "pushed", "delivered"][below(3) as usize];
            let selection: Selection = name.parse().unwrap();
            let from = Millis(now.0.saturating_sub(below(500) * MINUTE));
            let to = from.plus(below(300) * MINUTE);
            let mut expected: BTreeMap<Millis, u64> = BTreeMap::new();
            for (at, of, counter, n) in &list {
                let begins = Millis(at.0 - at.0 % length);
                if *of == message && selection.has(counter) && begins >= from && begins < to {
                    *expected.entry(begins).or_default() += n;
                }
            }
            let expected: Vec<_> = expected.into_iter().collect();
            for funnel in [&funnel, &again] {
                let found = funnel.series(APP, message, &selection, span, (from, to));
                assert_eq!(found.as_ref(), Some(&expected), "{name} by {span:?}");
            }
        }
        for funnel in [&funnel, &again] {
            for counter in &counters {
                let of = list.iter().filter(|(_, id, c, _)| *id == message && c == counter);
                let expected = of.map(|(.., n)| n).sum::<u64>();
                assert_eq!(funnel.total(APP, message, counter), expected, "{counter}");
            }
        }
    }
    // The old goes by itself, and totals stay.
    let retention = FunnelRetention { minutes: HOUR, hours: DAY, days: 2 * DAY };
    let before = funnel.totals(APP, MessageId::new(0)).map(|(_, n)| n).sum::<u64>();
    let old = retention.old(now);
    assert_eq!(funnel.forget_old((APP, MessageId::new(0)), old), [true; 3]);
    assert_eq!(funnel.forget_old((APP, MessageId::new(0)), old), [false; 3]);
    assert_eq!(funnel.totals(APP, MessageId::new(0)).map(|(_, n)| n).sum::<u64>(), before);
    for (index, (span, _)) in SPANS.iter().enumerate() {
        let selection: Selection = "failed".parse().unwrap();
        let all = (Millis::ZERO, Millis(u64::MAX));
        let points = funnel.series(APP, MessageId::new(0), &selection, *span, all).unwrap();
        assert!(points.iter().all(|(at, _)| *at >= old[index]));
    }
    assert_eq!(funnel.after(None, 10).len(), 3);
    let mut walked = Vec::new();
    while let [next] = funnel.after(walked.last().copied(), 1)[..] {
        walked.push(next);
    }
    assert_eq!(walked, funnel.after(None, 10));
}
