//! Snikeys that nobody can guess.

use aws_lc_rs::rand;

use super::{SNIKEY_LEN_MAX, SniKey, SniKeyError};

pub(super) const SYMBOLS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl SniKey {
    /// A fresh snikey of 63 characters, each uniform over the 36 symbols.
    ///
    /// # Errors
    /// The random generator failed.
    pub fn random() -> Result<Self, SniKeyError> {
        loop {
            // A draw that TLS would refuse is as good as never (1 in 10^35), but must not come out.
            if let Ok(snikey) = Self::parse(&random_text()?) {
                return Ok(snikey);
            }
        }
    }
}

fn random_text() -> Result<String, SniKeyError> {
    // Bytes above the last multiple of 36 are drawn again: a plain remainder would favour some symbols.
    const FAIR: u8 = u8::MAX - u8::MAX % SYMBOLS.len() as u8;
    let mut text = String::with_capacity(SNIKEY_LEN_MAX);
    while text.len() < SNIKEY_LEN_MAX {
        let mut bytes = [0; SNIKEY_LEN_MAX];
        rand::fill(&mut bytes).or(Err(SniKeyError::NoRandomness))?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR);
        let symbols = fair.map(|byte| char::from(SYMBOLS[usize::from(*byte) % SYMBOLS.len()]));
        text.extend(symbols.take(SNIKEY_LEN_MAX - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items 39, 60.
    #[test]
    fn random_snikeys_have_63_characters_of_all_36_symbols_and_differ() {
        let mut counts = [0_u32; 36];
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let snikey = SniKey::random().unwrap();
            assert_eq!(snikey.as_str().len(), 63);
            for c in snikey.as_str().chars() {
                counts[c.to_digit(36).unwrap() as usize] += 1;
            }
            assert!(seen.insert(snikey));
        }
        // 63,000 draws: 1,750 of each symbol, with a standard deviation of 41; eight of them each way.
        assert!(counts.iter().all(|count| (1420..=2080).contains(count)), "{counts:?}");
    }
}
