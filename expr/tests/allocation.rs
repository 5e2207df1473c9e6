//! Evaluation does not allocate. A test of its own, because it replaces the allocator of its process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use carillon_expr::{
    AttributeId, Context, Expression, GroupId, Limits, Number, Point, Profile, Schema, Time, Type,
    Value,
};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "the trait is unsafe; all work is the system allocator's")]
// SAFETY: every call is handed to the system allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` came from the system allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ATTRIBUTES: [(&str, Type); 8] = [
    ("country", Type::String),
    ("age", Type::Number),
    ("premium", Type::Bool),
    ("app_version", Type::Version),
    ("birthday", Type::Date),
    ("signed_up", Type::Time),
    ("home", Type::Point),
    ("tags", Type::Set),
];

struct App;

impl Schema for App {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        let at = ATTRIBUTES.iter().position(|(known, _)| *known == name)?;
        Some((AttributeId::new(at as u64), ATTRIBUTES[at].1))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        ATTRIBUTES.get(usize::try_from(id.get()).ok()?).copied()
    }

    fn group(&self, _: &str) -> Option<GroupId> {
        Some(GroupId::new(1))
    }

    fn group_name(&self, _: GroupId) -> Option<&str> {
        Some("vip")
    }

    fn visit_attribute_names(&self, _: &mut dyn FnMut(&str)) {}

    fn visit_group_names(&self, _: &mut dyn FnMut(&str)) {}
}

struct Device([Value; 8]);

impl Profile for Device {
    fn attribute(&self, id: AttributeId) -> Option<&Value> {
        self.0.get(usize::try_from(id.get()).ok()?)
    }

    fn in_group(&self, _: GroupId) -> bool {
        false
    }

    fn device_id(&self) -> Option<u64> {
        Some(7)
    }

    fn user(&self) -> Option<&str> {
        Some("ann")
    }

    fn last_seen(&self) -> Option<Time> {
        "2026-11-20T00:00:00Z".parse().ok()
    }
}

#[test]
fn evaluation_does_not_allocate() {
    let now: Time = "2026-11-21T07:30:00Z".parse().unwrap();
    let device = Device([
        Value::String("a string that is long enough to be on the heap".into()),
        Value::Number(Number::try_new(60.0).unwrap()),
        Value::Bool(true),
        Value::Version("2.3.1".parse().unwrap()),
        Value::Date(now.date()),
        Value::Time(now),
        Value::Point(Point::try_new(59.33, 18.07).unwrap()),
        Value::Set(["a", "b"].into_iter().collect()),
    ]);
    let context = Context::at(now).for_message(0xfeed);
    let tests = [
        "all",
        "#vip",
        "not #vip",
        "device(0000000000000007, 0000000000000008)",
        "has country",
        "country == \"SE\"",
        "country < \"SE\"",
        "country between \"a\" and \"b\"",
        "country in (\"SE\", \"NO\")",
        "country in (\"SE\", \"NO\") ignoring case",
        "country starts_with \"a S\" ignoring case",
        "country ends_with \"heap\"",
        "country contains \"ENOUGH\" ignoring case",
        "country contains \"enough\"",
        "country matches \"*long*?eno*\" ignoring case",
        "age > 3",
        "age in (1, 2, 60)",
        "premium",
        "app_version >= v2.3",
        "birthday within 7d",
        "birthday == now",
        "signed_up between now - 3d and now + 3d",
        "signed_up within next 3d",
        "near(home, 59.3, 18, 5km)",
        "tags any (\"a\", \"c\")",
        "tags all (\"a\", \"c\")",
        "tags none (\"a\", \"c\")",
        "user in (\"ann\", \"bob\")",
        "user matches \"?nn\"",
        "last_seen within 7d",
        "last_seen > 2026-01-01T00:00:00Z",
        "sample(50%)",
        "sample(50%, \"salt\")",
        "local_time(age) between 22:00 and 06:00",
        "local_day(age) in (sat, sun)",
    ];
    // Parts that are used twice, so that answers are kept: a few, and thousands.
    let shared = |count: usize| {
        let part = |at: usize| format!("(age > {at} or country == \"{at}\")");
        (0..count).map(move |at| format!("({} and #vip or {} and premium)", part(at), part(at)))
    };
    let few = shared(3).collect::<Vec<_>>().join(" and ");
    let many = shared(600).collect::<Vec<_>>().join(" and ");
    let everything = tests.map(|test| format!("not ({test})")).join(" or ");
    let sources = tests.iter().copied().chain([&*few, &*many, &*everything]);
    let expressions: Vec<Expression> = sources
        .map(|source| {
            Expression::parse(source, &App, &Limits::default())
                .unwrap_or_else(|faults| panic!("{}", faults.render(source)))
        })
        .collect();
    for expression in &expressions {
        // The code that tells false from unknown is made when it is first asked for.
        expression.evaluate_in(&device, &context);
        let before = COUNT.with(Cell::get);
        let matches = expression.matches_in(&device, &context);
        let truth = expression.evaluate_in(&device, &context);
        let after = COUNT.with(Cell::get);
        assert_eq!(after, before, "{:.80}", expression.to_text(&App));
        assert_eq!(matches, truth == carillon_expr::Truth::True);
    }
    let before = COUNT.with(Cell::get);
    drop(vec![1]);
    assert!(COUNT.with(Cell::get) > before, "the counter counts");
}
