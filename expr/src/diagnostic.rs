//! What is wrong with an expression, told so that the writer can mend it.
//!
//! A diagnostic points at bytes, for programs, and at line and column, for people. Its text never
//! repeats more of the source than fits a line, and shows no control character.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Padding, Renderer, Snippet};

/// The most diagnostics for one text; what comes after them is not reported.
pub(crate) const DIAGNOSTICS_MAX: usize = 100;

/// The most characters of a source line that are handed to the library, which shows what fits a
/// terminal of it. A line of 64 KiB is cut before.
const SHOWN_MAX: usize = 2_000;

/// Characters kept before the fault when a line has to be cut.
const SHOWN_BEFORE: usize = 500;

/// What stands for the name of a file.
const PATH: &str = "expression";

/// The most characters of source that a message quotes.
const QUOTED_MAX: usize = 40;

/// What sort of fault it is. The list may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// The text is no expression.
    Syntax,
    /// No such attribute is declared.
    UnknownAttribute,
    /// No such group exists.
    UnknownGroup,
    /// No such audience exists.
    UnknownAudience,
    /// An audience would refer to itself.
    AudienceCycle,
    /// Audiences are nested deeper than [`Limits::audience_depth_max`](crate::Limits).
    AudienceTooDeep,
    /// A value or an operator does not fit the type of the attribute.
    WrongType,
    /// A number, a date, a duration or the like cannot be held.
    NumberOutOfRange,
    /// Nothing lies between the two ends.
    EmptyRange,
    /// A pattern of `matches` is too long or ends too soon.
    BadPattern,
    /// More bytes than [`Limits::bytes_max`](crate::Limits).
    TooLong,
    /// More nodes than [`Limits::nodes_max`](crate::Limits).
    TooManyNodes,
    /// Deeper than [`Limits::depth_max`](crate::Limits).
    TooDeep,
}

impl DiagnosticKind {
    /// A stable word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnknownAttribute => "unknown_attribute",
            Self::UnknownGroup => "unknown_group",
            Self::UnknownAudience => "unknown_audience",
            Self::AudienceCycle => "audience_cycle",
            Self::AudienceTooDeep => "audience_too_deep",
            Self::WrongType => "wrong_type",
            Self::NumberOutOfRange => "number_out_of_range",
            Self::EmptyRange => "empty_range",
            Self::BadPattern => "bad_pattern",
            Self::TooLong => "too_long",
            Self::TooManyNodes => "too_many_nodes",
            Self::TooDeep => "too_deep",
        }
    }
}

impl fmt::Display for DiagnosticKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One fault of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    pub kind: DiagnosticKind,
    /// One sentence in lower case, without full stop.
    pub message: String,
    /// Where, in bytes of the source; empty at the end of the text.
    pub span: Range<usize>,
    /// The same in UTF-16 code units, as browsers and most editors count.
    pub span_utf16: Range<usize>,
    /// The line where the span begins, from 1.
    pub line: usize,
    /// The column where the span begins, from 1, in characters.
    pub column: usize,
    /// What to write in place of the span.
    pub suggestion: Option<String>,
}

impl Diagnostic {
    /// `span` lies in `source`, at boundaries of characters.
    pub(crate) fn new(
        kind: DiagnosticKind,
        source: &str,
        span: Range<usize>,
        message: String,
    ) -> Self {
        let before = &source[..span.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        let start = utf16_len(before);
        let span_utf16 = start..start + utf16_len(&source[span.clone()]);
        Self { kind, message, span, span_utf16, line, column, suggestion: None }
    }

    pub(crate) fn suggest(mut self, replacement: Option<String>) -> Self {
        self.suggestion = replacement;
        self
    }

    /// Plain text of several lines: the message, the place, the source line with carets below the
    /// fault, and the suggestion. `source` is the text that was parsed; with another one the
    /// excerpt is merely useless.
    #[must_use]
    pub fn render(&self, source: &str) -> String {
        self.render_with(source, &Renderer::plain())
    }

    /// The same in the colours of a terminal.
    #[must_use]
    pub fn render_coloured(&self, source: &str) -> String {
        self.render_with(source, &Renderer::styled())
    }

    fn render_with(&self, source: &str, renderer: &Renderer) -> String {
        let start = floor_boundary(source, self.span.start);
        let end = floor_boundary(source, self.span.end).max(start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);

        // The library shows lines; one of 64 KiB would be no help, so it gets a piece.
        let before = &source[line_start..start];
        let skipped = if source[line_start..line_end].chars().nth(SHOWN_MAX).is_none() {
            0
        } else {
            before.chars().count().saturating_sub(SHOWN_BEFORE)
        };
        let lead = if skipped > 0 { "…" } else { "" };
        let from = line_start + before.chars().take(skipped).map(char::len_utf8).sum::<usize>();
        let mut shown = lead.to_owned();
        // The marks are placed in the text that is shown, where a character may take other bytes.
        let (mut mark_start, mut mark_end) = (shown.len(), shown.len());
        let mut cut = false;
        for (count, (at, c)) in source[from..line_end].char_indices().enumerate() {
            if count == SHOWN_MAX {
                cut = true;
                break;
            }
            if from + at <= start {
                mark_start = shown.len();
            }
            shown.push(visible(c));
            if from + at < start {
                mark_start = shown.len();
            }
            if from + at < end {
                mark_end = shown.len();
            }
        }
        if cut {
            shown.push('…');
        }
        let mark = mark_start..mark_end.max(mark_start);

        let snippet = Snippet::source(shown.as_str())
            .line_start(self.line)
            .fold(false)
            .annotation(AnnotationKind::Primary.span(mark));
        let title = Level::ERROR.primary_title(self.message.as_str());
        let mut group = if skipped == 0 {
            title.element(snippet.path(PATH))
        } else {
            // The library counts columns in what it is shown.
            let origin = Origin::path(PATH).line(self.line).char_column(self.column);
            title.element(origin).element(snippet)
        };
        let help;
        if let Some(suggestion) = &self.suggestion {
            help = format!("did you mean `{}`?", suggestion.replace(char::is_control, " "));
            group = group.element(Padding).element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group]) + "\n"
    }
}

/// One line: place, message, suggestion.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a text, in order of place; at least one, at most 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// # Panics
    /// If there is none.
    pub(crate) fn new(mut diagnostics: Vec<Diagnostic>) -> Self {
        assert!(!diagnostics.is_empty(), "an error names at least one fault");
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        diagnostics.truncate(DIAGNOSTICS_MAX);
        Self(diagnostics)
    }

    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    #[must_use]
    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.0
    }

    /// Every diagnostic rendered for a terminal, with an empty line between two.
    #[must_use]
    pub fn render_coloured(&self, source: &str) -> String {
        let rendered: Vec<_> =
            self.0.iter().map(|diagnostic| diagnostic.render_coloured(source)).collect();
        rendered.join("\n")
    }

    /// Every diagnostic rendered, with an empty line between two.
    #[must_use]
    pub fn render(&self, source: &str) -> String {
        let rendered: Vec<_> = self.0.iter().map(|diagnostic| diagnostic.render(source)).collect();
        rendered.join("\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A piece of source for a message: cut to a few words, without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_MAX).map(visible).collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

pub(crate) fn floor_boundary(text: &str, index: usize) -> usize {
    let mut at = index.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// How many UTF-16 code units a text takes.
pub(crate) fn utf16_len(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}
