//! Texts that nobody wrote on purpose.

use proptest::prelude::*;

use super::{App, context};
use crate::{Expression, Limits, complete};

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed_or_refused_without_panic(source in any::<String>(), cursor in 0_usize..40) {
        if let Err(faults) = Expression::parse(&source, &App, &Limits::default()) {
            prop_assert!(!faults.render(&source).is_empty());
        }
        let completion = complete(&source, cursor, &App, &Limits::default());
        prop_assert!(source.get(completion.span).is_some());
    }

    #[test]
    fn any_mix_of_tokens_is_parsed_or_refused_without_panic(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "and", "or", "not", "in", "has", "all", "(", ")", ",", "#vip", "#", ":", "country",
            "age", "premium", "\"SE\"", "'", "3", "-", "v2.3", "==", "<", "=", "!", "&&", "\\", "\n",
            "“", "1.2.3", "@nordic", "@", "user", "last_seen", "within", "7d", "next", "now", "tags", "any",
            "between", "home", "near", "sample", "10%", "local_time", "utc_offset", "09:00", "mon",
            "ignoring", "case", "matches", "contains", "//", "/*", "*/", "2026-11-21", "birthday",
            "signed_up", "device", "5km", "=>", "AND", "59.3",
        ]), 0..14),
        spaced in any::<bool>(),
    ) {
        let source = tokens.join(if spaced { " " } else { "" });
        match Expression::parse(&source, &App, &Limits::default()) {
            Ok(expression) => {
                let again = Expression::parse(&expression.to_text(&App), &App, &Limits::STORED);
                prop_assert_eq!(again.unwrap(), expression.clone());
                let _ = expression.explain(&super::Device::default(), &context(), &App).to_string();
            }
            Err(faults) => {
                for fault in &faults {
                    prop_assert!(source.get(fault.span.clone()).is_some());
                    prop_assert!(!fault.render(&source).is_empty());
                    let utf16: Vec<u16> = source.encode_utf16().collect();
                    let marked = String::from_utf16(&utf16[fault.span_utf16.clone()]).unwrap();
                    prop_assert_eq!(&marked, &source[fault.span.clone()]);
                }
            }
        }
        let completion = complete(&source, source.len(), &App, &Limits::default());
        prop_assert!(source.get(completion.span).is_some());
    }
}
