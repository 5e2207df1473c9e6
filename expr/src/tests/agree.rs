//! The uses of one tree agree: evaluation with a naive interpreter, with sets of devices over any
//! choice of kept columns, with index terms, with explanation, and with SQL in SQLite.

use std::borrow::Cow;
use std::collections::HashSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use roaring::RoaringBitmap;
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use super::model::{Tree, device, naive, tree, write};
use super::{ATTRIBUTES, App, Device, attribute_id, context};
use crate::{
    AttributeId, Columns, Context, Dialect, Expression, GroupId, Limits, Profile, Terms, Truth,
    Value, sample_hash_of, visit_terms,
};

/// The devices of a world, which keeps sets for what `kept` has a bit for.
struct World {
    devices: Vec<Device>,
    kept: u8,
}

impl World {
    fn rows(&self, bit: u8, holds: impl Fn(&Device) -> bool) -> Option<Cow<'_, RoaringBitmap>> {
        let rows = self.devices.iter().enumerate().filter(|(_, device)| holds(device));
        (self.kept >> bit & 1 == 1).then(|| Cow::Owned(rows.map(|(row, _)| row as u32).collect()))
    }
}

impl Columns for World {
    type Device = Device;

    fn all(&self) -> Cow<'_, RoaringBitmap> {
        Cow::Owned((0..self.devices.len() as u32).collect())
    }

    fn device(&self, row: u32) -> Option<&Device> {
        self.devices.get(row as usize)
    }

    fn row(&self, device: u64) -> Option<u32> {
        self.devices.iter().position(|known| known.id == device).map(|row| row as u32)
    }

    fn group(&self, id: GroupId) -> Option<Cow<'_, RoaringBitmap>> {
        self.rows(0, |device| device.groups.contains(&id))
    }

    fn has(&self, id: AttributeId) -> Option<Cow<'_, RoaringBitmap>> {
        self.rows(1, |device| device.values.contains_key(&id))
    }

    fn equals(&self, id: AttributeId, value: &Value) -> Option<Cow<'_, RoaringBitmap>> {
        self.rows(2, |device| device.values.get(&id) == Some(value))
    }

    fn contains(&self, id: AttributeId, entry: &str) -> Option<Cow<'_, RoaringBitmap>> {
        self.rows(
            3,
            |device| matches!(device.values.get(&id), Some(Value::Set(set)) if set.contains(entry)),
        )
    }

    fn user(&self, user: &str) -> Option<Cow<'_, RoaringBitmap>> {
        self.rows(4, |device| device.user.as_deref() == Some(user))
    }
}

/// The stores' table of devices, with the function that the SQL may call.
fn sqlite(devices: &[Device]) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE devices (row INTEGER PRIMARY KEY, device INTEGER NOT NULL, user_id TEXT,
             attributes TEXT NOT NULL, group_ids TEXT NOT NULL, last_seen INTEGER) STRICT",
        )
        .unwrap();
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection
        .create_scalar_function("carillon_sample", 2, flags, |call| {
            let (prefix, device): (Vec<u8>, i64) = (call.get(0)?, call.get(1)?);
            Ok(format!("{:016x}", sample_hash_of(&prefix, device.cast_unsigned())))
        })
        .unwrap();
    for (row, device) in devices.iter().enumerate() {
        connection
            .execute(
                "INSERT INTO devices VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (
                    row as i64,
                    device.id.cast_signed(),
                    &device.user,
                    attributes_json(device),
                    groups_json(device),
                    device.last_seen.map(crate::Time::ms),
                ),
            )
            .unwrap();
    }
    connection
}

/// As the stores write it.
pub(super) fn attributes_json(device: &Device) -> String {
    let json = |text: &str| serde_json::to_string(text).unwrap();
    let entries: Vec<String> = device
        .values
        .iter()
        .map(|(id, value)| {
            let value = match value {
                Value::String(text) => json(text),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                Value::Version(version) => format!("{{\"v\":\"{version}\"}}"),
                Value::Date(date) => format!("{{\"d\":\"{date}\"}}"),
                Value::Time(time) => format!("{{\"t\":\"{}\"}}", time.to_fixed()),
                Value::Point(point) => {
                    let [x, y, z] = point.direction();
                    let (a, b) = (point.latitude_units(), point.longitude_units());
                    format!("{{\"p\":[{a},{b}],\"u\":[{x},{y},{z}]}}")
                }
                Value::Set(set) => format!("{{\"s\":{}}}", serde_json::to_string(set).unwrap()),
            };
            format!("\"{id}\":{value}")
        })
        .collect();
    format!("{{{}}}", entries.join(","))
}

pub(super) fn groups_json(device: &Device) -> String {
    serde_json::to_string(&device.groups).unwrap()
}

/// What the SQL says of each row: true, false, or null.
fn asked(connection: &Connection, expression: &Expression, context: &Context) -> Vec<Truth> {
    let condition = expression.to_sql(Dialect::Sqlite, context).unwrap();
    let mut statement = connection
        .prepare(&format!("SELECT ({condition}) FROM devices AS d ORDER BY row"))
        .unwrap_or_else(|error| panic!("{error}: {condition}"));
    let rows = statement.query_map((), |row| row.get::<_, Option<bool>>(0)).unwrap();
    rows.map(|row| row.unwrap().into()).collect()
}

/// Devices of which some are alike but for one thing, and one has nothing.
fn world(runner: &mut TestRunner) -> World {
    let mut devices: Vec<Device> =
        (0..20).map(|_| device().new_tree(runner).unwrap().current()).collect();
    for at in 0..8 {
        let (mut twin, other) = (devices[at].clone(), devices[at + 8].clone());
        let id = attribute_id(at % ATTRIBUTES.len());
        match other.values.get(&id) {
            Some(value) => drop(twin.values.insert(id, value.clone())),
            None => drop(twin.values.remove(&id)),
        }
        devices.push(twin);
    }
    devices.push(Device::default());
    for (row, device) in devices.iter_mut().enumerate() {
        // Ids are unique; the first ones are those that expressions name.
        device.id = if row == 9 { u64::MAX } else { row as u64 };
    }
    let kept = any::<u8>().new_tree(runner).unwrap().current();
    World { devices, kept }
}

/// The first use that disagrees, told in words.
fn disagreement(tree: &Tree, world: &World, database: &Connection) -> Option<String> {
    let source = write(tree);
    let expression = match Expression::parse(&source, &App, &Limits::default()) {
        Ok(expression) => expression,
        Err(faults) => return Some(faults.render(&source)),
    };
    let context = context();
    let expected: Vec<Truth> = world
        .devices
        .iter()
        .map(|device| [Truth::False, Truth::Unknown, Truth::True][naive(tree, device) as usize])
        .collect();
    let rows = |truth| -> RoaringBitmap {
        (0..expected.len() as u32).filter(|row| expected[*row as usize] == truth).collect()
    };
    if expression.recipients(world, &context) != rows(Truth::True) {
        return Some("recipients".to_owned());
    }
    if expression.excluded(world, &context) != rows(Truth::False) {
        return Some("excluded".to_owned());
    }
    let sql = asked(database, &expression, &context);
    let terms = expression.terms();
    let filed: HashSet<_> = match &terms {
        Terms::Any(terms) => terms.iter().cloned().collect(),
        _ => HashSet::new(),
    };
    for (row, device) in world.devices.iter().enumerate() {
        let truth = expression.evaluate_in(device, &context);
        if truth != expected[row] {
            return Some(format!("evaluation of {device:?}: {truth:?}, not {:?}", expected[row]));
        }
        if expression.matches_in(device, &context) != (truth == Truth::True) {
            return Some("matches".to_owned());
        }
        if sql[row] != truth {
            return Some(format!("SQL of {device:?}: {:?}, not {truth:?}", sql[row]));
        }
        let explained = expression.explain(device, &context, &App);
        if explained.parts[0].truth != truth {
            return Some("explanation".to_owned());
        }
        let user = device.user.as_deref().map(Into::into);
        let attributes: Vec<_> = device.values.clone().into_iter().collect();
        let mut found = matches!(terms, Terms::Everyone);
        visit_terms(device.id, user.as_ref(), &attributes, &device.groups, &mut |term| {
            found |= filed.contains(term);
        });
        if truth == Truth::True && !found {
            return Some(format!("terms {terms:?} of {device:?}"));
        }
    }
    None
}

/// The smallest tree that still shows a disagreement.
fn shrunk(mut tree: impl ValueTree<Value = Tree>, world: &World, database: &Connection) -> String {
    let mut smallest = tree.current();
    while tree.simplify() {
        loop {
            if disagreement(&tree.current(), world, database).is_some() {
                smallest = tree.current();
                break;
            }
            if !tree.complicate() {
                break;
            }
        }
    }
    format!(
        "{}\n{}",
        write(&smallest),
        disagreement(&smallest, world, database).unwrap_or_default()
    )
}

/// What MariaDB says of each row for each expression: `1`, `0` or `n`. It runs the program `mariadb` with
/// the arguments that the variable holds, such as `--socket=/run/mysqld/mysqld.sock test`.
fn mariadb(arguments: &str, world: &World, expressions: &[Expression]) -> Vec<String> {
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let mut script = "SET NAMES utf8mb4; SET group_concat_max_len = 1000000;
        CREATE OR REPLACE TABLE devices (place INT PRIMARY KEY, device BIGINT UNSIGNED NOT NULL,
        user_id TEXT, attributes MEDIUMTEXT NOT NULL, group_ids MEDIUMTEXT NOT NULL, last_seen BIGINT)
        CHARSET=utf8mb4 COLLATE=utf8mb4_bin;\n"
        .to_owned();
    for (row, device) in world.devices.iter().enumerate() {
        let quoted = |text: &str| format!("CONVERT(X'{}' USING utf8mb4)", hex(text));
        let null = || "NULL".to_owned();
        script.push_str(&format!(
            "INSERT INTO devices VALUES ({row}, {}, {}, {}, {}, {});\n",
            device.id,
            device.user.as_deref().map_or_else(null, quoted),
            quoted(&attributes_json(device)),
            quoted(&groups_json(device)),
            device.last_seen.map_or_else(null, |seen| seen.ms().to_string()),
        ));
    }
    for expression in expressions {
        let condition = expression.to_sql(Dialect::MariaDb, &context()).unwrap();
        script.push_str(&format!(
            "SELECT GROUP_CONCAT(IFNULL(({condition}), 'n') ORDER BY place SEPARATOR '') FROM devices AS d;\n"
        ));
    }
    let mut client = std::process::Command::new("mariadb")
        .args([
            "--no-defaults",
            "--skip-column-names",
            "--batch",
            "--default-character-set=utf8mb4",
        ])
        .args(arguments.split_whitespace())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let writer =
        std::thread::spawn(move || std::io::Write::write_all(&mut input, script.as_bytes()));
    let output = client.wait_with_output().unwrap();
    // A client that failed has closed its end.
    drop(writer.join().unwrap());
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "mariadb failed after {} answers", lines.lines().count());
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn all_uses_agree() {
    let seed = std::env::var("CARILLON_EXPR_SEED").map_or(1, |seed| seed.parse().unwrap());
    let worlds = std::env::var("CARILLON_EXPR_WORLDS").map_or(60, |worlds| worlds.parse().unwrap());
    let mut mixed = 0;
    for turn in seed..seed + worlds {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&u64::to_le_bytes(turn));
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), random);
        let world = world(&mut runner);
        let database = sqlite(&world.devices);
        let mut trees = Vec::new();
        for _ in 0..100 {
            let tree = tree().new_tree(&mut runner).unwrap();
            trees.push(tree.current());
            if disagreement(&tree.current(), &world, &database).is_some() {
                panic!("CARILLON_EXPR_SEED={turn}\n{}", shrunk(tree, &world, &database));
            }
            let recipients =
                world.devices.iter().filter(|device| naive(&tree.current(), device) == 2).count();
            mixed += u64::from((1..world.devices.len()).contains(&recipients));
        }
        if let Ok(arguments) = std::env::var("CARILLON_EXPR_MARIADB") {
            let expressions: Vec<_> = trees.iter().map(|tree| super::parse(&write(tree))).collect();
            let said = mariadb(&arguments, &world, &expressions);
            for ((tree, expression), said) in trees.iter().zip(&expressions).zip(said) {
                let rows = world
                    .devices
                    .iter()
                    .map(|device| ['0', 'n', '1'][naive(tree, device) as usize]);
                let expected: String = rows.collect();
                let condition = expression.to_sql(Dialect::MariaDb, &context()).unwrap();
                assert_eq!(
                    said,
                    expected,
                    "CARILLON_EXPR_SEED={turn}\n{}\n{condition}",
                    write(tree)
                );
            }
        }
    }
    // Half of them must be able to tell a mistake in either direction.
    assert!(mixed * 2 > worlds * 100, "{mixed} of {} have recipients and others", worlds * 100);
}

/// Most random numbers need 17 digits, which SQLite's JSON functions do not read exactly.
#[test]
fn sqlite_reads_the_numbers_that_were_written() {
    let connection = Connection::open_in_memory().unwrap();
    let mut statement =
        connection.prepare("SELECT CAST(?1 -> '$.\"a\"' AS REAL), CAST(?2 AS REAL)").unwrap();
    let mut random = 88_172_645_463_325_252_u64;
    for turn in 0..200_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let exponent = if turn % 2 == 0 { random >> 52 } else { 998 + random % 85 };
        let bits = (random & 0x800f_ffff_ffff_ffff) | ((exponent & 0x7ff) << 52);
        let Some(number) = crate::Number::try_new(f64::from_bits(bits)) else { continue };
        let read: (f64, f64) = statement
            .query_row((format!("{{\"a\":{number}}}"), number.to_string()), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(read, (number.get(), number.get()));
    }
}

#[test]
fn without_a_clock_or_a_message_what_needs_them_is_unknown_everywhere() {
    let device = Device { last_seen: Some(super::now()), ..Device::default() }
        .with("signed_up", Value::Time(super::now()))
        .with("birthday", Value::Date(super::now().date()))
        .with("utc_offset", super::number(60.0));
    let database = sqlite(std::slice::from_ref(&device));
    let world = World { devices: vec![device.clone()], kept: 0 };
    let context = Context::default();
    for source in [
        "last_seen within 7d",
        "not last_seen within 7d",
        "signed_up <= now",
        "signed_up between 2000-01-01T00:00:00Z and now",
        "birthday == now",
        "birthday within next 3d",
        "local_time(utc_offset) >= 00:00",
        "local_day(utc_offset) in (mon, tue, wed, thu, fri, sat, sun)",
        "sample(50%)",
    ] {
        let expression = super::parse(source);
        assert_eq!(expression.evaluate(&device), Truth::Unknown, "{source}");
        assert_eq!(asked(&database, &expression, &context), [Truth::Unknown], "{source}");
        assert!(expression.recipients(&world, &context).is_empty(), "{source}");
        assert!(expression.excluded(&world, &context).is_empty(), "{source}");
    }
    assert!(super::parse("has last_seen and last_seen < 2030-01-01T00:00:00Z").matches(&device));
    assert!(device.device_id().is_some());
}
