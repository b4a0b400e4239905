//! Whoever watches a run: the events that its page is told, as they come.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::manager::PATIENCE;

/// The stream of events of a page.
pub struct Watching(BufReader<TcpStream>);

impl Watching {
    /// Begins to watch the run that is told here.
    pub fn begin(address: SocketAddr) -> Self {
        Self::try_begin(address).expect("a place")
    }

    /// The same; nothing if there is no place.
    pub fn try_begin(address: SocketAddr) -> Option<Self> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Without the lengths of parts between, which HTTP/1.1 has.
        stream.write_all(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut watching = Self(BufReader::new(stream));
        let status = watching.line();
        while !watching.line().is_empty() {}
        match status.split(' ').nth(1).unwrap() {
            "200" => Some(watching),
            other => {
                assert_eq!(other, "503");
                None
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event, by its name; nothing behind the last.
    pub fn next(&mut self) -> Option<(String, Value)> {
        let name = self.line();
        let name = name.strip_prefix("event: ")?.to_owned();
        let data = self.line();
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(self.line(), "");
        Some((name, data))
    }

    /// The first event of which this is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..PATIENCE.as_secs() {
            let (_, told) = self.next().unwrap_or_else(|| panic!("{what}: it is over"));
            if is_so(&told) {
                return told;
            }
        }
        panic!("{what}: it is not so");
    }

    /// The last event, behind which nothing comes.
    #[track_caller]
    pub fn last(&mut self) -> Value {
        for _ in 0..PATIENCE.as_secs() {
            let (name, told) = self.next().expect("a last event");
            if name == "end" {
                assert!(self.next().is_none());
                return told;
            }
        }
        panic!("it is not over");
    }
}
