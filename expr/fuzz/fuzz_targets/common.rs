//! An app to read against, and what must hold for whatever was read.

use std::borrow::Cow;

use carillon_expr::{
    AttributeId, AudienceId, Columns, Context, Dialect, Expression, GroupId, Limits, Number, Point, Profile,
    RoaringBitmap, Schema, Term, Terms, Time, Truth, Type, Value, complete, visit_terms,
};

pub const ATTRIBUTES: [(&str, Type); 9] = [
    ("country", Type::String),
    ("age", Type::Number),
    ("premium", Type::Bool),
    ("app_version", Type::Version),
    ("birthday", Type::Date),
    ("signed_up", Type::Time),
    ("home", Type::Point),
    ("interests", Type::Set),
    ("utc_offset", Type::Number),
];

const GROUPS: [&str; 2] = ["vip", "staff"];

#[derive(Debug)]
pub struct App;

impl Schema for App {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        let at = ATTRIBUTES.iter().position(|(known, _)| *known == name)?;
        Some((AttributeId::new(at as u64), ATTRIBUTES[at].1))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        ATTRIBUTES.get(usize::try_from(id.get()).ok()?).copied()
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        GROUPS.iter().position(|known| *known == name).map(|at| GroupId::new(at as u64))
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        GROUPS.get(usize::try_from(id.get()).ok()?).copied()
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        ATTRIBUTES.iter().for_each(|(name, _)| visit(name));
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        GROUPS.iter().for_each(|name| visit(name));
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        (name == "nordic").then_some(AudienceId::new(0))
    }

    fn audience_name(&self, id: AudienceId) -> Option<&str> {
        (id.get() == 0).then_some("nordic")
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        static NORDIC: std::sync::OnceLock<Expression> = std::sync::OnceLock::new();
        (id.get() == 0).then(|| {
            NORDIC.get_or_init(|| {
                let source = "country in (\"SE\", \"NO\") or #vip and last_seen within 7d";
                Expression::parse(source, &App, &Limits::default()).expect("it is right")
            })
        })
    }
}

#[derive(Debug, Default)]
pub struct Device {
    pub values: Vec<(AttributeId, Value)>,
    pub groups: Vec<GroupId>,
    pub user: Option<std::sync::Arc<str>>,
    pub last_seen: Option<Time>,
}

impl Profile for Device {
    fn attribute(&self, id: AttributeId) -> Option<&Value> {
        self.values.iter().find(|(known, _)| *known == id).map(|(_, value)| value)
    }

    fn in_group(&self, id: GroupId) -> bool {
        self.groups.contains(&id)
    }

    fn device_id(&self) -> Option<u64> {
        Some(0xab)
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn last_seen(&self) -> Option<Time> {
        self.last_seen
    }
}

impl Columns for Device {
    type Device = Device;

    fn all(&self) -> Cow<'_, RoaringBitmap> {
        Cow::Owned([0].into_iter().collect())
    }

    fn device(&self, _: u32) -> Option<&Device> {
        Some(self)
    }

    fn row(&self, device: u64) -> Option<u32> {
        (device == 0xab).then_some(0)
    }
}

pub fn now() -> Time {
    Time::from_ms(1_795_246_200_000).expect("2026")
}

/// A device whose values bytes choose.
pub fn device(bytes: &mut impl Iterator<Item = u8>) -> Device {
    let mut byte = || bytes.next().unwrap_or(0);
    let mut device = Device::default();
    for (at, (_, kind)) in ATTRIBUTES.iter().enumerate() {
        let choice = byte();
        if choice % 4 == 0 {
            continue;
        }
        let value = match kind {
            Type::String => Value::String(["SE", "NO", "se", "", "Åre"][choice as usize % 5].into()),
            Type::Number => match Number::try_new(f64::from(choice) - 100.0) {
                Some(number) => Value::Number(number),
                None => continue,
            },
            Type::Bool => Value::Bool(choice & 8 == 8),
            Type::Version => Value::Version(carillon_expr::Version::new([2, u32::from(choice), 0, 0])),
            Type::Date => Value::Date(now().date()),
            Type::Time => match Time::from_ms(now().ms() - i64::from(choice) * 3_600_000) {
                Some(time) => Value::Time(time),
                None => continue,
            },
            Type::Point => match Point::try_new(f64::from(choice) / 3.0, -f64::from(choice) / 2.0) {
                Some(point) => Value::Point(point),
                None => continue,
            },
            Type::Set => Value::Set(["a", "b", "Å"][..choice as usize % 4].iter().copied().collect()),
        };
        device.values.push((AttributeId::new(at as u64), value));
    }
    let choice = byte();
    device.groups = (0..2).filter(|bit| choice >> bit & 1 == 1).map(GroupId::new).collect();
    device.user = (choice & 4 == 4).then(|| "ann".into());
    device.last_seen = (choice & 8 == 8).then(now);
    device
}

/// Uses an expression in every way; panics if two of them disagree.
pub fn check(source: &str, device: &Device) {
    let _ = complete(source, source.len() / 2, &App, &Limits::default());
    let expression = match Expression::parse(source, &App, &Limits::default()) {
        Ok(expression) => expression,
        Err(faults) => {
            assert!(!faults.render(source).is_empty());
            return;
        }
    };
    for printed in [expression.to_text(&App), expression.to_stored()] {
        let again = Expression::parse(&printed, &App, &Limits::STORED)
            .unwrap_or_else(|faults| panic!("{}", faults.render(&printed)));
        assert_eq!(again, expression);
        assert_eq!(again.to_stored(), expression.to_stored());
    }
    let context = Context::at(now()).for_message(7);
    let truth = expression.evaluate_in(device, &context);
    let (matches, steps) = expression.matches_counted(device, &context);
    assert_eq!(matches, truth == Truth::True);
    assert!(steps <= expression.nodes() as u64);
    assert_eq!(expression.recipients(device, &context).contains(0), matches);
    assert_eq!(expression.excluded(device, &context).contains(0), truth == Truth::False);
    assert_eq!(expression.explain(device, &context, &App).parts[0].truth, truth);
    for dialect in [Dialect::MariaDb, Dialect::Sqlite] {
        let _ = expression.to_sql(dialect, &context);
    }
    if matches {
        let terms = expression.terms();
        let mut found = terms == Terms::Everyone;
        let mut visit = |term: &Term| found |= matches!(&terms, Terms::Any(any) if any.contains(term));
        visit_terms(0xab, device.user.as_ref(), &device.values, &device.groups, &mut visit);
        assert!(found, "{terms:?}");
    }
}
