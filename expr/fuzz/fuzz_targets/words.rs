//! The language's own words, of which bytes make texts that are nearly right.

const WORDS: &[&str] = &[
    "and", "or", "not", "(", ")", "all", "has", "in", "(", "\"SE\"", ",", "\"NO\"", ")", "#vip", "#staff",
    "@nordic", "country", "age", "premium", "app_version", "birthday", "signed_up", "home", "interests",
    "utc_offset", "user", "last_seen", "==", "!=", "<", "<=", ">", ">=", "between", "starts_with", "ends_with",
    "contains", "matches", "any", "none", "within", "last", "next", "7d", "12h", "now", "-", "+", "near(", "59.3",
    "-18", "5km", "sample(", "10%", "\"salt\"", "device(", "00000000000000ab", "local_time(", "local_day(",
    "09:00", "17:30", "sat", "mon", "ignoring case", "3", "-1.5e2", "true", "false", "v2.3", "2026-11-21",
    "2026-11-21T07:30:00Z", "\"a*?\"", "\"\"", "'Å'", "// x\n", "/* y */", "has country", "age > 3 and",
    "interests any (\"a\")", "country in (\"SE\")", "not (", "signed_up within 7d",
];

pub fn text(bytes: &[u8]) -> String {
    let words: Vec<_> = bytes.iter().map(|byte| WORDS[*byte as usize % WORDS.len()]).collect();
    words.join(" ")
}
