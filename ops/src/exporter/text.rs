//! From the text of a scrape to numbers with flat names.

use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises while the process runs, from 0.
    Counter,
    Gauge,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// Words with dots between: prefix, name, and each label with its value.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) value: f64,
}

/// The counters and gauges of a text in the format of OpenMetrics, and of histograms their count and sum.
pub(super) fn samples(text: &str, prefix: &str) -> Vec<Sample> {
    let mut kinds: HashMap<&str, &str> = HashMap::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(of) = line.strip_prefix("# TYPE ") {
            kinds.extend(of.split_once(' '));
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let name_ends = line.find(['{', ' ']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_ends);
        let family = |suffix: &str, of: &str| {
            name.strip_suffix(suffix).is_some_and(|family| kinds.get(family) == Some(&of))
        };
        let kind = if kinds.get(name) == Some(&"gauge") {
            Kind::Gauge
        } else if family("_total", "counter")
            || family("_count", "histogram")
            || family("_sum", "histogram")
        {
            Kind::Counter
        } else {
            continue;
        };
        let mut flat = format!("{prefix}.{}", word(name));
        let Some(value) = labels(rest, &mut flat) else { continue };
        let value = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok());
        if let Some(value) = value.filter(|value| value.is_finite()) {
            samples.push(Sample { name: flat, kind, value });
        }
    }
    samples
}

/// Appends labels, and gives what comes after them; `None` if they do not end.
fn labels<'a>(text: &'a str, flat: &mut String) -> Option<&'a str> {
    let Some(mut rest) = text.strip_prefix('{') else { return Some(text) };
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (label, value) = rest.split_once("=\"")?;
        let mut chars = value.char_indices();
        let mut text = String::new();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => text.extend(chars.next().map(|(_, escaped)| escaped)),
                (_, other) => text.push(other),
            }
        };
        flat.push('.');
        *flat += &word(label.trim_start_matches(','));
        flat.push('.');
        *flat += &word(&text);
        rest = &value[end + 1..];
    }
}

/// A part of a name: letters, digits, hyphens and underscores, at least one.
pub(super) fn word(text: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let word: String = text.chars().map(known).collect();
    if word.is_empty() { "_".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_words_and_histograms_their_count_and_sum() {
        let text = "# HELP a_b Help.\n# TYPE a_b counter\n\
            a_b_total{status=\"Success\",reason=\"no \\\"such\\\" {device}, x\"} 5\na_b_total{status=\"\"} 1\n\
            # HELP c_bytes C.\n# TYPE c_bytes gauge\n# UNIT c_bytes bytes\nc_bytes -1.5\n\
            # HELP h_seconds H.\n# TYPE h_seconds histogram\nh_seconds_sum 0.25\nh_seconds_count 2\n\
            h_seconds_bucket{le=\"+Inf\"} 2\n# TYPE n gauge\nn NaN\nunknown 3\n# EOF\n";
        let of = |name: &str, kind, value| Sample { name: name.to_owned(), kind, value };
        assert_eq!(
            samples(text, "p.q"),
            [
                of("p.q.a_b_total.status.Success.reason.no__such___device___x", Kind::Counter, 5.0),
                of("p.q.a_b_total.status._", Kind::Counter, 1.0),
                of("p.q.c_bytes", Kind::Gauge, -1.5),
                of("p.q.h_seconds_sum", Kind::Counter, 0.25),
                of("p.q.h_seconds_count", Kind::Counter, 2.0),
            ]
        );
    }
}
