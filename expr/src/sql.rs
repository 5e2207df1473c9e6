//! The same question as SQL: a condition for `WHERE` over the stores' table of devices.
//!
//! It is the oracle of the other uses and a tool for operators, so it is made from the tree as it was
//! written, by the databases' own three-valued logic, and shares nothing with the compiled form.
//!
//! What the condition stands on, with `d` for the table:
//!
//! | column | holds |
//! |---|---|
//! | `d.device` | the id; MariaDB `BIGINT UNSIGNED`, SQLite the same 64 bits as a signed integer |
//! | `d.user_id` | the user, or null |
//! | `d.group_ids` | a JSON array of ids, each 16 hexadecimal digits |
//! | `d.attributes` | a JSON object from an attribute's id to its value, see below |
//! | `d.last_seen` | milliseconds since 1970, or null |
//!
//! Values in `attributes`: strings, numbers and bools as in JSON, `{"v":"2.10"}`, `{"d":"2026-11-21"}`,
//! `{"t":"2026-11-21T07:30:00.000Z"}` ([`Time::to_fixed`]), `{"s":["a","b"]}`, and
//! `{"p":[593293000,180686000],"u":[x,y,z]}` with [`Point`](crate::Point)'s units and direction.
//!
//! What had to be defined with care so that two databases and we agree:
//!
//! - *Null* is unknown; a condition over JSON never gives one where we know better, and the other way
//!   round.
//! - *Strings* are compared as bytes. MariaDB's own comparison ignores spaces at the end even in a
//!   binary collation, so both sides are cast to `BINARY`; literals are hexadecimal, which also keeps
//!   any text from being more than a literal. SQLite ends texts at U+0000, which no expression can hold.
//! - *Case* is folded by replacing the letters of the pattern, one by one: neither database folds as we
//!   do.
//! - *Patterns* become `LIKE` in MariaDB and `GLOB` in SQLite, whose `LIKE` ignores case.
//! - *Versions* become four numbers of ten digits each in one text.
//! - *Dates and times* are kept as texts of one width, which sort as they do. The clock is an argument
//!   and stands in the condition as a literal; nothing asks the database what time it is.
//! - *Numbers*: MariaDB reads them exactly. SQLite's `json_extract` was off in the last place for one
//!   in 150 random numbers (3.54.1), its `CAST` of the same text for none of five million; so the
//!   text is taken out with `->` and cast, and so are literals.
//! - *Distances* are compared in integers.
//! - *Samples*: MariaDB has `SHA2`; for SQLite the connection must have the function `carillon_sample`.

use std::fmt::{self, Write as _};

use crate::calendar::WEEKDAYS;
use crate::eval::{hex, sample_prefix, sample_threshold};
use crate::fold::unfolded;
use crate::glob::Part;
use crate::steps::step;
use crate::tree::{Comparison, Hours, Join, Node, Operand, Place, Quantifier, Subject, Test, Tree};
use crate::{AttributeId, Context, Expression, Type, Value, Version};

/// Whose SQL it is.
///
/// SQLite has no SHA-256: for `sample` the connection needs the deterministic function
/// `carillon_sample(prefix, device)`, the 16 lower-case hexadecimal digits of
/// [`sample_hash_of`](crate::sample_hash_of)`(prefix, device as u64)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    MariaDb,
    Sqlite,
}

/// Why there is no condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Audiences are written out wherever they are referred to.
    #[error("the SQL of the expression has more than {SQL_BYTES_MAX} bytes")]
    TooLong,
    /// Databases read conditions with a stack. Each letter that is folded is a level of its own.
    #[error("the SQL of the expression is nested deeper than the database reads")]
    TooDeep,
}

/// Half of what MariaDB takes at once by default.
const SQL_BYTES_MAX: usize = 8 << 20;

impl Dialect {
    /// Of `AND`, `OR`, `NOT` and `REPLACE` within each other.
    const fn depth_max(self) -> usize {
        match self {
            // Its stack of 292 KiB (`thread_stack`, as the server comes) ended within 557 calls of `REPLACE`.
            Dialect::MariaDb => 400,
            // It refuses 1,000; this leaves room for what else stands inside a test.
            Dialect::Sqlite => 800,
        }
    }
}

/// A multiple of a week in minutes that makes every instant of the years 1 to 9999 positive, so that
/// division rounds down in both databases.
const MINUTES_SHIFT: i64 = 7 * 1_440 * 200_000;

impl Expression {
    /// A condition that is true for the rows of recipients, false where the expression is false, and
    /// null where it is unknown. The table of devices must be called `d`.
    ///
    /// # Errors
    /// If the condition would be larger than a database reads.
    pub fn to_sql(&self, dialect: Dialect, context: &Context) -> Result<String, SqlError> {
        enum Work<'a> {
            Node(&'a Expression, u32, usize),
            /// Some kids of a chain.
            Kids(&'a Expression, Join, &'a [u32], usize),
            Text(&'static str),
        }
        let mut writer = Writer { dialect, context, out: String::new(), replaced: 0 };
        let mut work = vec![Work::Node(self, self.tree().root(), 0)];
        while let Some(item) = work.pop() {
            step(1);
            if writer.out.len() > SQL_BYTES_MAX {
                return Err(SqlError::TooLong);
            }
            let (of, node, depth) = match item {
                Work::Text(text) => {
                    writer.out.push_str(text);
                    continue;
                }
                Work::Node(of, node, depth) => (of, node, depth),
                // Halved, so that a chain of thousands is a few levels deep.
                Work::Kids(of, join, kids, depth) => match kids {
                    [only] => (of, *only, depth),
                    _ => {
                        let (left, right) = kids.split_at(kids.len().div_ceil(2));
                        writer.out.push('(');
                        work.push(Work::Text(")"));
                        work.push(Work::Kids(of, join, right, depth + 1));
                        work.push(Work::Text(match join {
                            Join::And => " AND ",
                            Join::Or => " OR ",
                        }));
                        work.push(Work::Kids(of, join, left, depth + 1));
                        continue;
                    }
                },
            };
            if depth > dialect.depth_max() {
                return Err(SqlError::TooDeep);
            }
            let tree: &Tree = of.tree();
            match tree.node(node) {
                Node::Test(test) => {
                    writer.replaced = 0;
                    writer.test(test);
                    // Each letter that is folded is a level.
                    if depth + writer.replaced > dialect.depth_max() {
                        return Err(SqlError::TooDeep);
                    }
                }
                Node::Audience(id) => {
                    let audience = of.audience(*id).expect("read with the expression");
                    work.push(Work::Node(audience, audience.tree().root(), depth));
                }
                Node::Not(inner) => {
                    writer.out.push_str("(NOT ");
                    work.push(Work::Text(")"));
                    work.push(Work::Node(of, *inner, depth + 1));
                }
                Node::Chain { join, from, to } => {
                    work.push(Work::Kids(of, *join, tree.chain(*from, *to), depth));
                }
            }
        }
        Ok(writer.out)
    }
}

struct Writer<'a> {
    dialect: Dialect,
    context: &'a Context,
    out: String,
    /// How many calls of `REPLACE` stand within each other in the present test.
    replaced: usize,
}

impl Writer<'_> {
    /// A test in parentheses.
    fn test(&mut self, test: &Test) {
        self.out.push('(');
        if self.try_test(test).is_none() {
            // It depends on the clock or the message, which is not known.
            self.out.push_str("NULL");
        }
        self.out.push(')');
    }

    /// `None`, with nothing written, if the context lacks what the test depends on.
    fn try_test(&mut self, test: &Test) -> Option<()> {
        let maria = self.dialect == Dialect::MariaDb;
        match test {
            Test::Everyone => self.out.push('1'),
            Test::Group(id) => {
                let find = if maria { "LOCATE" } else { "instr" };
                if maria {
                    self.push(format_args!("{find}('\"{id}\"', d.group_ids) > 0"));
                } else {
                    self.push(format_args!("{find}(d.group_ids, '\"{id}\"') > 0"));
                }
            }
            Test::Device(ids) => {
                self.out.push_str("d.device IN ");
                // In SQLite a hexadecimal literal is the 64 bits themselves.
                self.list(ids.iter(), |writer, id| match writer.dialect {
                    Dialect::MariaDb => writer.push(format_args!("{id}")),
                    Dialect::Sqlite => writer.push(format_args!("0x{id:x}")),
                });
            }
            Test::Has(subject) => match subject {
                Subject::Attribute(id) if maria => {
                    self.push(format_args!(
                        "JSON_CONTAINS_PATH(d.attributes, 'one', {})",
                        Path(*id, "")
                    ));
                }
                Subject::Attribute(id) => {
                    self.push(format_args!(
                        "json_type(d.attributes, {}) IS NOT NULL",
                        Path(*id, "")
                    ));
                }
                Subject::User => self.out.push_str("d.user_id IS NOT NULL"),
                Subject::LastSeen => self.out.push_str("d.last_seen IS NOT NULL"),
            },
            Test::Compare { subject, comparison, value } => {
                let value = self.resolved(value)?;
                self.subject(*subject, value.kind());
                self.push(format_args!(" {} ", symbol(*comparison)));
                self.literal(*subject, &value);
            }
            Test::Between { subject, low, high } => {
                let (low, high) = (self.resolved(low)?, self.resolved(high)?);
                self.between(*subject, &low, &high);
            }
            Test::In { subject, values, fold } => {
                let kind = values.first()?.kind();
                if *fold {
                    let letters: String = values.iter().filter_map(string).collect();
                    self.folded(*subject, &letters);
                } else {
                    self.subject(*subject, kind);
                }
                self.out.push_str(" IN ");
                self.list(values.iter(), |writer, value| writer.literal(*subject, value));
            }
            Test::Text { subject, place, pattern, fold } => {
                self.text(*subject, *place, pattern, *fold);
            }
            Test::Matches { subject, glob, fold } => {
                let letters = if *fold { glob.text() } else { "" };
                if maria {
                    self.out.push_str("CONVERT(");
                    self.folded(*subject, letters);
                    self.out.push_str(" USING utf8mb4) COLLATE utf8mb4_bin LIKE CONVERT(");
                    self.string(&like(glob.parts()));
                    self.out.push_str(" USING utf8mb4) ESCAPE '|'");
                } else {
                    self.folded(*subject, letters);
                    self.out.push_str(" GLOB ");
                    self.string(&sqlite_glob(glob.parts()));
                }
            }
            Test::Entries { attribute, quantifier, entries } => {
                self.entries(*attribute, *quantifier, entries);
            }
            Test::Within { subject, span, ahead } => {
                let (from, to) = span.ends(*ahead);
                let (from, to) =
                    (self.resolved(&Operand::Now(from))?, self.resolved(&Operand::Now(to))?);
                self.between(*subject, &from, &to);
            }
            Test::Near { attribute, centre, reach, .. } => {
                for (axis, at) in centre.direction().into_iter().enumerate() {
                    let plus = if axis > 0 { " + " } else { "" };
                    self.out.push_str(plus);
                    for times in ["", " * "] {
                        self.push(format_args!("{times}("));
                        self.integer(*attribute, &format!(".u[{axis}]"));
                        self.push(format_args!(" - ({at}))"));
                    }
                }
                self.push(format_args!(" <= {reach}"));
            }
            Test::Sample { ppm, salt } => {
                let salt = match salt {
                    Some(salt) => salt.as_bytes().to_vec(),
                    None => hex(self.context.message?).to_vec(),
                };
                match ppm {
                    0 => self.out.push('0'),
                    1_000_000 => self.out.push('1'),
                    _ => {
                        let prefix = Hex(&sample_prefix(&salt));
                        let digits = if maria {
                            format!(
                                "LEFT(SHA2(CONCAT({prefix}, UNHEX(LPAD(HEX(d.device), 16, '0'))), 256), 16)"
                            )
                        } else {
                            format!("carillon_sample({prefix}, d.device)")
                        };
                        self.push(format_args!("{digits} < '{:016x}'", sample_threshold(*ppm)));
                    }
                }
            }
            Test::LocalTime { offset, hours } => {
                let (remainder, now) = (if maria { "MOD" } else { "%" }, self.now_minutes()?);
                self.local(*offset, |writer, minutes| {
                    let minute = format!("(({minutes}) + {now}) {remainder} 1440");
                    match hours {
                        Hours::Compare(comparison, value) => {
                            writer.push(format_args!("{minute} {} {value}", symbol(*comparison)));
                        }
                        Hours::Between(low, high) if low <= high => {
                            writer.push(format_args!("({minute}) BETWEEN {low} AND {high}"));
                        }
                        Hours::Between(low, high) => {
                            writer.push(format_args!("({minute} >= {low} OR {minute} <= {high})"));
                        }
                    }
                });
            }
            Test::LocalDay { offset, days } => {
                let (remainder, divide) = if maria { ("MOD", "DIV") } else { ("%", "/") };
                let now = self.now_minutes()?;
                self.local(*offset, |writer, minutes| {
                    // 1970-01-01 was a Thursday, three days after a Monday.
                    writer.push(format_args!(
                        "((({minutes}) + {now}) {divide} 1440 + 3) {remainder} 7 IN "
                    ));
                    let days = (0..WEEKDAYS.len()).filter(|day| days >> day & 1 == 1);
                    writer.list(days, |writer, day| writer.push(format_args!("{day}")));
                });
            }
        }
        Some(())
    }

    /// The clock in minutes, shifted to be positive.
    fn now_minutes(&self) -> Option<i64> {
        Some(self.context.now?.minutes() + MINUTES_SHIFT)
    }

    /// A condition over the offset in minutes, null unless that is a whole number within a day.
    fn local(&mut self, offset: AttributeId, condition: impl FnOnce(&mut Self, &str)) {
        let number =
            self.detached(|writer| writer.subject(Subject::Attribute(offset), Type::Number));
        let whole = match self.dialect {
            Dialect::MariaDb => format!("CAST({number} AS SIGNED)"),
            Dialect::Sqlite => format!("CAST({number} AS INTEGER)"),
        };
        self.push(format_args!(
            "CASE WHEN {number} > -1440 AND {number} < 1440 AND {number} = {whole} THEN "
        ));
        condition(self, &whole);
        self.out.push_str(" END");
    }

    /// What `write` writes, by itself.
    fn detached(&mut self, write: impl FnOnce(&mut Self)) -> String {
        let before = std::mem::take(&mut self.out);
        write(self);
        std::mem::replace(&mut self.out, before)
    }

    fn text(&mut self, subject: Subject, place: Place, pattern: &str, fold: bool) {
        let letters = if fold { pattern } else { "" };
        let subject = self.detached(|writer| writer.folded(subject, letters));
        let literal = self.detached(|writer| writer.string(pattern));
        let text = match (self.dialect, place) {
            (Dialect::MariaDb, Place::Start) => {
                format!("LEFT({subject}, {}) = {literal}", pattern.len())
            }
            (Dialect::MariaDb, Place::End) => {
                format!("RIGHT({subject}, {}) = {literal}", pattern.len())
            }
            (Dialect::MariaDb, Place::Anywhere) => format!("LOCATE({literal}, {subject}) > 0"),
            // `substr(x, -0)` would be all of it.
            (Dialect::Sqlite, _) if pattern.is_empty() => format!("{subject} = {subject}"),
            (Dialect::Sqlite, Place::Start) => {
                format!("substr({subject}, 1, {}) = {literal}", pattern.chars().count())
            }
            (Dialect::Sqlite, Place::End) => {
                format!("substr({subject}, -{}) = {literal}", pattern.chars().count())
            }
            (Dialect::Sqlite, Place::Anywhere) => format!("instr({subject}, {literal}) > 0"),
        };
        self.out.push_str(&text);
    }

    fn entries(
        &mut self,
        attribute: AttributeId,
        quantifier: Quantifier,
        entries: &[std::sync::Arc<str>],
    ) {
        let entry = |writer: &mut Self, among: &[std::sync::Arc<str>]| {
            match writer.dialect {
                Dialect::MariaDb => writer.push(format_args!(
                    "EXISTS (SELECT 1 FROM JSON_TABLE(d.attributes, {} COLUMNS (entry LONGTEXT \
                     CHARACTER SET utf8mb4 PATH '$')) AS e WHERE CAST(e.entry AS BINARY) IN ",
                    Path(attribute, ".s[*]")
                )),
                Dialect::Sqlite => writer.push(format_args!(
                    "EXISTS (SELECT 1 FROM json_each(d.attributes, {}) AS e WHERE e.value IN ",
                    Path(attribute, ".s")
                )),
            }
            writer.list(among.iter(), |writer, entry| writer.string(entry));
            writer.out.push(')');
        };
        self.out.push_str("CASE WHEN ");
        match self.dialect {
            Dialect::MariaDb => self.push(format_args!(
                "JSON_CONTAINS_PATH(d.attributes, 'one', {})",
                Path(attribute, ".s")
            )),
            Dialect::Sqlite => self.push(format_args!(
                "json_type(d.attributes, {}) IS NOT NULL",
                Path(attribute, ".s")
            )),
        }
        self.out.push_str(" THEN ");
        match quantifier {
            Quantifier::Any => entry(self, entries),
            Quantifier::None => {
                self.out.push_str("NOT ");
                entry(self, entries);
            }
            Quantifier::All => {
                // One level for all of them: each is a term of a product.
                for (at, each) in entries.iter().enumerate() {
                    self.out.push_str(if at > 0 { " * " } else { "" });
                    entry(self, std::slice::from_ref(each));
                }
                self.out.push_str(" = 1");
            }
        }
        self.out.push_str(" END");
    }

    /// The value of a subject in a form that can be compared with [`Writer::literal`].
    fn subject(&mut self, subject: Subject, kind: Type) {
        let maria = self.dialect == Dialect::MariaDb;
        let id = match subject {
            Subject::Attribute(id) => id,
            Subject::User if maria => return self.out.push_str("CAST(d.user_id AS BINARY)"),
            Subject::User => return self.out.push_str("d.user_id"),
            // An edge's clock may be ahead of the committed one.
            Subject::LastSeen => {
                let least = if maria { "LEAST" } else { "min" };
                return match self.context.now {
                    Some(now) => self.push(format_args!("{least}(d.last_seen, {})", now.ms())),
                    None => self.out.push_str("d.last_seen"),
                };
            }
        };
        match (kind, maria) {
            (Type::String, true) => {
                self.push(format_args!(
                    "CAST(JSON_VALUE(d.attributes, {}) AS BINARY)",
                    Path(id, "")
                ));
            }
            (Type::Number, true) => {
                self.push(format_args!(
                    "CAST(JSON_VALUE(d.attributes, {}) AS DOUBLE)",
                    Path(id, "")
                ));
            }
            (Type::Number, false) => {
                self.push(format_args!("CAST(d.attributes -> {} AS REAL)", Path(id, "")));
            }
            (Type::Bool, true) => self.push(format_args!(
                "(JSON_UNQUOTE(JSON_EXTRACT(d.attributes, {})) = 'true')",
                Path(id, "")
            )),
            (Type::Date, true) => {
                self.push(format_args!("JSON_VALUE(d.attributes, {})", Path(id, ".d")))
            }
            (Type::Time, true) => {
                self.push(format_args!("JSON_VALUE(d.attributes, {})", Path(id, ".t")))
            }
            (Type::Date, false) => {
                self.push(format_args!("json_extract(d.attributes, {})", Path(id, ".d")))
            }
            (Type::Time, false) => {
                self.push(format_args!("json_extract(d.attributes, {})", Path(id, ".t")))
            }
            (Type::Version, true) => {
                self.out.push_str("CONCAT(");
                for component in 1..=4 {
                    self.out.push_str(if component > 1 { ", " } else { "" });
                    self.push(format_args!(
                        "LPAD(SUBSTRING_INDEX(SUBSTRING_INDEX(CONCAT(JSON_VALUE(d.attributes, {}), \
                         '.0.0.0'), '.', {component}), '.', -1), 10, '0')",
                        Path(id, ".v")
                    ));
                }
                self.out.push(')');
            }
            (Type::Version, false) => {
                let version = format!("json_extract(d.attributes, {})", Path(id, ".v"));
                self.push(format_args!(
                    "CASE WHEN {version} IS NOT NULL THEN printf('%010d%010d%010d%010d'"
                ));
                for component in 0..4 {
                    self.push(format_args!(
                        ", json_extract('[' || replace({version}, '.', ',') || ']', '$[{component}]')"
                    ));
                }
                self.out.push_str(") END");
            }
            (Type::String | Type::Bool | Type::Point | Type::Set, _) => {
                self.push(format_args!("json_extract(d.attributes, {})", Path(id, "")));
            }
        }
    }

    /// The text of a subject, with all characters replaced that fold to one of `letters`.
    fn folded(&mut self, subject: Subject, letters: &str) {
        let pairs = unfolded(letters);
        self.replaced = self.replaced.max(pairs.len());
        for _ in &pairs {
            self.out.push_str("REPLACE(");
        }
        self.subject(subject, Type::String);
        for (upper, lower) in pairs {
            self.out.push_str(", ");
            self.string(upper.encode_utf8(&mut [0; 4]));
            self.out.push_str(", ");
            self.string(lower.encode_utf8(&mut [0; 4]));
            self.out.push(')');
        }
    }

    /// An integer within a value.
    fn integer(&mut self, id: AttributeId, within: &str) {
        match self.dialect {
            Dialect::MariaDb => self.push(format_args!(
                "CAST(JSON_VALUE(d.attributes, {}) AS SIGNED)",
                Path(id, within)
            )),
            Dialect::Sqlite => {
                self.push(format_args!("json_extract(d.attributes, {})", Path(id, within)));
            }
        }
    }

    /// What an operand stands for at the context's time.
    fn resolved(&self, operand: &Operand) -> Option<Value> {
        match operand {
            Operand::Value(value) => Some(value.clone()),
            Operand::Now(span) => span.after_clock(self.context.now),
        }
    }

    fn between(&mut self, subject: Subject, low: &Value, high: &Value) {
        self.subject(subject, low.kind());
        self.out.push_str(" BETWEEN ");
        self.literal(subject, low);
        self.out.push_str(" AND ");
        self.literal(subject, high);
    }

    fn literal(&mut self, subject: Subject, value: &Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Number(number) => match self.dialect {
                // With an exponent it is a double; without one MariaDB would take it as a decimal.
                Dialect::MariaDb => self.push(format_args!("{:e}", number.get())),
                Dialect::Sqlite => self.push(format_args!("CAST('{number}' AS REAL)")),
            },
            Value::Bool(flag) => self.push(format_args!("{}", u8::from(*flag))),
            Value::Version(version) => self.push(format_args!("'{}'", Padded(*version))),
            Value::Date(date) => self.push(format_args!("'{date}'")),
            Value::Time(time) if subject == Subject::LastSeen => {
                self.push(format_args!("{}", time.ms()));
            }
            Value::Time(time) => self.push(format_args!("'{}'", time.to_fixed())),
            Value::Point(_) | Value::Set(_) => self.out.push_str("NULL"),
        }
    }

    fn string(&mut self, text: &str) {
        match self.dialect {
            Dialect::MariaDb => self.push(format_args!("{}", Hex(text.as_bytes()))),
            Dialect::Sqlite => self.push(format_args!("'{}'", text.replace('\'', "''"))),
        }
    }

    fn list<T>(&mut self, entries: impl Iterator<Item = T>, mut entry: impl FnMut(&mut Self, T)) {
        for (at, each) in entries.enumerate() {
            self.out.push_str(if at > 0 { ", " } else { "(" });
            entry(self, each);
        }
        self.out.push(')');
    }

    fn push(&mut self, text: fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("writing to a string cannot fail");
    }
}

/// A JSON path to an attribute, as a literal.
struct Path<'a>(AttributeId, &'a str);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'$.\"{}\"{}'", self.0, self.1)
    }
}

/// Bytes as a literal.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X'")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))?;
        f.write_str("'")
    }
}

/// Four components of ten digits.
struct Padded(Version);

impl fmt::Display for Padded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.components().iter().try_for_each(|component| write!(f, "{component:010}"))
    }
}

fn symbol(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        other => other.as_str(),
    }
}

fn string(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn like(parts: &[Part]) -> String {
    let mut pattern = String::new();
    for part in parts {
        match part {
            Part::Run => pattern.push('%'),
            Part::One => pattern.push('_'),
            Part::Exactly(c) => {
                if matches!(c, '%' | '_' | '|') {
                    pattern.push('|');
                }
                pattern.push(*c);
            }
        }
    }
    pattern
}

fn sqlite_glob(parts: &[Part]) -> String {
    let mut pattern = String::new();
    for part in parts {
        match part {
            Part::Run => pattern.push('*'),
            Part::One => pattern.push('?'),
            Part::Exactly(c @ ('*' | '?' | '[')) => {
                pattern.push('[');
                pattern.push(*c);
                pattern.push(']');
            }
            Part::Exactly(c) => pattern.push(*c),
        }
    }
    pattern
}
