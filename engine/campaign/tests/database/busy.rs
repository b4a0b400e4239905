//! A member that is never idle. What it hears of each session is checked against what it heard before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};

use campaign::{Ask, Client, ClientNews, Refusal, join};

use crate::postgres::Postgres;
use crate::support::{PATIENCE, endpoint, settings};

/// How one session has gone on, as far as its member has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Asked,
    Won(u32),
    Refused(Refusal),
    Accepted(u32),
}

/// A member that asks for one endpoint after the other, so many in all, and finishes what it wins at once.
pub(crate) struct Busy {
    endpoints: u16,
    client: Client,
    news: Receiver<ClientNews>,
    pub(crate) sessions: BTreeMap<u64, Heard>,
    pub(crate) in_trouble: Vec<bool>,
}

const IN_FLIGHT: u64 = 64;

impl Busy {
    pub(crate) fn begin(postgres: &Postgres, name: &str, host: &str, endpoints: u16) -> Self {
        let (tell, news) = channel();
        let mut settings = settings(&postgres.address(name));
        settings.host = host.to_owned();
        let client = join(settings, move |told| drop(tell.send(told))).expect("a member");
        let (sessions, in_trouble) = (BTreeMap::new(), Vec::new());
        let mut member = Self { endpoints, client, news, sessions, in_trouble };
        (0..IN_FLIGHT).for_each(|_| member.ask_next());
        member
    }

    /// Asks for the next endpoint, if there is one.
    fn ask_next(&mut self) {
        let session = self.sessions.len() as u64;
        if session < self.endpoints.into() {
            let endpoint = endpoint(u16::try_from(session).expect("few"));
            self.client.ask(Ask::Take { session, endpoint });
            self.sessions.insert(session, Heard::Asked);
        }
    }

    /// Hears one thing, and checks that it fits what was heard before.
    pub(crate) fn hear(&mut self) {
        let (session, now) = match self.news.recv_timeout(PATIENCE).expect("news in time") {
            ClientNews::Won { session, epoch } => {
                let record = format!("{{\"session\":{session}}}");
                self.client.ask(Ask::Finish { session, outcome: "ok".to_owned(), record });
                (session, Heard::Won(epoch))
            }
            ClientNews::Refused { session, why } => (session, Heard::Refused(why)),
            ClientNews::Accepted { session } => {
                let Heard::Won(epoch) = self.sessions[&session] else { panic!("never won") };
                (session, Heard::Accepted(epoch))
            }
            ClientNews::Trouble(_) => return self.in_trouble.push(true),
            ClientNews::Recovered => return self.in_trouble.push(false),
            ClientNews::Standing(_) => return,
            other => panic!("{other:?}"),
        };
        let before = self.sessions.insert(session, now);
        let fits = match now {
            Heard::Won(_) | Heard::Refused(_) => before == Some(Heard::Asked),
            Heard::Accepted(epoch) => before == Some(Heard::Won(epoch)),
            Heard::Asked => false,
        };
        assert!(fits, "session {session}: {before:?}, then {now:?}");
        if !matches!(now, Heard::Won(_)) {
            self.ask_next();
        }
    }

    pub(crate) fn accepted(&self) -> BTreeSet<u64> {
        let all = self.sessions.iter();
        all.filter(|(_, heard)| matches!(heard, Heard::Accepted(_)))
            .map(|(session, _)| *session)
            .collect()
    }

    /// How often all was well again after trouble.
    pub(crate) fn recoveries(&self) -> usize {
        self.in_trouble.iter().filter(|is_trouble| !**is_trouble).count()
    }

    pub(crate) fn is_through(&self) -> bool {
        self.sessions.len() == usize::from(self.endpoints)
            && !self.sessions.values().any(|heard| matches!(heard, Heard::Asked | Heard::Won(_)))
    }
}
