//! What `carillon history` can be told on the command line.

use std::path::PathBuf;
use std::str::FromStr;

use carillon_expr::{Date, Time};
use carillon_persist::history::lake::Query;
use carillon_persist::history::{EventName, Pseudonym};
use carillon_world::{AppId, DeviceId, MessageId, Millis};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::cli::{add_flags, given_flags};
use crate::config::Sources;

/// What to look for, and how to show it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only what is of this app.
    #[arg(long, value_name = "ID")]
    app: Option<AppId>,
    /// Only what is of this device of the app; central's store is asked for its pseudonym.
    #[arg(long, value_name = "ID", requires = "app", conflicts_with = "pseudonym")]
    device: Option<DeviceId>,
    /// Only what is of the device that the history calls so: 32 hexadecimal digits.
    #[arg(long, value_name = "PSEUDONYM")]
    pseudonym: Option<Pseudonym>,
    /// Only what is of this message.
    #[arg(long, value_name = "ID")]
    message: Option<MessageId>,
    /// Only this event, such as message.created.
    #[arg(long, value_name = "NAME")]
    event: Option<EventName>,
    /// Only from this time on: RFC 3339, a day of UTC, or so long ago, as in -2h.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<Moment>,
    /// Only before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Moment>,
    /// Show the first so many. Some times as many are held in memory.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,
    /// Leave out what never was, because the store was restored from a backup.
    #[arg(long)]
    pub(super) without_forks: bool,
    /// How to show it.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) format: Format,
    /// TOML file to read; variables CARILLON__SECTION__KEY and flags override it.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(flatten)]
    keys: PlaceFlags,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object a line, as records are in the topic.
    Json,
    /// A table with a header.
    Csv,
}

/// A time as it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(Millis),
    /// Milliseconds.
    Ago(u64),
}

#[derive(Debug, thiserror::Error)]
#[error(
    "expected a time like 2026-11-21T07:30:00Z, a day like 2026-11-21, or -30s, -15m, -2h, -7d"
)]
struct NoMoment;

impl FromStr for Moment {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Moment, NoMoment> {
        const DAY_MS: i64 = 86_400_000;
        if let Some(span) = text.strip_prefix('-') {
            let unit_at = span.len().checked_sub(1).filter(|at| span.is_char_boundary(*at));
            let (number, unit) = span.split_at(unit_at.ok_or(NoMoment)?);
            let unit_ms: u64 = match unit {
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(NoMoment),
            };
            let number: u64 = number.parse().map_err(|_| NoMoment)?;
            return number.checked_mul(unit_ms).map(Moment::Ago).ok_or(NoMoment);
        }
        let ms = match text.parse::<Date>() {
            Ok(day) => i64::from(day.days()) * DAY_MS,
            Err(_) => text.parse::<Time>().map_err(|_| NoMoment)?.ms(),
        };
        // Nothing happened before 1970.
        Ok(Moment::At(Millis(ms.max(0).cast_unsigned())))
    }
}

impl Moment {
    fn at(self, now: Millis) -> Millis {
        match self {
            Moment::At(at) => at,
            Moment::Ago(ms) => Millis(now.0.saturating_sub(ms)),
        }
    }
}

impl Options {
    /// The query, but for the pseudonym of [`Options::device`].
    pub(super) fn query(&self, now: Millis) -> Query {
        Query {
            app: self.app,
            device: self.pseudonym,
            message: self.message,
            event: self.event.clone(),
            from: self.from.map(|from| from.at(now)),
            until: self.until.map(|until| until.at(now)),
            ..Query::first(self.limit)
        }
    }

    pub(super) fn device(&self) -> Option<(AppId, DeviceId)> {
        self.app.zip(self.device)
    }

    /// File, environment and flags.
    pub(super) fn sources(&self) -> Sources {
        Sources {
            file: self.config.clone(),
            environment: std::env::vars_os().collect(),
            flags: self.keys.0.clone(),
            required: &[],
        }
    }
}

/// Where the history and the store are: of central's keys those.
#[derive(Debug, Default)]
struct PlaceFlags(Vec<(String, String)>);

const CENTRAL: [&str; 3] =
    ["central.store", "central.store_password", "central.store_connect_timeout"];
const SHORT_HELP: [&str; 4] = ["data", "central.store", "history.lake", "history.kafka_brokers"];

impl Args for PlaceFlags {
    fn augment_args(command: Command) -> Command {
        add_flags(command, &SHORT_HELP, |section, key| match section {
            "" => key.path == "data",
            "central" => CENTRAL.contains(&key.path),
            "history" => true,
            _ => false,
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        PlaceFlags::augment_args(command)
    }
}

impl FromArgMatches for PlaceFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<PlaceFlags, clap::Error> {
        Ok(PlaceFlags(given_flags(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = PlaceFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_instant_a_day_or_so_long_ago() {
        let now = Millis(1_000_000_000_000);
        for (text, at) in [
            ("2026-11-21T07:30:00Z", 1_795_246_200_000),
            ("2026-11-21T08:30:00.5+01:00", 1_795_246_200_500),
            ("2026-11-21", 1_795_219_200_000),
            ("-2h", 1_000_000_000_000 - 7_200_000),
            ("-0s", 1_000_000_000_000),
            ("-99999999d", 0),
        ] {
            let moment: Moment = text.parse().unwrap_or_else(|_| panic!("{text} is a time"));
            assert_eq!(moment.at(now), Millis(at), "{text}");
        }
        for text in ["", "-", "-h", "-2w", "-2é", "2h", "yesterday", "2026-11-31", "-2h30m"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
