//! Words as a shell reads them.
//!
//! Not here: what is shown to people (`packetlab::escape`). Invariant: a shell makes of the text the very bytes again, and it
//! stands on one line without tabs.

use packetlab::escape::Escaped;

/// One word, quoted where a shell would see anything else in it. What has bytes that are not shown is in the form `$'\377'`,
/// which bash, zsh, ksh and POSIX.1-2024 read.
pub(crate) fn quoted(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(byte);
    match str::from_utf8(word) {
        Ok(text) if !word.is_empty() && word.iter().all(is_plain) => text.into(),
        Ok(text) if Escaped(word).to_string() == text => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => {
            let escaped = word.iter().map(|byte| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                b' '..=b'~' => char::from(*byte).to_string(),
                // Octal has a last digit; what follows \xNN may be taken for one more.
                _ => format!("\\{byte:03o}"),
            });
            format!("$'{}'", escaped.collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_same_bytes_on_one_line() {
        let all: Vec<u8> = (1..=255).collect();
        for word in
            [&b"./mlet"[..], b"", b"a b", b"$(echo x)", b"it's", b"a\nb\t'\\c", b"\xff1", &all]
        {
            let text = quoted(word);
            assert!(!text.contains(['\n', '\t']), "{text}");
            let script = format!("printf %s {text}");
            let shell = Command::new("bash").args(["-c", &script]).env("LC_ALL", "C").output();
            assert_eq!(shell.unwrap().stdout, word, "{text}");
        }
        assert_eq!(quoted(b"./mlet"), "./mlet");
        assert_eq!(quoted("größe 1".as_bytes()), "'größe 1'");
    }
}
