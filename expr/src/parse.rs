//! From text to a checked tree.
//!
//! The grammar (`grammar.pest`) is flat: it yields tokens, and the tree is built here with a stack of
//! our own. pest would recurse once a parenthesis, and its guards against that are global to the
//! process; this way neither the parser nor the builder has a stack to overflow, and parentheses get
//! better messages. The depth limit bounds the tree, and so every later walk over it.

use std::ops::Range;

use pest::Parser;
use pest::error::{ErrorVariant, InputLocation};
use pest::iterators::Pair;

use crate::check::Checker;
use crate::diagnostic::{Diagnostic, DiagnosticKind, Diagnostics, excerpt, floor_boundary};
use crate::tree::Node;
use crate::{Expression, Schema};

/// The grammar; pest generates the `Rule` of each line.
mod grammar {
    #[derive(Debug, pest_derive::Parser)]
    #[grammar = "grammar.pest"]
    pub(crate) struct Grammar;
}

use grammar::Grammar;
pub(crate) use grammar::Rule;

/// The deepest nesting that any configuration allows. A tree is at most twice as high, and the walk
/// with the largest frames then stays far below the 2 MiB stack of a thread.
const DEPTH_CEILING: usize = 512;

/// What one text may cost. Each limit has its own error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text.
    pub bytes_max: usize,
    /// Operators, tests and list entries ([`Expression::nodes`]).
    pub nodes_max: usize,
    /// Parentheses and `not` that are open at one place; above 512 it counts as 512.
    pub depth_max: usize,
}

impl Limits {
    /// For what [`Expression::to_stored`] printed: its size was bounded when it was first written,
    /// but ids may be longer than names, and an operator may have lowered the limits since.
    pub const STORED: Self =
        Self { bytes_max: usize::MAX, nodes_max: usize::MAX, depth_max: DEPTH_CEILING };
}

/// 64 KiB, 16,384 nodes, depth 256.
impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 64 * 1024, nodes_max: 16_384, depth_max: 256 }
    }
}

impl Expression {
    /// Reads and checks a text against the declared names. Names and ids
    /// (`:00000000000000ab`, `#:00000000000000ab`) may be mixed.
    ///
    /// # Errors
    /// One diagnostic for a fault of syntax or a limit; otherwise all unknown names, wrong types and
    /// numbers out of range, up to 100.
    pub fn parse(text: &str, schema: &dyn Schema, limits: &Limits) -> Result<Self, Diagnostics> {
        if text.len() > limits.bytes_max {
            let span = floor_boundary(text, limits.bytes_max)..text.len();
            let message = format!(
                "the expression is too long: {} bytes, at most {}",
                text.len(),
                limits.bytes_max
            );
            return Err(Diagnostic::new(DiagnosticKind::TooLong, text, span, message).into());
        }
        let tokens =
            Grammar::parse(Rule::expression, text).map_err(|error| syntax_fault(text, &error))?;
        let mut builder = Builder {
            text,
            depth_max: limits.depth_max.min(DEPTH_CEILING),
            depth: 0,
            frames: Vec::new(),
            frame: Frame::default(),
        };
        let mut checker = Checker::new(text, schema);
        for token in tokens {
            builder.handle_token(token, &mut checker)?;
        }
        let root = builder.finish()?;
        checker.finish()?;
        let expression = Self::from_root(root);
        if expression.nodes() > limits.nodes_max {
            let message = format!(
                "the expression has too many nodes (operators, tests and list entries): {}, at most {}",
                expression.nodes(),
                limits.nodes_max
            );
            let kind = DiagnosticKind::TooManyNodes;
            return Err(Diagnostic::new(kind, text, 0..text.len(), message).into());
        }
        Ok(expression)
    }
}

/// Builds the tree from the tokens, in the order in which they stand.
struct Builder<'a> {
    text: &'a str,
    depth_max: usize,
    /// Open parentheses and pending `not`s, in all frames.
    depth: usize,
    /// The frames around the present one, outermost first.
    frames: Vec<Frame>,
    frame: Frame,
}

/// What stands between one pair of parentheses, as far as it is read.
#[derive(Default)]
struct Frame {
    /// Where the parenthesis stands; empty for the whole text.
    open: Range<usize>,
    /// The `not`s before the operand that comes next, or before this frame's child.
    nots: usize,
    /// Finished operands of `or`.
    ors: Vec<Node>,
    /// Operands of the `and` that is being read.
    ands: Vec<Node>,
}

impl Frame {
    fn close_and(&mut self) {
        let operand = chain(std::mem::take(&mut self.ands), Node::And);
        self.ors.push(operand);
    }

    fn finish(mut self) -> Node {
        self.close_and();
        chain(self.ors, Node::Or)
    }
}

/// The operand itself if it is alone.
fn chain(mut operands: Vec<Node>, join: fn(Vec<Node>) -> Node) -> Node {
    match operands.pop() {
        Some(only) if operands.is_empty() => only,
        Some(last) => {
            operands.push(last);
            join(operands)
        }
        None => unreachable!("the grammar has an operand between two operators"),
    }
}

impl Builder<'_> {
    fn handle_token(
        &mut self,
        token: Pair<'_, Rule>,
        checker: &mut Checker<'_>,
    ) -> Result<(), Diagnostics> {
        let span = token.as_span();
        let span = span.start()..span.end();
        match token.as_rule() {
            Rule::open => {
                self.descend(&span)?;
                let inner = Frame { open: span, ..Frame::default() };
                self.frames.push(std::mem::replace(&mut self.frame, inner));
            }
            Rule::not => {
                self.descend(&span)?;
                self.frame.nots += 1;
            }
            Rule::close => {
                let Some(outer) = self.frames.pop() else {
                    return Err(self.fault(span, "this `)` closes nothing"));
                };
                let inner = std::mem::replace(&mut self.frame, outer);
                self.depth -= 1;
                self.operand(inner.finish());
            }
            Rule::and | Rule::EOI => {}
            Rule::or => self.frame.close_and(),
            _ => {
                let node = checker.operand(token);
                self.operand(node);
            }
        }
        Ok(())
    }

    fn descend(&mut self, span: &Range<usize>) -> Result<(), Diagnostics> {
        if self.depth == self.depth_max {
            let message = format!(
                "the expression is nested too deep: at most {} parentheses and `not`s within each other",
                self.depth_max
            );
            let kind = DiagnosticKind::TooDeep;
            return Err(Diagnostic::new(kind, self.text, span.clone(), message).into());
        }
        self.depth += 1;
        Ok(())
    }

    fn operand(&mut self, mut node: Node) {
        let nots = std::mem::take(&mut self.frame.nots);
        for _ in 0..nots {
            node = Node::Not(Box::new(node));
        }
        self.depth -= nots;
        self.frame.ands.push(node);
    }

    fn finish(self) -> Result<Node, Diagnostics> {
        if self.frames.is_empty() {
            Ok(self.frame.finish())
        } else {
            let open = self.frame.open.clone();
            Err(self.fault(open, "this `(` is never closed"))
        }
    }

    fn fault(&self, span: Range<usize>, message: &str) -> Diagnostics {
        let kind = DiagnosticKind::Syntax;
        Diagnostic::new(kind, self.text, span, message.to_owned()).into()
    }
}

/// Says in a person's words why the grammar stopped.
fn syntax_fault(text: &str, error: &pest::error::Error<Rule>) -> Diagnostics {
    let at = match error.location {
        InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
    };
    let expected = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => expectation(positives),
        ErrorVariant::CustomError { .. } => "something else",
    };
    let found = token_at(text, at);
    let span = at..at + found.len();
    let fault = |span: Range<usize>, message: String, replacement: Option<String>| {
        let fault = Diagnostic::new(DiagnosticKind::Syntax, text, span, message);
        fault.suggest(replacement).into()
    };

    if let Some((span, keyword)) = shouted_keyword(text, at, found) {
        let message = format!("`{keyword}` is written in lower case");
        return fault(span, message, Some(keyword));
    }
    let slip = match found {
        "=" | "===" => Some((span.clone(), "equality is written `==`", "==")),
        "=>" => Some((span.clone(), "at least is written `>=`", ">=")),
        "=<" => Some((span.clone(), "at most is written `<=`", "<=")),
        // `<` was read as the comparison.
        ">" if expected == VALUE && text[..at].ends_with('<') => {
            Some((at - 1..at + 1, "inequality is written `!=`", "!="))
        }
        "&" => Some((span.clone(), "`and` is written `and` or `&&`", "and")),
        "|" => Some((span.clone(), "`or` is written `or` or `||`", "or")),
        _ => None,
    };
    if let Some((span, message, replacement)) = slip {
        return fault(span, message.to_owned(), Some(replacement.to_owned()));
    }
    if found.starts_with(['"', '\'']) && expected == VALUE {
        return fault(span, "this string is never closed".to_owned(), None);
    }
    if found == "#" && expected == CONDITION {
        let message = "expected the name of a group right after `#`".to_owned();
        return fault(span, message, None);
    }
    if found.starts_with(|c: char| matches!(c, '"' | '\'' | '-' | '0'..='9'))
        && expected == CONDITION
    {
        let message = "a comparison begins with an attribute, as in `country == \"SE\"`".to_owned();
        return fault(span, message, None);
    }
    let found = match found {
        "" => "the end".to_owned(),
        found => format!("`{}`", excerpt(found)),
    };
    fault(span, format!("expected {expected}, found {found}"), None)
}

const VALUE: &str = "a value (\"text\", a number, `true`, `false` or a version such as `v2.3`)";
const CONDITION: &str = "a condition such as `country == \"SE\"`, `has country`, `#group` or `all`";

/// What may stand where the grammar stopped, from the rules that it tried there.
fn expectation(tried: &[Rule]) -> &'static str {
    let has = |rule| tried.contains(&rule);
    if has(Rule::string) {
        VALUE
    } else if has(Rule::group) {
        CONDITION
    } else if has(Rule::list) || has(Rule::list_open) {
        "`(` and a list of values"
    } else if has(Rule::comma) || has(Rule::list_close) {
        "`,` or `)`"
    } else if has(Rule::comparison) {
        "a comparison (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`), `and` or `or`"
    } else if has(Rule::and) || has(Rule::or) {
        "`and` or `or`"
    } else if has(Rule::attribute) {
        "the name of an attribute"
    } else if has(Rule::in_word) {
        "`in` after `not`"
    } else {
        CONDITION
    }
}

/// The word, the run of operator characters, the string as far as its line has it, or else the one
/// character at `at`; empty at the end.
fn token_at(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    let length = |accept: fn(char) -> bool| rest.find(|c| !accept(c)).unwrap_or(rest.len());
    match rest.chars().next() {
        None => "",
        Some(quote @ ('"' | '\'')) => {
            let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
            line[1..].find(quote).map_or(line, |end| &line[..end + 2])
        }
        Some(c) if is_word(c) => &rest[..length(is_word)],
        Some('=' | '<' | '>' | '!' | '&' | '|') => {
            &rest[..length(|c| matches!(c, '=' | '<' | '>' | '!' | '&' | '|'))]
        }
        Some(c) => &rest[..c.len_utf8()],
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `AND` at the fault, or `NOT` right before it, where it was read as the name of an attribute.
fn shouted_keyword(text: &str, at: usize, found: &str) -> Option<(Range<usize>, String)> {
    let before = text[..at].trim_end();
    let start = before
        .rfind(|c| !is_word(c))
        .map_or(0, |gap| gap + before[gap..].chars().next().map_or(0, char::len_utf8));
    [(at, found), (start, &before[start..])].into_iter().find_map(|(start, word)| {
        let lower = word.to_lowercase();
        let keyword = ["and", "or", "not", "in", "has", "all"].contains(&lower.as_str());
        (keyword && word != lower).then(|| (start..start + word.len(), lower))
    })
}
