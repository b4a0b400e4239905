//! The records of sessions that `pktxpmgr --events` writes, as far as figures and judgements are made of them.
//!
//! Not here: which figures. Invariant: what is not known of a line is passed over, so that records may grow.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

/// What one run has written.
#[derive(Debug, Default)]
pub(crate) struct Records {
    sessions: Vec<SessionEnd>,
    pub(crate) shards: Vec<ShardEnd>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "ev")]
enum Line {
    #[serde(rename = "session.end")]
    SessionEnd(SessionEnd),
    #[serde(rename = "shard.end")]
    ShardEnd(ShardEnd),
    #[serde(other)]
    Other,
}

/// A session that is over.
#[derive(Debug, Deserialize)]
struct SessionEnd {
    sid: u64,
    ep: EndpointKey,
    outcome: String,
    reason: Option<String>,
    /// Exit code of its mlet.
    exit: Option<u8>,
    /// Signal that ended its mlet.
    signal: Option<u8>,
}

#[derive(Debug, Deserialize)]
struct EndpointKey {
    /// Key id of the endpoint, in hexadecimal.
    key: Option<String>,
}

/// What a shard has done.
#[derive(Debug, Deserialize)]
pub(crate) struct ShardEnd {
    /// How often it entered its ring.
    pub(crate) enters: u64,
    /// Sessions it began.
    pub(crate) sessions: u64,
}

impl Records {
    /// What is in the file `path`; nothing if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            text => Self::parse(&text?),
        }
    }

    fn parse(text: &str) -> io::Result<Self> {
        let mut records = Self::default();
        for line in text.lines() {
            match serde_json::from_str(line)? {
                Line::SessionEnd(session) => records.sessions.push(session),
                Line::ShardEnd(shard) => records.shards.push(shard),
                Line::Other => {}
            }
        }
        Ok(records)
    }

    /// Whether exactly one session of the endpoint with this key id ended well, and none in another way.
    ///
    /// # Errors
    /// What is said of it instead.
    pub(crate) fn judge(&self, key: &str) -> Result<(), String> {
        let of_key = |session: &&SessionEnd| session.ep.key.as_deref() == Some(key);
        let sessions: Vec<&SessionEnd> = self.sessions.iter().filter(of_key).collect();
        match sessions[..] {
            [SessionEnd { outcome, .. }] if outcome == "ok" => Ok(()),
            [SessionEnd { outcome, reason, .. }] => {
                let reason = reason.as_deref().unwrap_or("no reason");
                Err(format!("its record says {outcome}: {reason}"))
            }
            _ => Err(format!("{} records of it instead of one", sessions.len())),
        }
    }
}

impl Records {
    /// Each session that has not ended well, in words.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let failed = self.sessions.iter().filter(|session| session.outcome != "ok");
        failed.map(|SessionEnd { sid, outcome, reason, .. }| {
            format!("session {sid}: {outcome}: {}", reason.as_deref().unwrap_or("no reason"))
        })
    }

    /// How the mlets have ended, as a shell tells it: that of the first session whose mlet has not ended with 0, where
    /// `unended` stands for one that has not ended. `None` if no mlet has ended.
    pub(crate) fn mlet_exit_code(&self, unended: u8) -> Option<u8> {
        let code = |session: &SessionEnd| {
            let by_signal = session.signal.map(|signal| signal.saturating_add(128));
            (session.sid, session.exit.or(by_signal))
        };
        let codes = || self.sessions.iter().map(code);
        if codes().all(|(_, code)| code.is_none()) {
            return None;
        }
        let codes = codes().map(|(sid, code)| (sid, code.unwrap_or(unended)));
        codes.min_by_key(|(sid, code)| (*code == 0, *sid)).map(|(_, code)| code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(key: &str, outcome: &str, reason: &str) -> String {
        format!(
            r#"{{"v":1,"ev":"session.end","sid":1,"ep":{{"key":{key},"via":"direct"}},"outcome":"{outcome}","reason":{reason}}}"#
        )
    }

    #[test]
    fn an_endpoint_is_judged_by_the_one_record_of_its_key() {
        let text = [
            session("\"aa\"", "ok", "null"),
            r#"{"v":1,"ev":"other","ep":7}"#.to_owned(),
            session("null", "handshake_timeout", "\"late\""),
            session("\"bb\"", "mlet_failed", "\"mlet exit code 3\""),
            session("\"cc\"", "ok", "null"),
            session("\"cc\"", "ok", "null"),
        ];
        let records = Records::parse(&text.join("\n")).unwrap();
        assert_eq!(records.judge("aa"), Ok(()));
        let why = "its record says mlet_failed: mlet exit code 3";
        assert_eq!(records.judge("bb"), Err(why.to_owned()));
        assert_eq!(records.judge("cc"), Err("2 records of it instead of one".to_owned()));
        assert_eq!(records.judge("dd"), Err("0 records of it instead of one".to_owned()));
    }

    #[test]
    fn mlets_end_with_the_code_of_the_first_session_in_which_it_is_not_0() {
        let code = |ends: &[(u64, &str)]| {
            let line = |(sid, end): &(u64, &str)| {
                format!(
                    r#"{{"ev":"session.end","sid":{sid},"ep":{{}},"outcome":"mlet_failed","reason":"r",{end}}}"#
                )
            };
            let lines: Vec<_> = ends.iter().map(line).collect();
            Records::parse(&lines.join("\n")).unwrap().mlet_exit_code(70)
        };
        let (good, seven) = (r#""exit":0,"signal":null"#, r#""exit":7,"signal":null"#);
        let (killed, none) = (r#""exit":null,"signal":9"#, r#""exit":null,"signal":null"#);
        assert_eq!(code(&[]), None);
        assert_eq!(code(&[(1, none)]), None);
        assert_eq!(code(&[(1, good), (2, good)]), Some(0));
        assert_eq!(code(&[(1, good), (2, none)]), Some(70));
        assert_eq!(code(&[(3, killed), (2, seven), (1, good)]), Some(7));
        assert_eq!(code(&[(2, killed), (3, seven)]), Some(137));
        let told: Vec<_> = Records::parse(&session("\"aa\"", "idle_timeout", "\"late\""))
            .unwrap()
            .failures()
            .collect();
        assert_eq!(told, ["session 1: idle_timeout: late"]);
    }

    #[test]
    fn shards_tell_what_they_have_done_and_what_is_no_record_is_an_error() {
        let text = r#"{"v":1,"ev":"shard.end","core":3,"enters":300,"sessions":30}"#;
        let records = Records::parse(text).unwrap();
        assert_eq!((records.shards[0].enters, records.shards[0].sessions), (300, 30));
        for bad in ["{", "{}", r#"{"ev":"shard.end","core":3}"#] {
            assert!(Records::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_file_is_no_record() {
        let records = Records::read(Path::new("/nowhere/events.jsonl")).unwrap();
        assert!(records.sessions.is_empty() && records.shards.is_empty());
    }
}
