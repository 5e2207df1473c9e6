//! The two stores as central fills them and as an operator asks them.
//!
//! Worlds are written by `carillon-persist` alone, each as one app; what is asked is the query of `docs/expressions.md`,
//! word by word.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use carillon_expr::{Dialect, Truth, Type, sample_hash_of};
use carillon_persist::history::BatchHistory;
use carillon_persist::{
    AnyStore, BatchUpkeep, EpochClaim, Opening, Store, StoreBatch, StoreOptions, StoreUrl, Tallies,
};
use carillon_world::{
    AppId, AppRow, AttributeRow, Batch, Change, DeviceId, DeviceRow, Environment, GroupRow, Millis,
    Quotas, Seq, SetBy, ShardId,
};
use mysql_async::prelude::Queryable;
use rusqlite::functions::FunctionFlags;
use tokio::runtime::Runtime;

use super::tree::{ATTRIBUTES, GROUPS, attribute_id, group_id};
use super::world::World;
use crate::mariadb::MariaDb;

const MANUAL: &str = include_str!("../../../docs/expressions.md");
/// Where the queries of the manual have the app's id and the condition.
const APP: &str = "7d0c52a4b1e96f38";
const CONDITION: &str = "<condition>";

/// Conditions of one query: so many, and so many bytes.
const CONDITIONS_MAX: usize = 64;
const QUERY_BYTES_MAX: usize = 1 << 20;

/// One store under central's own code, and a second connection to it.
#[derive(Debug)]
pub(super) struct Stores {
    runtime: Runtime,
    mariadb: Written,
    sqlite: Written,
    server: mysql_async::Conn,
    file: rusqlite::Connection,
    worlds: u64,
}

#[derive(Debug)]
struct Written {
    store: AnyStore,
    opening: Opening,
    head: Seq,
}

impl Stores {
    /// A database of the server and a file of their own, by `name`.
    ///
    /// # Panics
    /// If either cannot be used.
    pub(super) fn open(server: &MariaDb, folder: &std::path::Path, name: &str) -> Stores {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime needs a poller, which every Linux has");
        let (url, path): (String, PathBuf) = (server.url(name), folder.join(name));
        let mysql: StoreUrl = url.parse().expect("the server's own address");
        let (mariadb, sqlite, server) = runtime.block_on(async {
            let opts = mysql_async::Opts::from_url(&url).expect("the server's own address");
            let server = mysql_async::Conn::new(opts).await.expect("connect to MariaDB");
            (
                Written::open(&mysql).await,
                Written::open(&StoreUrl::Sqlite(path.clone())).await,
                server,
            )
        });
        let file = rusqlite::Connection::open(&path).expect("open the file a second time");
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        file.create_scalar_function("carillon_sample", 2, flags, |call| {
            let (prefix, device): (Vec<u8>, i64) = (call.get(0)?, call.get(1)?);
            Ok(format!("{:016x}", sample_hash_of(&prefix, device.cast_unsigned())))
        })
        .expect("give SQLite a function");
        Stores { runtime, mariadb, sqlite, server, file, worlds: 0 }
    }

    /// Writes a world as one more app, through the stores' own commit.
    ///
    /// # Panics
    /// If a store refuses.
    pub(super) fn write(&mut self, world: &World) -> AppId {
        // Numbers with the highest bit, which SQLite takes for a sign.
        self.worlds += 1;
        let app = AppId::new((1 << 63) + self.worlds);
        let changes = changes(world, app);
        self.runtime.block_on(async {
            self.mariadb.commit(&changes).await;
            self.sqlite.commit(&changes).await;
        });
        app
    }

    /// What each condition is for each device of the world, in their order.
    ///
    /// # Errors
    /// What the database says of a query.
    pub(super) fn ask(
        &mut self,
        dialect: Dialect,
        app: AppId,
        world: &World,
        conditions: &[String],
    ) -> Result<Vec<Vec<Truth>>, String> {
        let mut answers = Vec::with_capacity(conditions.len());
        let mut rest = conditions;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take(CONDITIONS_MAX).take_while(|condition| {
                bytes += condition.len();
                bytes <= QUERY_BYTES_MAX
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            rest = later;
            let rows = match dialect {
                Dialect::MariaDb => self.ask_mariadb(app, now)?,
                Dialect::Sqlite => self.ask_sqlite(app, now)?,
            };
            if rows.len() != world.devices.len() {
                return Err(format!("{} rows of {} devices", rows.len(), world.devices.len()));
            }
            for at in 0..now.len() {
                let of = |id: DeviceId| rows.iter().find(|(device, _)| *device == id.get());
                let truths = world.devices.iter().map(|device| Some(of(device.row.id)?.1[at]));
                answers.push(truths.collect::<Option<_>>().ok_or("a device is missing")?);
            }
        }
        Ok(answers)
    }

    /// Whom the query of the manual finds, which has the condition behind `WHERE`. Sorted.
    ///
    /// # Errors
    /// What the database says of it.
    pub(super) fn find(
        &mut self,
        dialect: Dialect,
        app: AppId,
        condition: &str,
    ) -> Result<Vec<u64>, String> {
        let query = manual(dialect, app).replace(CONDITION, condition);
        let mut found: Vec<u64> = match dialect {
            Dialect::MariaDb => self
                .runtime
                .block_on(self.server.query(query))
                .map_err(|error| error.to_string())?,
            Dialect::Sqlite => {
                let ids: rusqlite::Result<Vec<u64>> = (|| {
                    let mut statement = self.file.prepare(&query)?;
                    let ids = statement.query_map((), |row| row.get::<_, i64>(0))?;
                    ids.map(|id| id.map(i64::cast_unsigned)).collect()
                })();
                ids.map_err(|error| error.to_string())?
            }
        };
        found.sort_unstable();
        Ok(found)
    }

    fn ask_mariadb(
        &mut self,
        app: AppId,
        conditions: &[String],
    ) -> Result<Vec<(u64, Vec<Truth>)>, String> {
        let columns: Vec<String> =
            conditions.iter().map(|condition| format!("IFNULL(({condition}), 'n')")).collect();
        let columns = format!("CONCAT({}, '')", columns.join(", "));
        let query = every_row(Dialect::MariaDb, app, &columns);
        let rows: Vec<(u64, String)> =
            self.runtime.block_on(self.server.query(query)).map_err(|error| error.to_string())?;
        let truth = |letter: char| match letter {
            '0' => Ok(Truth::False),
            '1' => Ok(Truth::True),
            'n' => Ok(Truth::Unknown),
            other => Err(format!("a condition is {other}")),
        };
        rows.into_iter()
            .map(|(device, text)| {
                let truths: Vec<Truth> = text.chars().map(truth).collect::<Result<_, _>>()?;
                if truths.len() != conditions.len() {
                    return Err(format!(
                        "{} answers to {} conditions",
                        truths.len(),
                        conditions.len()
                    ));
                }
                Ok((device, truths))
            })
            .collect()
    }

    fn ask_sqlite(
        &mut self,
        app: AppId,
        conditions: &[String],
    ) -> Result<Vec<(u64, Vec<Truth>)>, String> {
        let columns: Vec<String> =
            conditions.iter().map(|condition| format!("({condition})")).collect();
        let query = every_row(Dialect::Sqlite, app, &columns.join(", "));
        let rows: rusqlite::Result<Vec<(u64, Vec<Truth>)>> = (|| {
            let mut statement = self.file.prepare(&query)?;
            let rows = statement.query_map((), |row| {
                let truths = (0..conditions.len())
                    .map(|at| row.get::<_, Option<bool>>(at + 1).map(Truth::from));
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), truths.collect::<Result<_, _>>()?))
            })?;
            rows.collect()
        })();
        rows.map_err(|error| error.to_string())
    }
}

/// The manual's query for a dialect, about `app`.
fn manual(dialect: Dialect, app: AppId) -> String {
    let name = match dialect {
        Dialect::MariaDb => "-- MariaDB\n",
        Dialect::Sqlite => "-- SQLite\n",
    };
    let query = MANUAL.split_once(name).and_then(|(_, rest)| rest.split_once(";\n```"));
    let (query, _) = query.expect("docs/expressions.md has a query for each store");
    assert!(query.contains(APP) && query.contains(CONDITION), "{query}");
    query.replace(APP, &app.to_string())
}

/// The same for all devices, with more columns in place of the condition.
fn every_row(dialect: Dialect, app: AppId, columns: &str) -> String {
    let query = manual(dialect, app);
    let (query, _) = query.split_once("\nWHERE ").expect("the query has a condition");
    query.replacen("SELECT d.device", &format!("SELECT d.device, {columns}"), 1)
}

/// An app with everything that its devices have, and devices that are gone, which no condition may find.
fn changes(world: &World, app: AppId) -> Vec<Change> {
    let mut changes = vec![Change::App(Arc::new(AppRow {
        id: app,
        name: "oracle".into(),
        environment: Environment::Production,
        publishable_key: "pk".into(),
        created_at: Millis(1),
        quotas: Quotas::default(),
        push: None,
    }))];
    changes.extend(ATTRIBUTES.iter().enumerate().map(|(index, (name, kind))| {
        let (id, kind): (_, Type) = (attribute_id(index), *kind);
        let set_by = SetBy::Device;
        Change::Attribute(Arc::new(AttributeRow { id, app, name: (*name).into(), kind, set_by }))
    }));
    changes.extend(GROUPS.iter().enumerate().map(|(index, name)| {
        let (id, set_by) = (group_id(index), SetBy::Device);
        Change::Group(Arc::new(GroupRow { id, app, name: (*name).into(), set_by }))
    }));
    let row = |row: &DeviceRow| Change::Device(Arc::new(DeviceRow { app, ..row.clone() }));
    changes.extend(world.devices.iter().map(|device| row(&device.row)));
    let seen = world.devices.iter().filter(|device| device.row.last_seen > Millis::ZERO);
    changes.extend(seen.map(|device| {
        let (at, devices) = (device.row.last_seen, vec![device.row.id]);
        Change::Seen { app, at, devices }
    }));
    if let Some(device) = world.devices.first() {
        let id = DeviceId::new(0x0dea_d000_0000_0000);
        changes.push(row(&DeviceRow { id, ..device.row.clone() }));
        changes.push(Change::DeviceGone { app, id });
    }
    changes
}

impl Written {
    async fn open(url: &StoreUrl) -> Written {
        let loaders = NonZeroUsize::MIN;
        let options = StoreOptions { loaders, ..StoreOptions::default() };
        let mut store = AnyStore::open(url, &options).await.expect("open the store");
        let claim = EpochClaim { tag: 1, held: None, number_min: 0, fork: false };
        let opening = store.begin_epoch(ShardId::FIRST, claim).await.expect("begin an epoch");
        let head = opening.head;
        Written { store, opening, head }
    }

    async fn commit(&mut self, changes: &[Change]) {
        let changes = Batch { first: self.head.next(), changes: changes.to_vec() };
        let batch = StoreBatch {
            shard: ShardId::FIRST,
            epoch: self.opening.epoch,
            head: self.head,
            horizon: self.opening.horizon,
            changes: Some(Arc::new(changes)),
            idempotency: Vec::new(),
            receipts: Vec::new(),
            push_jobs: Vec::new(),
            push_times: Vec::new(),
            tallies: Tallies::default(),
            upkeep: BatchUpkeep::default(),
            history: BatchHistory::default(),
            now: Millis(1),
        };
        self.store.commit(&batch).await.expect("commit a world");
        self.head = batch.last();
    }
}
