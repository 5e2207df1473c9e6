//! 256 bits as 64 hexadecimal digits, the form of every secret and digest that Carillon writes.

/// Lower case.
pub(crate) fn encode(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` if it is not exactly 64 digits.
pub(crate) fn decode(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_digits_are_taken() {
        let digits = "0f".repeat(32);
        assert_eq!(decode(&digits), Some([0x0f; 32]));
        assert_eq!(encode(&[0x0f; 32]), digits);
        for text in ["", &digits[1..], &format!("{digits}0"), &format!("+f{}", &digits[2..])] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
