//! Quiet hours: when a device may be disturbed, by its own time.

use carillon_world::{DeviceRow, Millis, QuietHours};

const MINUTE: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

/// The first moment from `at` on that is not within the device's quiet hours.
pub(crate) fn awake(quiet: &QuietHours, offset: i64, at: Millis) -> Millis {
    let (from, to) = (u64::from(quiet.from.minutes()), u64::from(quiet.to.minutes()));
    let minute = at.0 / MINUTE;
    let local = (i64::try_from(minute).unwrap_or(i64::MAX).saturating_add(offset))
        .rem_euclid(DAY_MINUTES as i64)
        .cast_unsigned();
    let within = if from <= to { from <= local && local < to } else { local >= from || local < to };
    if !within {
        return at;
    }
    let left = (to + DAY_MINUTES - local) % DAY_MINUTES;
    Millis((minute + left) * MINUTE)
}

/// Minutes that the device's time is ahead of UTC; 0 where it says nothing of use.
pub(crate) fn offset(device: &DeviceRow, attribute: Option<carillon_world::AttributeId>) -> i64 {
    use carillon_expr::{Profile as _, Value};
    match attribute.and_then(|id| device.attribute(id)) {
        Some(Value::Number(minutes)) => {
            let minutes = minutes.get();
            // No place is further than 14 hours from UTC; a day more is somebody's mistake.
            if minutes.abs() <= DAY_MINUTES as f64 { minutes as i64 } else { 0 }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: &str, to: &str) -> QuietHours {
        let text = format!(r#"{{"from":"{from}","to":"{to}","then":"hold"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn at(hour: u64, minute: u64) -> Millis {
        Millis((1_000 * DAY_MINUTES + hour * 60 + minute) * MINUTE + 1)
    }

    #[test]
    fn who_is_awake_is_pushed_at_once_and_who_is_not_when_quiet_hours_end() {
        let night = hours("22:00", "08:00");
        let whole = |at: Millis| Millis(at.0 - 1);
        for (now, then) in [
            (at(21, 59), at(21, 59)),
            (at(22, 0), whole(at(32, 0))),
            (at(23, 59), whole(at(32, 0))),
            (at(3, 30), whole(at(8, 0))),
            (at(7, 59), whole(at(8, 0))),
            (at(8, 0), at(8, 0)),
        ] {
            assert_eq!(awake(&night, 0, now), then, "{now:?}");
        }
        let siesta = hours("13:00", "15:00");
        assert_eq!(awake(&siesta, 0, at(12, 59)), at(12, 59));
        assert_eq!(awake(&siesta, 0, at(14, 0)), whole(at(15, 0)));
        let never = hours("08:00", "08:00");
        assert_eq!(awake(&never, 0, at(8, 0)), at(8, 0));
    }

    #[test]
    fn it_is_the_devices_own_time_that_counts() {
        let night = hours("22:00", "08:00");
        // 20:00 in UTC is 23:00 three hours to the east, and 15:00 five to the west.
        assert_eq!(awake(&night, 180, at(20, 0)), Millis(at(29, 0).0 - 1));
        assert_eq!(awake(&night, -300, at(20, 0)), at(20, 0));
        assert_eq!(awake(&night, 330, at(2, 29)), Millis(at(2, 30).0 - 1), "half hours count");
    }
}
