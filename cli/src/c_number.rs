//! Numbers as C reads them, for what the original read with `strtoumax`.

/// A number as C's `strtoumax` reads it: the value, and what follows it in the text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CNumber<'a> {
    /// The value; 0 if there is no number; the maximum if it is too large. A minus sign negates modulo 2^64.
    pub(crate) value: u64,
    /// What was not read.
    pub(crate) rest: &'a str,
}

/// C's `strtoumax` with this base; 0 chooses by prefix: `0x` hexadecimal, `0` octal, else decimal.
pub(crate) fn c_number(text: &str, base: u32) -> CNumber<'_> {
    let none = CNumber { value: 0, rest: text };
    let unsigned = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, unsigned) = match unsigned.as_bytes().first() {
        Some(b'-') => (true, &unsigned[1..]),
        Some(b'+') => (false, &unsigned[1..]),
        _ => (false, unsigned),
    };
    let hexadecimal = unsigned
        .strip_prefix("0x")
        .or_else(|| unsigned.strip_prefix("0X"))
        .filter(|digits| base == 0 && digits.starts_with(|c: char| c.is_ascii_hexdigit()));
    let (base, digits) = match hexadecimal {
        Some(digits) => (16, digits),
        None if base == 0 && unsigned.starts_with('0') => (8, unsigned),
        None => (if base == 0 { 10 } else { base }, unsigned),
    };
    let end = digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len());
    if end == 0 {
        return none;
    }
    let (digits, rest) = digits.split_at(end);
    let value = match u64::from_str_radix(digits, base) {
        Ok(value) if negative => value.wrapping_neg(),
        Ok(value) => value,
        // Only too many digits can fail here, and C then saturates whatever the sign.
        Err(_) => u64::MAX,
    };
    CNumber { value, rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items 5, 6.
    #[test]
    fn c_numbers_take_prefixes_signs_blanks_and_leave_the_rest() {
        let cases = [
            ("16", 0, 16, ""),
            ("0x10", 0, 16, ""),
            ("0X1f", 0, 31, ""),
            ("010", 0, 8, ""),
            ("0", 0, 0, ""),
            ("08", 0, 0, "8"),
            ("0x", 0, 0, "x"),
            ("0xg", 0, 0, "xg"),
            (" \t+5", 0, 5, ""),
            ("-1", 0, u64::MAX, ""),
            ("-0x2", 0, u64::MAX - 1, ""),
            ("10k", 0, 10, "k"),
            ("1é", 0, 1, "é"),
            ("99999999999999999999", 0, u64::MAX, ""),
            ("-99999999999999999999", 0, u64::MAX, ""),
            ("abc", 0, 0, "abc"),
            ("", 0, 0, ""),
            ("-", 0, 0, "-"),
            ("010", 10, 10, ""),
            ("0x10", 10, 0, "x10"),
        ];
        for (text, base, value, rest) in cases {
            assert_eq!(c_number(text, base), CNumber { value, rest }, "{text:?} base {base}");
        }
    }
}
