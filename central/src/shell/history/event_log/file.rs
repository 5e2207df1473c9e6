//! Where the lines go: a file that is renamed when it is long or old, or standard output.
//!
//! What always holds of a file: it ends with a whole line whenever nothing is being written, and is no longer than its
//! limit but for a single line that is. All that is written to it is of the format that it begins with. Only what is a
//! file is renamed or cut; a device or a pipe is just written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use carillon_persist::history::CSV_HEADER;

use super::Order;
use crate::config::{EventLogFormat, EventLogPlan, EventLogTo};

/// A line is a record of the history, which has 900,000 bytes at most where Kafka takes it; the end of a file that is
/// looked at for the last one.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const DAY_S: u64 = 86_400;

#[derive(Debug)]
pub(super) struct Out {
    plan: EventLogPlan,
    open: Option<Open>,
    has_header: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and number, by which it is known again.
    identity: (u64, u64),
    is_regular: bool,
    bytes: u64,
    /// Of UTC, when it was last written to.
    day: u64,
}

impl Out {
    pub(super) fn new(plan: &EventLogPlan) -> Out {
        Out { plan: plan.clone(), open: None, has_header: false }
    }

    fn path(&self) -> Option<PathBuf> {
        match &self.plan.to {
            EventLogTo::Stdout => None,
            EventLogTo::File(path) => Some(path.clone()),
        }
    }

    /// The last event of which the files say that they have it; `None` if they do not.
    pub(super) fn last(&self) -> Option<Order> {
        let path = self.path()?;
        let of = |path: &Path| {
            let is_regular = fs::metadata(path).is_ok_and(|of| of.is_file());
            let text = is_regular.then(|| read_end(path).ok()).flatten()?;
            let whole = text.rsplit_once('\n')?.0;
            order_of(whole.rsplit('\n').next()?.trim_end())
        };
        // A kill may fall between a rename and the next line.
        of(&path).or_else(|| of(&numbered(&path, 1)))
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// With the number of lines that are not written.
    pub(super) fn write(&mut self, mut lines: &[u8]) -> Result<(), (io::Error, u64)> {
        while !lines.is_empty() {
            match self.write_some(lines) {
                Ok(written) => lines = &lines[written..],
                Err(error) => {
                    // Whatever is open is in doubt.
                    self.open = None;
                    let lost = lines.iter().filter(|byte| **byte == b'\n').count();
                    return Err((error, lost as u64));
                }
            }
        }
        Ok(())
    }

    /// Writes the lines that fit into the file, at least one; gives how many bytes they have.
    fn write_some(&mut self, lines: &[u8]) -> io::Result<usize> {
        let Some(path) = self.path() else {
            let mut out = io::stdout().lock();
            if self.plan.format == EventLogFormat::Csv && !self.has_header {
                out.write_all(CSV_HEADER.as_bytes())?;
                self.has_header = true;
            }
            out.write_all(lines)?;
            out.flush()?;
            return Ok(lines.len());
        };
        let first = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1);
        let header = match self.plan.format {
            EventLogFormat::Csv => CSV_HEADER,
            EventLogFormat::Json => "",
        };
        let day = today();
        let (bytes_max, daily) = (self.plan.rotate_bytes, self.plan.rotate_daily);
        let open = self.open(&path, header, day)?;
        let room = bytes_max.saturating_sub(open.bytes);
        let is_long = open.bytes > header.len() as u64 && room < first as u64;
        let is_old = daily && open.day < day && open.bytes > header.len() as u64;
        if open.is_regular && (is_long || is_old) {
            self.open = None;
            rotate(&path, self.plan.rotate_keep)?;
            return self.write_some(lines);
        }
        let open = self.open.as_mut().expect("opened above");
        let fits = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
        let fitting = match open.is_regular {
            true => {
                lines[..fits].iter().rposition(|byte| *byte == b'\n').map_or(first, |at| at + 1)
            }
            false => lines.len(),
        };
        if let Err(error) = open.file.write_all(&lines[..fitting]) {
            // No line is left torn, if there is room for nothing.
            if open.is_regular {
                let _ = open.file.set_len(open.bytes);
            }
            return Err(error);
        }
        open.bytes += fitting as u64;
        open.day = day;
        Ok(fitting)
    }

    /// The file, opened anew if it is not the one that has the name: others may rename it too.
    fn open(&mut self, path: &Path, header: &str, day: u64) -> io::Result<&mut Open> {
        let identity = |of: &fs::Metadata| (of.dev(), of.ino());
        let there = fs::metadata(path).ok().map(|of| identity(&of));
        self.open = self.open.take().filter(|open| there == Some(open.identity));
        if self.open.is_none() {
            let mut options = OpenOptions::new();
            // It names devices and holds messages.
            let mut file = options.append(true).create(true).mode(0o600).open(path)?;
            let of = file.metadata()?;
            let mut bytes = of.len();
            if of.is_file() {
                // What a kill left half written.
                bytes = whole(path, bytes)?;
                if bytes < of.len() {
                    file.set_len(bytes)?;
                }
                if bytes > 0 && !is_of(path, self.plan.format)? {
                    rotate(path, self.plan.rotate_keep)?;
                    return self.open(path, header, day);
                }
                if bytes == 0 && !header.is_empty() {
                    file.write_all(header.as_bytes())?;
                    bytes = header.len() as u64;
                }
            }
            let day = match bytes > header.len() as u64 {
                true => of.modified().ok().map_or(day, day_of),
                false => day,
            };
            let (identity, is_regular) = (identity(&of), of.is_file());
            self.open = Some(Open { file, identity, is_regular, bytes, day });
        }
        Ok(self.open.as_mut().expect("opened above"))
    }
}

fn day_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / DAY_S
}

fn today() -> u64 {
    day_of(SystemTime::now())
}

fn numbered(path: &Path, n: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Renames a file to `.1`, that to `.2` and so on; the last goes.
fn rotate(path: &Path, keep: usize) -> io::Result<()> {
    for n in (1..keep).rev() {
        match fs::rename(numbered(path, n), numbered(path, n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(path, 1))
}

/// The last bytes of a file, from a character on.
fn read_end(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LINE_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(LINE_BYTES_MAX).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Whether a file begins as those of a format do: it was another before, or the file is none of ours.
fn is_of(path: &Path, format: EventLogFormat) -> io::Result<bool> {
    let begin = match format {
        EventLogFormat::Csv => CSV_HEADER,
        EventLogFormat::Json => "{",
    };
    let mut found = Vec::new();
    File::open(path)?.take(begin.len() as u64).read_to_end(&mut found)?;
    Ok(found == begin.as_bytes())
}

/// How many bytes of a file are whole lines.
fn whole(path: &Path, bytes: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let from = bytes.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LINE_BYTES_MAX).read_to_end(&mut end)?;
    let last = end.iter().rposition(|byte| *byte == b'\n');
    Ok(last.map_or(from, |at| from + at as u64 + 1))
}

/// Of which event a line of ours tells, in either format: the one of the configuration may be new.
fn order_of(line: &str) -> Option<Order> {
    #[derive(serde::Deserialize)]
    struct Line {
        epoch: u64,
        n: u64,
    }
    // In CSV a time comes first.
    if line.starts_with('{') {
        return serde_json::from_str(line).ok().map(|Line { epoch, n }| (epoch, n));
    }
    // Behind the data: shard, epoch, its tag, the event's number, the change's.
    let mut fields = line.rsplit(',');
    let n = fields.nth(1)?.parse().ok()?;
    Some((fields.nth(1)?.parse().ok()?, n))
}

#[cfg(test)]
mod tests {
    use carillon_persist::history::{EventLine, RecordId};
    use carillon_world::{DeviceId, Epoch, Millis, ShardId};

    use super::*;

    fn plan(path: &Path, format: EventLogFormat) -> EventLogPlan {
        EventLogPlan {
            format,
            rotate_bytes: 1000,
            rotate_keep: 3,
            ..EventLogPlan::new(EventLogTo::File(path.to_owned()))
        }
    }

    fn line(n: u64, format: EventLogFormat) -> Vec<u8> {
        let line = EventLine {
            id: RecordId { shard: ShardId::FIRST, epoch: Epoch { number: 7, tag: 1 }, seq: n },
            change: n.is_multiple_of(2).then(|| carillon_world::Seq::new(n)),
            at: Millis(n),
            event: "message.delivered",
            app: None,
            device: Some(DeviceId::new(n)),
            message: None,
            data: r#"{"a":"1,2,\"3"}"#,
        };
        let mut text = Vec::new();
        match format {
            EventLogFormat::Json => line.write_json(&mut text),
            EventLogFormat::Csv => line.write_csv(&mut text),
        }
        text
    }

    fn numbers(path: &Path, format: EventLogFormat) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(text.len() <= 1000 && (text.is_empty() || text.ends_with('\n')), "{text}");
        let mut lines = text.lines();
        if format == EventLogFormat::Csv {
            assert_eq!(lines.next().map(str::trim_end), Some(CSV_HEADER.trim_end()));
        }
        let number = |line: &str| {
            assert_eq!(line.starts_with('{'), format == EventLogFormat::Json, "{line}");
            order_of(line).expect("a line of ours").1
        };
        lines.map(number).collect()
    }

    #[test]
    fn a_file_is_renamed_before_it_is_too_long_and_the_oldest_go() {
        for format in [EventLogFormat::Json, EventLogFormat::Csv] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("events.log");
            let mut out = Out::new(&plan(&path, format));
            assert_eq!(out.last(), None);
            for n in (1..=40).step_by(4) {
                let some: Vec<u8> = (n..n + 4).flat_map(|n| line(n, format)).collect();
                out.write(&some).expect("room");
            }
            let mut all = Vec::new();
            for path in [numbered(&path, 3), numbered(&path, 2), numbered(&path, 1), path.clone()] {
                let some = numbers(&path, format);
                assert!(!some.is_empty());
                all.extend(some);
            }
            assert!(!numbered(&path, 4).exists());
            assert!(all.is_sorted_by(|a, b| a + 1 == *b) && all.ends_with(&[40]), "{all:?}");
            assert_eq!(out.last(), Some((7, 40)));
            fs::remove_file(&path).expect("it is there");
            let before = *numbers(&numbered(&path, 1), format).last().expect("lines");
            assert_eq!(out.last(), Some((7, before)));
            // Renamed or removed by others, it is begun anew.
            out.write(&line(41, format)).expect("room");
            assert_eq!(numbers(&path, format), [41]);
        }
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_last_whole_one_counts() {
        for format in [EventLogFormat::Json, EventLogFormat::Csv] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("events.log");
            let (one, two) = (line(1, format), line(2, format));
            let mut out = Out::new(&plan(&path, format));
            out.write(&one).expect("room");
            let torn = OpenOptions::new().append(true).open(&path);
            torn.and_then(|mut file| file.write_all(&two[..20])).expect("room");
            let mut out = Out::new(&plan(&path, format));
            assert_eq!(out.last(), Some((7, 1)));
            out.write(&line(3, format)).expect("room");
            assert_eq!(numbers(&path, format), [1, 3]);
        }
    }

    #[test]
    fn another_format_begins_another_file_and_nothing_is_told_twice() {
        let (json, csv) = (EventLogFormat::Json, EventLogFormat::Csv);
        for (before, after, begun) in [(json, csv, CSV_HEADER), (csv, json, "")] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("events.log");
            Out::new(&plan(&path, before)).write(&line(1, before)).expect("room");
            let mut out = Out::new(&plan(&path, after));
            assert_eq!(out.last(), Some((7, 1)));
            out.write(&line(2, after)).expect("room");
            assert_eq!(numbers(&numbered(&path, 1), before), [1]);
            assert_eq!((numbers(&path, after), out.last()), (vec![2], Some((7, 2))));
            // A file of the same format is gone on with.
            Out::new(&plan(&path, after)).write(&line(3, after)).expect("room");
            assert_eq!(numbers(&path, after), [2, 3]);
            Out::new(&plan(&path, before)).write(&line(4, before)).expect("room");
            assert_eq!(numbers(&numbered(&path, 1), after), [2, 3]);
            assert_eq!(numbers(&path, before), [4]);
            // Killed when no line was in the new file yet.
            rotate(&path, 3).expect("it is there");
            fs::write(&path, begun).expect("room");
            let mut out = Out::new(&plan(&path, after));
            assert_eq!(out.last(), Some((7, 4)));
            out.write(&line(5, after)).expect("room");
            assert_eq!(numbers(&path, after), [5]);
        }
    }

    #[test]
    fn a_line_longer_than_a_file_stands_alone_and_another_day_begins_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.log");
        let format = EventLogFormat::Json;
        let mut out = Out::new(&EventLogPlan { rotate_daily: true, ..plan(&path, format) });
        out.write(&line(1, format)).expect("room");
        let long = [&[b'x'; 2000][..], b"\n"].concat();
        out.write(&[&long[..], &line(2, format)].concat()).expect("room");
        assert_eq!(numbers(&numbered(&path, 2), format), [1]);
        assert_eq!(fs::metadata(numbered(&path, 1)).expect("it is there").len(), 2001);
        assert_eq!(numbers(&path, format), [2]);
        out.open.as_mut().expect("open").day -= 1;
        out.write(&line(3, format)).expect("room");
        assert_eq!(
            (numbers(&numbered(&path, 1), format), numbers(&path, format)),
            (vec![2], vec![3])
        );
    }

    #[test]
    fn what_is_no_file_is_neither_cut_nor_renamed_and_what_is_lost_is_said() {
        let full = Path::new("/dev/full");
        let format = EventLogFormat::Csv;
        let mut out = Out::new(&plan(full, format));
        let lines = [line(1, format), line(2, format)].concat();
        assert_eq!(out.last(), None);
        for _ in 0..100 {
            let (error, lost) = out.write(&lines).expect_err("it is full");
            assert_eq!((error.kind(), lost), (io::ErrorKind::StorageFull, 2));
        }
        assert!(full.exists());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("later/events.log");
        let mut out = Out::new(&plan(&path, format));
        assert_eq!(out.write(&lines).expect_err("no folder").1, 2);
        fs::create_dir(folder.path().join("later")).expect("a folder");
        out.write(&lines).expect("room");
        assert_eq!(numbers(&path, format), [1, 2]);
    }
}
