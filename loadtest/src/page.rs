//! What `mlet-http-get` prints, one line per page, and whether a line is the page that was expected.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> HTTP status line <TAB> page, escaped to one line
//! ```
//!
//! Not here: printing those lines (`mlet-http-get`).
//!
//! Invariant: a page is taken for an endpoint's only if key, address and every byte agree.

use std::collections::HashMap;
use std::net::IpAddr;

/// One line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PageLine {
    address: String,
    status: String,
    page: String,
}

/// All that the mlets of one run printed.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    by_key: HashMap<String, Vec<PageLine>>,
    strays: Vec<String>,
}

/// What the mlet of one endpoint should have printed.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Hexadecimal key id of the endpoint.
    pub(crate) key: String,
    /// The endpoint's address.
    pub(crate) address: IpAddr,
    /// The page made for that address.
    pub(crate) page: String,
}

impl Pages {
    /// Sorts `lines` by endpoint key.
    pub(crate) fn parse(lines: &[String]) -> Self {
        let mut pages = Self::default();
        for line in lines {
            let fields: Vec<&str> = line.splitn(4, '\t').collect();
            if let [key, address, status, page] = fields[..] {
                pages.by_key.entry(key.to_owned()).or_default().push(PageLine {
                    address: address.to_owned(),
                    status: status.to_owned(),
                    page: page.to_owned(),
                });
            } else {
                pages.strays.push(line.clone());
            }
        }
        pages
    }

    /// Takes the pages of one endpoint out and judges them; the error is the reason, for people.
    pub(crate) fn take(&mut self, expected: &Expected) -> Result<(), String> {
        let lines = self.by_key.remove(&expected.key).unwrap_or_default();
        let [line] = &lines[..] else {
            return Err(match lines.len() {
                0 => "no page".to_owned(),
                count => format!("{count} pages instead of one"),
            });
        };
        if line.address != expected.address.to_string() {
            return Err(format!("its mlet was told the address {}", line.address));
        }
        if !line.status.contains(" 200 ") {
            return Err(format!("the server answered \"{}\"", line.status));
        }
        if line.page != expected.page.as_bytes().escape_ascii().to_string() {
            return Err(format!("another page: \"{}\"", line.page));
        }
        Ok(())
    }

    /// What is left: lines that are no pages, and pages of no known endpoint.
    pub(crate) fn into_strays(self) -> Vec<String> {
        let unknown = self.by_key.into_iter().flat_map(|(key, lines)| {
            lines.into_iter().map(move |line| format!("page of unknown key {key}: {}", line.page))
        });
        self.strays.into_iter().chain(unknown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            key: "aa".to_owned(),
            address: IpAddr::from([127, 1, 0, 1]),
            page: "page \"x\"\n".to_owned(),
        }
    }

    fn judge(lines: &[&str]) -> Result<(), String> {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        Pages::parse(&lines).take(&expected())
    }

    #[test]
    fn a_page_is_right_only_if_key_address_status_and_text_agree() {
        let right = r#"aa	127.1.0.1	HTTP/1.0 200 OK	page \"x\"\n"#;
        assert_eq!(judge(&[right]), Ok(()));
        assert_eq!(judge(&[]), Err("no page".to_owned()));
        assert_eq!(judge(&[right, right]), Err("2 pages instead of one".to_owned()));
        for (from, to, reason) in [
            ("127.1.0.1", "127.1.0.2", "127.1.0.2"),
            ("aa\t", "bb\t", "no page"),
            ("200 OK", "404 Not Found", "404"),
            ("x", "y", "another page"),
        ] {
            let error = judge(&[&right.replace(from, to)]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_belongs_to_no_endpoint_is_left_over() {
        let lines = ["hello".to_owned(), "cc\t127.1.0.1\tHTTP/1.0 200 OK\tpage".to_owned()];
        let mut pages = Pages::parse(&lines);
        assert!(pages.take(&expected()).is_err());
        assert_eq!(pages.into_strays(), ["hello", "page of unknown key cc: page"]);
    }
}
