//! From text to a checked tree.
//!
//! pest cuts the text into tokens (`grammar.pest`); they are put together here with a stack of our own,
//! so that no text can overflow one, and so that a fault ends one condition, not the parse: the parser
//! goes on at the next `and`, `or` or `)` and tells all that is wrong. A tree with a fault is thrown
//! away.

mod literal;
mod name;
mod operand;
mod tail;
mod token;
mod wanted;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::check::{Faults, Names};
use crate::diagnostic::{Diagnostic, DiagnosticKind, Diagnostics, floor_boundary};
use crate::steps::step;
use crate::tree::{Draft, Join, Test};
use crate::{AudienceId, Expression, Schema};

use token::{Token, Word};

pub(crate) use operand::FUNCTIONS;
#[cfg(test)]
pub(crate) use token::token_rules;
pub(crate) use token::{Kind, is_word, tokens};
pub(crate) use wanted::{Slot, Wanted};

/// The deepest nesting that any configuration allows. Nothing recurses over a tree; this bounds what
/// people and databases have to read.
const DEPTH_CEILING: usize = 512;

/// The most distinct operators and tests that any configuration allows; an evaluation keeps a bit
/// on its stack for some of them.
const NODES_CEILING: usize = 65_536;

/// The longest text that any configuration allows; places in it are 32 bits.
const BYTES_CEILING: usize = 1 << 30;

/// What one text may cost. Each limit has its own error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the text.
    pub bytes_max: usize,
    /// Operators, tests and list entries ([`Expression::nodes`]), with those of the audiences that are
    /// referred to, each of which counts once.
    pub nodes_max: usize,
    /// Parentheses and `not` that are open at one place; above 512 it counts as 512.
    pub depth_max: usize,
    /// Audiences that refer to audiences.
    pub audience_depth_max: usize,
}

impl Limits {
    /// For what [`Expression::to_stored`] printed: its size was bounded when it was first written,
    /// but ids may be longer than names, and an operator may have lowered the limits since.
    pub const STORED: Self = Self {
        bytes_max: usize::MAX,
        nodes_max: usize::MAX,
        depth_max: DEPTH_CEILING,
        audience_depth_max: usize::MAX,
    };
}

/// 64 KiB, 16,384 nodes, depth 256, audiences 16 deep.
impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 64 * 1024, nodes_max: 16_384, depth_max: 256, audience_depth_max: 16 }
    }
}

impl Expression {
    /// Reads and checks a text against the declared names. Names and ids
    /// (`:00000000000000ab`, `#:00000000000000ab`, `@:00000000000000ab`) may be mixed.
    ///
    /// # Errors
    /// All that is wrong with the syntax, the names, the types and the ranges, up to 100 faults; only a
    /// text that is too long or too deep ends the reading at once.
    pub fn parse(text: &str, schema: &dyn Schema, limits: &Limits) -> Result<Self, Diagnostics> {
        Self::read(text, schema, limits, None).0
    }

    /// Reads what the audience `id` shall stand for; it may not refer to itself, however indirectly.
    ///
    /// # Errors
    /// As [`Expression::parse`], and for a cycle.
    pub fn parse_audience(
        id: AudienceId,
        text: &str,
        schema: &dyn Schema,
        limits: &Limits,
    ) -> Result<Self, Diagnostics> {
        Self::read(text, schema, limits, Some(id)).0
    }

    /// As [`Expression::parse`], with the steps that it took, for tests of their number: tokens, their
    /// looks ahead, and nodes.
    #[doc(hidden)]
    pub fn parse_counted(
        text: &str,
        schema: &dyn Schema,
        limits: &Limits,
    ) -> (Result<Self, Diagnostics>, u64) {
        Self::read(text, schema, limits, None)
    }

    fn read(
        text: &str,
        schema: &dyn Schema,
        limits: &Limits,
        defines: Option<AudienceId>,
    ) -> (Result<Self, Diagnostics>, u64) {
        let bytes_max = limits.bytes_max.min(BYTES_CEILING);
        if text.len() > bytes_max {
            let span = floor_boundary(text, bytes_max)..text.len();
            let message =
                format!("the expression is too long: {} bytes, at most {bytes_max}", text.len());
            let fault = Diagnostic::new(DiagnosticKind::TooLong, text, span, message);
            return (Err(fault.into()), 0);
        }
        let mut parser = Parser::new(text, schema, limits, defines);
        let root = parser.run();
        let steps = parser.steps;
        (parser.finish(root, limits), steps)
    }
}

/// Reads one text. The methods that read conditions are in `operand.rs`.
pub(crate) struct Parser<'a> {
    text: &'a str,
    schema: &'a dyn Schema,
    /// The last one is the end.
    tokens: Vec<Token>,
    /// The next token.
    at: usize,
    steps: u64,
    depth_max: usize,
    /// Open parentheses and pending `not`s, in all frames.
    depth: usize,
    audience_depth_max: usize,
    defines: Option<AudienceId>,
    draft: Draft,
    audiences: BTreeMap<AudienceId, Expression>,
    faults: Faults<'a>,
    names: Names,
    /// Whether the list or the arguments of the present condition are open.
    inside: bool,
    /// What may stand at the end of the text.
    wanted: Vec<Wanted>,
    /// Whether the text ended where more was expected: what is wanted after that is not wanted here.
    ended: bool,
}

/// What stands between one pair of parentheses, as far as it is read.
#[derive(Default)]
struct Frame {
    /// Where the parenthesis stands; empty for the whole text.
    open: Range<usize>,
    /// The `not`s before the operand that comes next, or before this frame's child.
    nots: usize,
    /// Finished operands of `or`.
    ors: Vec<u32>,
    /// Operands of the `and` that is being read.
    ands: Vec<u32>,
}

impl Frame {
    fn close_and(&mut self, draft: &mut Draft) {
        let operand = draft.chain(Join::And, std::mem::take(&mut self.ands));
        self.ors.push(operand);
    }

    fn finish(mut self, draft: &mut Draft) -> u32 {
        self.close_and(draft);
        draft.chain(Join::Or, self.ors)
    }
}

/// The text is nested too deep, and reading it has ended.
struct TooDeep;

impl<'a> Parser<'a> {
    pub(crate) fn new(
        text: &'a str,
        schema: &'a dyn Schema,
        limits: &Limits,
        defines: Option<AudienceId>,
    ) -> Self {
        Self {
            text,
            schema,
            tokens: tokens(text),
            at: 0,
            steps: 0,
            depth_max: limits.depth_max.min(DEPTH_CEILING),
            depth: 0,
            audience_depth_max: limits.audience_depth_max,
            defines,
            draft: Draft::default(),
            audiences: BTreeMap::new(),
            faults: Faults::new(text),
            names: Names::default(),
            inside: false,
            wanted: Vec::new(),
            ended: false,
        }
    }

    /// What may come where the text ends.
    pub(crate) fn wanted_at_end(mut self) -> Vec<Wanted> {
        self.run();
        self.wanted
    }

    fn finish(self, root: Option<u32>, limits: &Limits) -> Result<Expression, Diagnostics> {
        self.faults.finish()?;
        let root = root.expect("what was not read to its end has a fault");
        let tree = self.draft.normalised(root);
        let expression = Expression::compiled(tree, self.audiences);
        let (nodes, nodes_max) = (expression.nodes(), limits.nodes_max);
        let distinct = expression.distinct();
        if nodes > nodes_max || distinct > NODES_CEILING {
            let (count, most) =
                if nodes > nodes_max { (nodes, nodes_max) } else { (distinct, NODES_CEILING) };
            let message = format!(
                "the expression has too many nodes (operators, tests and list entries): {count}, at most {most}",
            );
            let kind = DiagnosticKind::TooManyNodes;
            return Err(Diagnostic::new(kind, self.text, 0..self.text.len(), message).into());
        }
        Ok(expression)
    }

    /// The root; `None` after a fault that ended the reading.
    fn run(&mut self) -> Option<u32> {
        let mut frames = vec![Frame::default()];
        let mut operand_next = true;
        loop {
            let token = self.peek();
            let frame = frames.last_mut().expect("the outermost frame is never closed");
            if operand_next {
                self.want(Wanted::Condition);
                match self.prefix(token) {
                    Kind::Open => {
                        self.descend(token).ok()?;
                        frames.push(Frame { open: token.span(), ..Frame::default() });
                    }
                    Kind::Word(Word::Not) => {
                        self.descend(token).ok()?;
                        frame.nots += 1;
                    }
                    _ => {
                        let node = self.operand().unwrap_or_else(|| self.placeholder());
                        self.take_operand(frame, node);
                        operand_next = false;
                    }
                }
                continue;
            }
            self.want(Wanted::Joint);
            match self.joint(token) {
                Some(Join::And) => {
                    self.at += 1;
                    operand_next = true;
                }
                Some(Join::Or) => {
                    self.at += 1;
                    frame.close_and(&mut self.draft);
                    operand_next = true;
                }
                None => match token.kind {
                    Kind::End => break,
                    Kind::Close if frames.len() == 1 => {
                        self.syntax(token, "this `)` closes nothing");
                        self.at += 1;
                    }
                    Kind::Close => {
                        self.at += 1;
                        self.depth -= 1;
                        let inner = frames.pop().unwrap_or_default();
                        let outer = frames.last_mut()?;
                        let node = inner.finish(&mut self.draft);
                        self.take_operand(outer, node);
                    }
                    _ => {
                        self.expected(token, Wanted::Joint);
                        // As if `and` stood there, so that what follows is checked too.
                        operand_next = token.begins_operand();
                        if !operand_next {
                            self.skip_to_joint();
                        }
                    }
                },
            }
        }
        let innermost = frames.pop()?;
        if !frames.is_empty() {
            let message = "this `(` is never closed".to_owned();
            self.faults.add(DiagnosticKind::Syntax, innermost.open, message, None);
            return None;
        }
        Some(innermost.finish(&mut self.draft))
    }

    /// The token that is next. Tokens are only ever taken in order, so the number of looks is the
    /// number of steps.
    fn peek(&mut self) -> Token {
        step(1);
        self.steps += 1;
        self.tokens[self.at]
    }

    /// The token after the next one.
    fn peek_second(&mut self) -> Token {
        step(1);
        self.steps += 1;
        self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    /// Takes the next token, but never the end.
    fn take(&mut self) -> Token {
        let token = self.peek();
        self.at += usize::from(token.kind != Kind::End);
        token
    }

    fn source(&self, token: Token) -> &'a str {
        &self.text[token.span()]
    }

    fn descend(&mut self, token: Token) -> Result<(), TooDeep> {
        if self.depth == self.depth_max {
            let message = format!(
                "the expression is nested too deep: at most {} parentheses and `not`s within each other",
                self.depth_max
            );
            self.faults.add_always(DiagnosticKind::TooDeep, token.span(), message);
            return Err(TooDeep);
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn take_operand(&mut self, frame: &mut Frame, mut node: u32) {
        let nots = std::mem::take(&mut frame.nots);
        step(nots);
        for _ in 0..nots {
            node = self.draft.not(node);
        }
        self.depth -= nots;
        frame.ands.push(node);
    }

    /// Stands where a fault was, so that the rest can be read.
    fn placeholder(&mut self) -> u32 {
        self.draft.test(Test::Everyone)
    }

    /// What a token is where an operand begins; `NOT` is told of and taken as `not`.
    fn prefix(&mut self, token: Token) -> Kind {
        match token.kind {
            Kind::Operator if self.source(token) == "!" => Kind::Word(Word::Not),
            Kind::Word(Word::Name) if self.shouted(token, &["not"]).is_some() => {
                Kind::Word(Word::Not)
            }
            kind => kind,
        }
    }

    /// The operator that a token is where an operand has ended. Slips are told of and taken as meant.
    fn joint(&mut self, token: Token) -> Option<Join> {
        let join = |text: &str| match text {
            "and" => Join::And,
            _ => Join::Or,
        };
        match (token.kind, self.source(token)) {
            (Kind::Word(Word::And), _) | (Kind::Operator, "&&") => Some(Join::And),
            (Kind::Word(Word::Or), _) | (Kind::Operator, "||") => Some(Join::Or),
            (Kind::Operator, "&") => {
                self.slip(token, "`and` is written `and` or `&&`", "and");
                Some(Join::And)
            }
            (Kind::Operator, "|") => {
                self.slip(token, "`or` is written `or` or `||`", "or");
                Some(Join::Or)
            }
            (Kind::Word(Word::Name), _) => self.shouted(token, &["and", "or"]).map(join),
            _ => None,
        }
    }

    /// A word of the language in upper case, which is a fault, told here. Not if an attribute is
    /// called so.
    fn shouted(&mut self, token: Token, words: &[&'static str]) -> Option<&'static str> {
        let source = self.source(token);
        let word = words.iter().find(|word| word.eq_ignore_ascii_case(source))?;
        if self.schema.attribute(source).is_some() {
            return None;
        }
        self.slip(token, &format!("`{word}` is written in lower case"), word);
        Some(word)
    }

    fn slip(&mut self, token: Token, message: &str, replacement: &str) {
        let replacement = Some(replacement.to_owned());
        self.faults.add(DiagnosticKind::Syntax, token.span(), message.to_owned(), replacement);
    }

    fn syntax(&mut self, token: Token, message: &str) {
        self.faults.add(DiagnosticKind::Syntax, token.span(), message.to_owned(), None);
    }

    /// Goes to the next `and` or `or`, or to the `)` that closes what was open before the present
    /// condition; what is in parentheses opened on the way does not count.
    fn skip_to_joint(&mut self) {
        let mut open = 0_usize;
        loop {
            let token = self.peek();
            match token.kind {
                Kind::End => return,
                Kind::Word(Word::And | Word::Or) if open == 0 => return,
                Kind::Operator if open == 0 && matches!(self.source(token), "&&" | "||") => return,
                Kind::Open => open += 1,
                Kind::Close if open > 0 => open -= 1,
                Kind::Close if self.inside => self.inside = false,
                Kind::Close => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Notes what may come next, if the text ends here.
    fn want(&mut self, wanted: Wanted) {
        if self.at_end() && !self.ended && !self.wanted.contains(&wanted) {
            self.wanted.push(wanted);
        }
    }

    fn at_end(&self) -> bool {
        self.tokens[self.at].kind == Kind::End
    }

    /// A fault: something else should stand at the next token.
    fn expected(&mut self, token: Token, wanted: Wanted) {
        let source = self.source(token);
        self.ended |= token.kind == Kind::End;
        match token.kind {
            Kind::Torn if source.starts_with('/') => {
                self.syntax(token, "this comment is never closed")
            }
            Kind::Torn => self.syntax(token, "this string is never closed"),
            _ => {
                let found = match source {
                    "" => "the end".to_owned(),
                    found => format!("`{}`", crate::diagnostic::excerpt(found)),
                };
                let message = format!("expected {wanted}, found {found}");
                self.faults.add(DiagnosticKind::Syntax, token.span(), message, None);
            }
        }
    }
}
