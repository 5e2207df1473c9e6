//! From rows of the tables to rows of the world, for either store.
//!
//! Each `SELECT` stands beside the function that reads its columns. `+shard` keeps SQLite from walking an index over
//! a table that is read whole anyway.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use carillon_expr::Type;
use carillon_world::{
    AppId, AppRow, AttributeId, AttributeRow, AudienceId, AudienceRecord, AudienceRow, DeviceId,
    DevicePrivate, DeviceRow, Epoch, GroupId, GroupRow, LineageEntry, MessageId, MessageRow,
    Millis, Quotas, RevisionRecord, Row, SecretHash, Seq, ShardId,
};

use crate::json::{self, Damage};
use crate::names::Named;
use crate::push;
use crate::{BookRow, CountRow, IdempotencyRow, StoreError, Tally};

/// The columns of one row, each taken once by its index.
pub(crate) trait Columns {
    fn opt_int(&mut self, index: usize) -> Result<Option<u64>, Damage>;
    fn opt_text(&mut self, index: usize) -> Result<Option<String>, Damage>;
    fn opt_blob(&mut self, index: usize) -> Result<Option<Vec<u8>>, Damage>;

    fn int(&mut self, index: usize) -> Result<u64, Damage> {
        self.opt_int(index)?.ok_or_else(|| format!("column {index} is NULL"))
    }

    fn text(&mut self, index: usize) -> Result<String, Damage> {
        self.opt_text(index)?.ok_or_else(|| format!("column {index} is NULL"))
    }

    fn name<T: Named>(&mut self, index: usize) -> Result<T, Damage> {
        let name = self.text(index)?;
        T::named(&name).ok_or_else(|| format!("{name:?} in column {index}"))
    }

    fn digest(&mut self, index: usize) -> Result<Option<[u8; 32]>, Damage> {
        match self.opt_blob(index)? {
            Some(blob) => {
                blob.try_into().map(Some).map_err(|_| format!("column {index} is not 32 bytes"))
            }
            None => Ok(None),
        }
    }
}

pub(crate) fn in_table<T>(table: &'static str, result: Result<T, Damage>) -> Result<T, StoreError> {
    result.map_err(|detail| StoreError::Damaged { table, detail })
}

/// A table that is streamed at start-up.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) table: &'static str,
    /// One parameter: the shard.
    pub(crate) select: &'static str,
}

/// All but devices, in the order in which they are read: revisions before messages and audiences, which take them along.
/// The first column is the id of the row, but for the clock and revisions, which have none.
pub(crate) static SOURCES: [Source; 8] = [
    Source { table: "committed_clock", select: "SELECT at FROM committed_clock WHERE +shard = ?" },
    Source {
        table: "apps",
        select: "SELECT a.app, a.name, a.environment, a.publishable_key, a.created_at, q.devices_max, q.groups_max, \
                 q.live_messages_max, q.bodies_bytes_max, p.settings, p.credentials FROM apps AS a LEFT JOIN app_quotas AS q \
                 ON q.shard = a.shard AND q.app = a.app LEFT JOIN app_push AS p ON p.shard = a.shard AND p.app = a.app \
                 WHERE +a.shard = ?",
    },
    Source {
        table: "attributes",
        select: "SELECT attribute, app, name, type, set_by FROM attributes WHERE +shard = ? AND deleted = 0",
    },
    Source {
        table: "app_groups",
        select: "SELECT group_id, app, name, set_by FROM app_groups WHERE +shard = ? AND deleted = 0",
    },
    Source {
        table: "audience_revisions",
        // A tombstone keeps what was said until it goes itself.
        select: "SELECT app, audience, from_seq, expression FROM audience_revisions AS r WHERE +shard = ? \
                 AND NOT EXISTS (SELECT 1 FROM audiences AS gone WHERE gone.shard = r.shard AND gone.app = r.app \
                 AND gone.audience = r.audience AND gone.deleted = 1)",
    },
    Source {
        table: "audiences",
        select: "SELECT audience, app, name, revision, from_seq, expression, changed_seq FROM audiences \
                 WHERE +shard = ? AND deleted = 0",
    },
    Source {
        table: "message_revisions",
        select: "SELECT app, message, from_seq, active, to_expression, heads FROM message_revisions WHERE +shard = ?",
    },
    Source {
        table: "messages",
        select: "SELECT message, app, revision, state, to_expression, priority, collapse_key, created_at, not_before, \
                 expires_at, variants, changed_seq, (SELECT policy FROM message_push AS p WHERE p.shard = messages.shard \
                 AND p.app = messages.app AND p.message = messages.message) FROM messages WHERE +shard = ?",
    },
];

/// Read last, in parts: further conditions may be added.
pub(crate) static DEVICES: Source = Source {
    table: "devices",
    select: "SELECT device, app, generation_seq, p_seq, created_at, user_id, attributes, group_ids, secret_sha256, \
             push_tokens, (SELECT hour FROM device_seen AS s WHERE s.shard = devices.shard AND s.app = devices.app \
             AND s.device = devices.device) FROM devices WHERE +shard = ? AND deleted = 0",
};

/// What was counted. An empty book is what is left of a device that is gone.
pub(crate) static TALLIES: [Source; 2] = [
    Source {
        table: "device_books",
        select: "SELECT app, device, held_seq, marks FROM device_books \
                 WHERE +shard = ? AND (held_seq > 0 OR LENGTH(marks) > 0)",
    },
    Source {
        table: "message_counts",
        select: "SELECT app, message, span, counter, at, n FROM message_counts WHERE +shard = ?",
    },
];

/// Reads a row of [`TALLIES`]; nothing was stored beyond `head`.
///
/// # Errors
/// [`StoreError::Damaged`]
pub(crate) fn tally(
    table: &'static str,
    columns: &mut impl Columns,
    head: Seq,
) -> Result<Tally, StoreError> {
    let mut read = || {
        let app = AppId::new(columns.int(0)?);
        if table == "device_books" {
            let (device, held) = (DeviceId::new(columns.int(1)?), Seq::new(columns.int(2)?));
            let marks = columns.opt_blob(3)?.ok_or("a book without marks")?.into();
            let row = BookRow { app, device, held, marks };
            if !row.is_sound() {
                return Err(format!("device {device}: its marks are not in order"));
            }
            if held > head {
                return Err(format!("device {device}: it holds {held}, and the head is {head}"));
            }
            return Ok(Tally::Book(row));
        }
        Ok(Tally::Count(CountRow {
            app,
            message: MessageId::new(columns.int(1)?),
            span: columns.name(2)?,
            counter: columns.text(3)?.into(),
            at: Millis(columns.int(4)?),
            n: columns.int(5)?,
        }))
    };
    in_table(table, read())
}

/// What the lease says before and after a load has to be the same, or rows of two states were read.
///
/// # Errors
/// [`StoreError::Fenced`]
pub(crate) fn unchanged(
    shard: ShardId,
    before: Option<(Epoch, Seq, Seq)>,
    after: Option<(Epoch, Seq, Seq)>,
) -> Result<(), StoreError> {
    match before {
        Some((held, ..)) if before != after => {
            Err(StoreError::Fenced { shard, held, lineage: None })
        }
        _ => Ok(()),
    }
}

/// Reads the rows of [`SOURCES`] in that order, and of [`DEVICES`].
#[derive(Debug)]
pub(crate) struct Reader {
    /// No row changed after it.
    head: Seq,
    /// Those that were read; every other row is of one of them.
    apps: HashSet<AppId>,
    /// The app of the last row, so that the set is asked once for a million rows of one app.
    last_app: Option<AppId>,
    /// Without bodies, so small; each leaves with its message.
    revisions: HashMap<(AppId, MessageId), Vec<RevisionRecord>>,
    said: HashMap<(AppId, AudienceId), Vec<AudienceRecord>>,
}

impl Reader {
    /// `lease`: what holds while the shard is read.
    pub(crate) fn new(lease: Option<(Epoch, Seq, Seq)>) -> Reader {
        // Without a lease there is nothing to read.
        let head = lease.map_or(Seq::ZERO, |(_, head, _)| head);
        Reader::of(head, HashSet::new())
    }

    /// A reader of further rows of the same shard, when the apps are read.
    pub(crate) fn beside(&self) -> Reader {
        Reader::of(self.head, self.apps.clone())
    }

    fn of(head: Seq, apps: HashSet<AppId>) -> Reader {
        Reader { head, apps, last_app: None, revisions: HashMap::new(), said: HashMap::new() }
    }

    /// Those that were read, in no order.
    pub(crate) fn apps(&self) -> impl Iterator<Item = AppId> + '_ {
        self.apps.iter().copied()
    }

    fn known(&mut self, app: AppId) -> Result<(), Damage> {
        if self.last_app != Some(app) && !self.apps.contains(&app) {
            return Err(format!("it belongs to app {app}, which the table apps has not"));
        }
        self.last_app = Some(app);
        Ok(())
    }

    fn committed(&self, seq: Seq) -> Result<(), Damage> {
        if seq > self.head {
            return Err(format!("it changed at {seq}, and the head of the shard is {}", self.head));
        }
        Ok(())
    }

    /// `None` for a row that comes later, as part of another.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]
    pub(crate) fn read(
        &mut self,
        table: &'static str,
        columns: &mut impl Columns,
    ) -> Result<Option<Row>, StoreError> {
        if table == "message_revisions" {
            return in_table(table, self.revision(columns)).map(|()| None);
        }
        if table == "audience_revisions" {
            return in_table(table, self.audience_revision(columns)).map(|()| None);
        }
        if table == "committed_clock" {
            return in_table(table, columns.int(0)).map(|at| Some(Row::Clock { at: Millis(at) }));
        }
        let row = columns.int(0).and_then(|id| {
            let (what, row) = match table {
                "apps" => ("app", app(id, columns)),
                "attributes" => ("attribute", attribute(id, columns)),
                "app_groups" => ("group", group(id, columns)),
                "audiences" => ("audience", self.audience(id, columns)),
                "messages" => ("message", self.message(id, columns)),
                "devices" => ("device", device(id, columns)),
                _ => unreachable!("{table} is no source"),
            };
            let fits = row.and_then(|row| self.check(&row).map(|()| row));
            fits.map_err(|detail| format!("{what} {id:016x}: {detail}"))
        });
        in_table(table, row).map(Some)
    }

    /// Whether the row fits what was read before.
    fn check(&mut self, row: &Row) -> Result<(), Damage> {
        let (app, changed) = match row {
            Row::App(row) => {
                self.apps.insert(row.id);
                (row.id, Seq::ZERO)
            }
            Row::Attribute(row) => (row.app, Seq::ZERO),
            Row::Group(row) => (row.app, Seq::ZERO),
            Row::Audience { row, .. } => (row.app, row.from),
            Row::Device(row) => (row.app, row.p.max(row.generation)),
            Row::Message { row, revisions } => {
                (row.app, revisions.last().map_or(Seq::ZERO, |record| record.from))
            }
            Row::Clock { .. } => return Ok(()),
        };
        self.known(app)?;
        self.committed(changed)
    }

    /// To be called after the last row.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a message or an audience is missing.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        if let Some((_, message)) = self.revisions.keys().next() {
            let detail = format!("message {message} has revisions but no row");
            return in_table("message_revisions", Err(detail));
        }
        if let Some((_, audience)) = self.said.keys().next() {
            let detail = format!("audience {audience} has revisions but no row");
            return in_table("audience_revisions", Err(detail));
        }
        Ok(())
    }

    fn audience_revision(&mut self, columns: &mut impl Columns) -> Result<(), Damage> {
        let (app, audience) = (AppId::new(columns.int(0)?), AudienceId::new(columns.int(1)?));
        let mut read = || {
            let (from, expression) = (Seq::new(columns.int(2)?), columns.text(3)?.into());
            Ok(AudienceRecord { from, expression })
        };
        let record = read().map_err(|detail: Damage| format!("audience {audience}: {detail}"))?;
        self.said.entry((app, audience)).or_default().push(record);
        Ok(())
    }

    fn audience(&mut self, id: u64, columns: &mut impl Columns) -> Result<Row, Damage> {
        let (id, app) = (AudienceId::new(id), AppId::new(columns.int(1)?));
        let row = AudienceRow {
            id,
            app,
            name: columns.text(2)?.into(),
            revision: revision_number(columns.int(3)?)?,
            from: Seq::new(columns.int(4)?),
            expression: columns.text(5)?.into(),
        };
        let mut records = self.said.remove(&(app, id)).unwrap_or_default();
        records.sort_unstable_by_key(|record| record.from);
        if records.last() != Some(&AudienceRecord::of(&row)) {
            return Err("its latest revision is another".to_owned());
        }
        self.committed(Seq::new(columns.int(6)?))?;
        Ok(Row::Audience { row: Arc::new(row), records })
    }

    fn revision(&mut self, columns: &mut impl Columns) -> Result<(), Damage> {
        let (app, message) = (AppId::new(columns.int(0)?), MessageId::new(columns.int(1)?));
        let mut read = || {
            let standing = columns.int(3)?;
            if standing > 2 {
                return Err(format!("{standing} in column 3"));
            }
            Ok(RevisionRecord {
                from: Seq::new(columns.int(2)?),
                active: standing == 1,
                over: standing == 2,
                to: columns.text(4)?.into(),
                variants: json::read_heads(&columns.text(5)?)?,
            })
        };
        let record = read().map_err(|detail: Damage| format!("message {message}: {detail}"))?;
        self.revisions.entry((app, message)).or_default().push(record);
        Ok(())
    }

    fn message(&mut self, id: u64, columns: &mut impl Columns) -> Result<Row, Damage> {
        let id = MessageId::new(id);
        let app = AppId::new(columns.int(1)?);
        let priority = columns.name(5)?;
        let expires_at = Millis(columns.int(9)?);
        let row = MessageRow {
            id,
            app,
            revision: revision_number(columns.int(2)?)?,
            state: columns.name(3)?,
            to: columns.text(4)?.into(),
            priority,
            collapse_key: columns.opt_text(6)?.map(Arc::from),
            created_at: Millis(columns.int(7)?),
            not_before: columns.opt_int(8)?.map(Millis),
            expires_at,
            push: columns.opt_text(12)?.map(|text| push::read_policy(&text)).transpose()?,
            variants: json::read_variants(&columns.text(10)?, priority, expires_at)?,
        };
        let mut revisions = self.revisions.remove(&(app, id)).unwrap_or_default();
        revisions.sort_unstable_by_key(|record| record.from);
        let changed = Seq::new(columns.int(11)?);
        let last = revisions.last_mut().filter(|last| last.from == changed && last.is_of(&row));
        let Some(last) = last else {
            return Err("its latest revision is another".to_owned());
        };
        // Older releases wrote only whether it is active.
        last.over = row.is_over();
        Ok(Row::Message { row: Arc::new(row), revisions })
    }
}

fn revision_number(of: u64) -> Result<u32, Damage> {
    of.try_into().map_err(|_| "a revision beyond 32 bits".to_owned())
}

fn app(id: u64, columns: &mut impl Columns) -> Result<Row, Damage> {
    Ok(Row::App(Arc::new(AppRow {
        id: AppId::new(id),
        name: columns.text(1)?.into(),
        environment: columns.name(2)?,
        publishable_key: columns.text(3)?.into(),
        created_at: Millis(columns.int(4)?),
        push: match (columns.opt_text(9)?, columns.opt_text(10)?) {
            (Some(settings), Some(credentials)) => Some(push::read_app(&settings, &credentials)?),
            _ => None,
        },
        quotas: Quotas {
            devices_max: columns.opt_int(5)?,
            groups_max: columns.opt_int(6)?,
            live_messages_max: columns.opt_int(7)?,
            bodies_bytes_max: columns.opt_int(8)?,
        },
    })))
}

fn attribute(id: u64, columns: &mut impl Columns) -> Result<Row, Damage> {
    Ok(Row::Attribute(Arc::new(AttributeRow {
        id: AttributeId::new(id),
        app: AppId::new(columns.int(1)?),
        name: columns.text(2)?.into(),
        kind: columns.text(3)?.parse::<Type>().map_err(|error| error.to_string())?,
        set_by: columns.name(4)?,
    })))
}

fn group(id: u64, columns: &mut impl Columns) -> Result<Row, Damage> {
    Ok(Row::Group(Arc::new(GroupRow {
        id: GroupId::new(id),
        app: AppId::new(columns.int(1)?),
        name: columns.text(2)?.into(),
        set_by: columns.name(3)?,
    })))
}

fn device(id: u64, columns: &mut impl Columns) -> Result<Row, Damage> {
    let secret = columns.digest(8)?.map(SecretHash);
    let private = match columns.opt_text(9)? {
        Some(tokens) => {
            let tokens = json::read_tokens(&tokens)?;
            Some(Box::new(DevicePrivate { secret, tokens }))
        }
        None => None,
    };
    Ok(Row::Device(Arc::new(DeviceRow {
        id: DeviceId::new(id),
        app: AppId::new(columns.int(1)?),
        generation: Seq::new(columns.int(2)?),
        p: Seq::new(columns.int(3)?),
        created_at: Millis(columns.int(4)?),
        user: columns.opt_text(5)?.map(Arc::from),
        attributes: json::read_attributes(&columns.text(6)?)?,
        groups: json::read_groups(&columns.text(7)?)?,
        private,
        last_seen: last_seen(columns.opt_int(10)?)?,
    })))
}

fn last_seen(hour: Option<u64>) -> Result<Millis, Damage> {
    let hour = u32::try_from(hour.unwrap_or(0)).map_err(|_| "an hour beyond 32 bits".to_owned())?;
    Ok(Millis::of_hour(hour))
}

/// Parameters: the shard, and the time since when.
pub(crate) const SELECT_IDEMPOTENCY: &str = "SELECT app, idempotency_key, request_sha256, response, created_at \
                                             FROM idempotency WHERE shard = ? AND created_at >= ?";

pub(crate) fn idempotency(columns: &mut impl Columns) -> Result<IdempotencyRow, StoreError> {
    let mut read = || {
        Ok(IdempotencyRow {
            app: AppId::new(columns.int(0)?),
            key: columns.text(1)?.into(),
            request: columns.digest(2)?.ok_or("a request without a digest")?,
            response: Bytes::from(columns.opt_blob(3)?.ok_or("a request without a response")?),
            created_at: Millis(columns.int(4)?),
        })
    };
    in_table("idempotency", read())
}

/// One parameter: the shard.
pub(crate) const SELECT_LINEAGE: &str = "SELECT epoch_number, epoch_tag, began_after, fork FROM lineage WHERE shard = ? ORDER BY epoch_number";

pub(crate) fn lineage_entry(columns: &mut impl Columns) -> Result<LineageEntry, StoreError> {
    let mut read = || {
        Ok(LineageEntry {
            epoch: Epoch { number: columns.int(0)?, tag: columns.int(1)? },
            began_after: Seq::new(columns.int(2)?),
            fork: columns.int(3)? != 0,
        })
    };
    in_table("lineage", read())
}

/// One parameter: the shard.
pub(crate) const SELECT_LEASE: &str =
    "SELECT epoch_number, epoch_tag, head, horizon FROM lease WHERE shard = ?";

/// The epoch, the head and the horizon.
pub(crate) fn lease(columns: &mut impl Columns) -> Result<(Epoch, Seq, Seq), StoreError> {
    let mut read = || {
        let epoch = Epoch { number: columns.int(0)?, tag: columns.int(1)? };
        Ok((epoch, Seq::new(columns.int(2)?), Seq::new(columns.int(3)?)))
    };
    in_table("lease", read())
}

/// One parameter: the shard.
pub(crate) const SELECT_SEQ_TIMES: &str =
    "SELECT seq, at FROM seq_times WHERE shard = ? ORDER BY seq";

pub(crate) fn seq_time(columns: &mut impl Columns) -> Result<(Seq, Millis), StoreError> {
    let mut read = || Ok((Seq::new(columns.int(0)?), Millis(columns.int(1)?)));
    in_table("seq_times", read())
}

/// Two parameters: the shard, twice.
pub(crate) const SELECT_TIMES: &str = "SELECT (SELECT committed_at FROM lease WHERE shard = ?), \
                                       (SELECT at FROM seen_since WHERE shard = ?)";

/// When the last batch was committed, and since when devices count as seen.
pub(crate) fn times(
    columns: &mut impl Columns,
) -> Result<(Option<Millis>, Option<Millis>), StoreError> {
    let mut read = || {
        let committed_at = columns.opt_int(0)?.filter(|at| *at > 0);
        Ok((committed_at.map(Millis), columns.opt_int(1)?.map(Millis)))
    };
    in_table("seen_since", read())
}

/// One parameter: the shard.
pub(crate) const SELECT_ERASURES: &str = "SELECT app, device FROM erasures WHERE shard = ?";

pub(crate) fn erasure(columns: &mut impl Columns) -> Result<(AppId, DeviceId), StoreError> {
    let mut read = || Ok((AppId::new(columns.int(0)?), DeviceId::new(columns.int(1)?)));
    in_table("erasures", read())
}
