//! Recipient expressions as callers write them.

use carillon_expr::{AudienceId, Diagnostics, Expression, Limits, Schema};
use carillon_world::{Millis, World};

use super::problem::{self, Problem};

/// # Errors
/// All that is wrong with the text.
pub fn read(text: &str, schema: &dyn Schema, limits: &Limits) -> Result<Expression, Problem> {
    judge(text, Expression::parse(text, schema, limits))
}

/// As [`read`], for what the audience `id` stands for.
///
/// # Errors
/// As [`read`], and for an audience that would refer to itself.
pub fn read_audience(
    id: AudienceId,
    text: &str,
    schema: &dyn Schema,
    limits: &Limits,
) -> Result<Expression, Problem> {
    judge(text, Expression::parse_audience(id, text, schema, limits))
}

fn judge(text: &str, parsed: Result<Expression, Diagnostics>) -> Result<Expression, Problem> {
    parsed.map_err(|errors| problem::bad_expression(text, &errors))
}

/// The clock by which an expression is judged that is asked about at `now`. While the world's clock runs it is that,
/// which is the edges'; while it stands nothing is judged by it, and `now` is what it will be brought up to when a
/// message that looks at it is saved.
pub fn clock(world: &World, now: Millis) -> Millis {
    if world.follows_clock() { world.clock() } else { now.max(world.clock()) }
}

#[cfg(test)]
mod tests {
    use carillon_expr::{AttributeId, GroupId, Type};

    use super::*;

    /// `@in` is everyone, `@out` is `@in`.
    #[derive(Debug, Default)]
    struct Audiences(Option<(Expression, Expression)>);

    impl Audiences {
        fn new() -> Audiences {
            let inner = Expression::everyone();
            let outer = Audiences(Some((inner.clone(), inner.clone())));
            let parsed = Expression::parse("@in", &outer, &Limits::default()).unwrap();
            Audiences(Some((inner, parsed)))
        }
    }

    impl Schema for Audiences {
        fn attribute(&self, _: &str) -> Option<(AttributeId, Type)> {
            None
        }
        fn attribute_name(&self, _: AttributeId) -> Option<(&str, Type)> {
            None
        }
        fn group(&self, _: &str) -> Option<GroupId> {
            None
        }
        fn group_name(&self, _: GroupId) -> Option<&str> {
            None
        }
        fn visit_attribute_names(&self, _: &mut dyn FnMut(&str)) {}
        fn visit_group_names(&self, _: &mut dyn FnMut(&str)) {}
        fn audience(&self, name: &str) -> Option<AudienceId> {
            ["in", "out"]
                .iter()
                .position(|known| *known == name)
                .map(|at| AudienceId::new(at as u64))
        }
        fn audience_name(&self, id: AudienceId) -> Option<&str> {
            Some(if id.get() == 0 { "in" } else { "out" })
        }
        fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
            let (inner, outer) = self.0.as_ref()?;
            Some(if id.get() == 0 { inner } else { outer })
        }
    }

    fn kind(text: &str, limits: Limits) -> Option<String> {
        let refused = read(text, &Audiences::new(), &limits).err()?;
        assert_eq!((refused.status, refused.code.as_str()), (422, "bad-expression"));
        let extra: serde_json::Value = serde_json::from_str(&refused.extra.unwrap()).unwrap();
        extra["errors"][0]["kind"].as_str().map(str::to_owned)
    }

    #[test]
    fn each_limit_has_its_own_error_and_what_fits_is_taken() {
        let text = "not (all or @out)";
        let limits = Limits { bytes_max: 17, nodes_max: 6, depth_max: 2, audience_depth_max: 2 };
        assert_eq!(kind(text, limits), None);
        assert_eq!(kind(text, Limits { bytes_max: 16, ..limits }).as_deref(), Some("too_long"));
        assert_eq!(
            kind(text, Limits { nodes_max: 5, ..limits }).as_deref(),
            Some("too_many_nodes")
        );
        assert_eq!(kind(text, Limits { depth_max: 1, ..limits }).as_deref(), Some("too_deep"));
        let shallow = Limits { audience_depth_max: 1, ..limits };
        assert_eq!(kind(text, shallow).as_deref(), Some("audience_too_deep"));
    }

    #[test]
    fn an_error_points_at_bytes_and_at_utf_16() {
        let refused = read("/* é😀 */ nobody", &Audiences::new(), &Limits::default()).unwrap_err();
        let extra: serde_json::Value = serde_json::from_str(&refused.extra.unwrap()).unwrap();
        let error = &extra["errors"][0];
        assert_eq!(error["span"], serde_json::json!({"start": 13, "end": 19}));
        assert_eq!(error["span_utf16"], serde_json::json!({"start": 10, "end": 16}));
        assert_eq!((&error["line"], &error["column"]), (&1.into(), &10.into()));
    }
}
