//! Names and ids, resolved to ids.

use super::Parser;
use super::token::Token;
use super::wanted::{Wanted, a};
use crate::check::NameKind;
use crate::diagnostic::{DiagnosticKind, excerpt};
use crate::{AttributeId, AudienceId, GroupId, Type, is_reserved};

impl<'a> Parser<'a> {
    pub(super) fn attribute(&mut self, token: Token) -> Option<(AttributeId, Type, &'a str)> {
        let source = self.source(token);
        let schema = self.schema;
        if let Some(digits) = source.strip_prefix(':') {
            let id = digits.parse().ok()?;
            if let Some((name, kind)) = schema.attribute_name(id) {
                return Some((id, kind, name));
            }
            let message = format!("there is no attribute with the id {id}");
            self.faults.add(DiagnosticKind::UnknownAttribute, token.span(), message, None);
            return None;
        }
        if let Some((id, kind)) = schema.attribute(source) {
            return Some((id, kind, source));
        }
        if is_reserved(source) {
            self.expected(token, Wanted::Attribute(None));
            return None;
        }
        let suggestion = self.near_name(NameKind::Attribute, source);
        let message = format!("unknown attribute `{}`", excerpt(source));
        self.faults.add(DiagnosticKind::UnknownAttribute, token.span(), message, suggestion);
        None
    }

    /// An attribute that must have a type.
    pub(super) fn attribute_of(&mut self, token: Token, wanted: Type) -> Option<AttributeId> {
        let (id, kind, name) = self.attribute(token)?;
        if kind == wanted {
            return Some(id);
        }
        let message =
            format!("expected {}, and {name} is {}", Wanted::Attribute(Some(wanted)), a(kind));
        self.faults.add(DiagnosticKind::WrongType, token.span(), message, None);
        None
    }

    pub(super) fn group(&mut self, token: Token) -> Option<GroupId> {
        let name = &self.source(token)[1..];
        if let Some(digits) = name.strip_prefix(':') {
            let id = digits.parse().ok()?;
            if self.schema.group_name(id).is_some() {
                return Some(id);
            }
            let message = format!("there is no group with the id {id}");
            self.faults.add(DiagnosticKind::UnknownGroup, token.span(), message, None);
            return None;
        }
        let found = self.schema.group(name);
        if found.is_none() {
            let suggestion = self.near_name(NameKind::Group, name).map(|near| format!("#{near}"));
            let message = format!("unknown group `#{}`", excerpt(name));
            self.faults.add(DiagnosticKind::UnknownGroup, token.span(), message, suggestion);
        }
        found
    }

    pub(super) fn audience(&mut self, token: Token) -> Option<AudienceId> {
        let name = &self.source(token)[1..];
        let schema = self.schema;
        let unknown = DiagnosticKind::UnknownAudience;
        let id = match name.strip_prefix(':') {
            Some(digits) => digits.parse().ok(),
            None => schema.audience(name),
        };
        let Some(id) = id else {
            let suggestion =
                self.near_name(NameKind::Audience, name).map(|near| format!("@{near}"));
            let message = format!("unknown audience `@{}`", excerpt(name));
            self.faults.add(unknown, token.span(), message, suggestion);
            return None;
        };
        if self.audiences.contains_key(&id) {
            return Some(id);
        }
        let found = schema.audience_expression(id).cloned();
        let cycle = self.defines == Some(id)
            || self
                .defines
                .zip(found.as_ref())
                .is_some_and(|(own, e)| e.audiences().contains(&own));
        let (kind, message) = match &found {
            _ if cycle => {
                let message = if self.defines == Some(id) {
                    "an audience cannot refer to itself".to_owned()
                } else {
                    format!(
                        "`@{}` refers to the audience that is being written: a cycle",
                        excerpt(name)
                    )
                };
                (DiagnosticKind::AudienceCycle, message)
            }
            None => (unknown, format!("there is no audience with the id {id}")),
            Some(found) if found.audience_depth() >= self.audience_depth_max => {
                let message = format!(
                    "audiences are nested too deep: at most {} within each other",
                    self.audience_depth_max
                );
                (DiagnosticKind::AudienceTooDeep, message)
            }
            Some(found) => {
                self.audiences.insert(id, found.clone());
                return Some(id);
            }
        };
        self.faults.add(kind, token.span(), message, None);
        None
    }

    fn near_name(&mut self, kind: NameKind, name: &str) -> Option<String> {
        if self.faults.is_full() {
            return None;
        }
        self.names.near(self.schema, kind, name)
    }
}
