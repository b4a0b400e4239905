//! What the tests of this folder share: a campaign, and a member whose news can be waited for.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use campaign::administration::{Administration, Lost, NewCampaign};
use campaign::{Access, Ask, Client, ClientNews, Fence, Plan, Refusal, Settings, Standing, join};

use crate::postgres::Postgres;

/// So long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn access(address: &str) -> Access {
    let address = address.parse().expect("a good address");
    Access { address, password: None, roots: None, certificate: None }
}

pub(crate) fn plan() -> Plan {
    Plan {
        mlet_digest: [7; 32],
        argv: vec!["-c".to_owned(), "3".to_owned()],
        descriptor: Some("snikey=abc;pub_end=9;".to_owned()),
        snikeys: vec!["abc".to_owned()],
    }
}

pub(crate) fn new_campaign() -> NewCampaign {
    NewCampaign {
        plan: plan(),
        n: None,
        tries: 3,
        lease: Duration::from_secs(60),
        lost: Lost::Again,
        waves: Vec::new(),
        created: None,
    }
}

pub(crate) fn create(postgres: &Postgres, name: &str, new: &NewCampaign) -> Administration {
    let mut owner = Administration::open(&access(&postgres.address(name))).expect("the owner");
    owner.create(new).expect("a new campaign");
    owner
}

pub(crate) fn settings(address: &str) -> Settings {
    Settings {
        access: access(address),
        plan: plan(),
        host: "host1".to_owned(),
        version: "0.1.0".to_owned(),
        places: 100,
        fence: Fence::Kill,
    }
}

/// A member, and what it has heard.
pub(crate) struct Member {
    pub(crate) client: Client,
    news: Receiver<ClientNews>,
}

impl Member {
    pub(crate) fn join(postgres: &Postgres, name: &str) -> Self {
        Self::with(settings(&postgres.address(name)))
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let (tell, news) = channel();
        let hear = move |told| drop(tell.send(told));
        Self { client: join(settings, hear).expect("a member"), news }
    }

    pub(crate) fn take(&self, session: u64, endpoint: [u8; 32]) {
        self.client.ask(Ask::Take { session, endpoint });
    }

    pub(crate) fn finish(&self, session: u64, outcome: &str) {
        let (outcome, record) = (outcome.to_owned(), format!("{{\"session\":{session}}}"));
        self.client.ask(Ask::Finish { session, outcome, record });
    }

    /// The next news that are wanted; others are passed over.
    pub(crate) fn wait<T>(&self, mut wanted: impl FnMut(&ClientNews) -> Option<T>) -> T {
        let until = now() + PATIENCE;
        loop {
            let told = self.news.recv_timeout(until.saturating_duration_since(now()));
            let told = told.expect("news in time");
            if let Some(found) = wanted(&told) {
                return found;
            }
        }
    }

    /// What became of a take: the epoch that was won, or why not.
    pub(crate) fn verdict(&self, session: u64) -> Result<u32, Refusal> {
        self.wait(|told| match told {
            ClientNews::Won { session: of, epoch } if *of == session => Some(Ok(*epoch)),
            ClientNews::Refused { session: of, why } if *of == session => Some(Err(*why)),
            _ => None,
        })
    }

    pub(crate) fn taken(&self, session: u64, endpoint: [u8; 32]) -> Result<u32, Refusal> {
        self.take(session, endpoint);
        self.verdict(session)
    }

    /// Whether a result was accepted.
    pub(crate) fn is_accepted(&self, session: u64) -> bool {
        self.wait(|told| match told {
            ClientNews::Accepted { session: of } if *of == session => Some(true),
            ClientNews::Duplicate { session: of } if *of == session => Some(false),
            _ => None,
        })
    }

    pub(crate) fn standing(&self, wanted: impl Fn(&Standing) -> bool) -> Standing {
        self.wait(|told| match told {
            ClientNews::Standing(standing) if wanted(standing) => Some(standing.clone()),
            _ => None,
        })
    }
}

/// Waits until this holds, for which there is no news.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = now() + PATIENCE;
    while !holds() {
        assert!(now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn endpoint(number: u16) -> [u8; 32] {
    let mut key = [0; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    key
}

#[expect(clippy::disallowed_methods, reason = "a test that waits in vain must end")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
