#![no_main]
//! Texts of the language's own words against any schema and any limits: what is refused is told rightly, and what
//! is taken refers to what is declared and is within the limits.

mod words;

use carillon_expr::{AttributeId, AudienceId, Expression, GroupId, Limits, Schema, Type, complete};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 9] =
    ["country", "age", "premium", "app_version", "birthday", "signed_up", "home", "interests", "utc_offset"];

/// Bytes say which names are declared, and of what type.
struct App {
    types: [Option<Type>; NAMES.len()],
    groups: bool,
    audience: Option<Expression>,
}

impl Schema for App {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        let at = NAMES.iter().position(|known| *known == name)?;
        Some((AttributeId::new(at as u64), self.types[at]?))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        let at = usize::try_from(id.get()).ok()?;
        Some((NAMES.get(at)?, self.types[at]?))
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        (self.groups && name == "vip").then_some(GroupId::new(1))
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        (self.groups && id.get() == 1).then_some("vip")
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        let declared = NAMES.iter().zip(self.types).filter(|(_, kind)| kind.is_some());
        declared.for_each(|(name, _)| visit(name));
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        if self.groups {
            visit("vip");
        }
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        (name == "nordic").then_some(AudienceId::new(5))
    }

    fn audience_name(&self, id: AudienceId) -> Option<&str> {
        (id.get() == 5).then_some("nordic")
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        self.audience.as_ref().filter(|_| id.get() == 5)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (choices, rest) = bytes.split_at(bytes.len().min(12));
    let mut choices = choices.iter().copied();
    let mut choice = || usize::from(choices.next().unwrap_or(0));
    let types = [(); NAMES.len()].map(|()| Type::ALL.get(choice() % 10).copied());
    let audience = (choice() % 2 == 1).then(Expression::everyone);
    let app = App { types, groups: choice() % 2 == 1, audience };
    let limit = choice() + 1;
    let limits = Limits { bytes_max: 16 * limit, nodes_max: limit, depth_max: limit / 8, ..Limits::default() };
    let text = words::text(rest);
    let (outcome, steps) = Expression::parse_counted(&text, &app, &limits);
    assert!(steps <= 8 * text.len() as u64 + 8, "{steps} steps for {} bytes", text.len());
    let own = Expression::parse_audience(AudienceId::new(5), &text, &app, &limits);
    match outcome {
        Ok(read) => {
            assert!(read.nodes() <= limits.nodes_max, "{} nodes", read.nodes());
            assert!(read.attributes().iter().all(|id| app.attribute_name(*id).is_some()));
            assert!(read.groups().iter().all(|id| app.group_name(*id).is_some()));
            // The audience itself may be all but what names it.
            assert_eq!(own.is_ok(), read.audiences().is_empty());
        }
        Err(faults) => {
            assert!((1..=100).contains(&faults.as_slice().len()));
            let utf16: Vec<u16> = text.encode_utf16().collect();
            for fault in faults.as_slice() {
                let marked = String::from_utf16(&utf16[fault.span_utf16.clone()]).expect("whole characters");
                assert_eq!(marked, text[fault.span.clone()]);
                assert!(fault.line >= 1 && fault.column >= 1);
                assert!(!fault.render(&text).is_empty());
            }
            assert!(own.is_err());
        }
    }
    let completion = complete(&text, text.len(), &app, &limits);
    assert!(text.get(completion.span).is_some());
});
