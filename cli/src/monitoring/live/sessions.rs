//! The table of sessions, as somebody asks for it: those that run first, then those that ended last.
//!
//! Not here: how it is shown. Invariant: an answer has few rows, however many sessions there are, and whoever asks for one
//! shares the list with all who do so within a second.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use engine::{Answer, BothWays, EndedSession, Order, RunView, SessionState, Steering};
use packetlab::key::KeyId;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::cells::{Cell, Rows};
use super::query::{Query, Sort};
use crate::results::words::{self, duration};

/// Rows of an answer.
const ROWS_MAX: usize = 100;

/// A list is good for so long. What shards have told for it may be as old as that already.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The rows of an answer, and where they stand among all.
#[derive(Debug, Serialize)]
pub(in super::super) struct Page {
    rows: Rows,
    /// Which rows these are.
    told: String,
    /// How many were found, if anything was looked for.
    found: String,
    page: usize,
    pages: usize,
}

/// Where sessions are known.
#[derive(Debug)]
pub(in super::super) struct Sessions {
    run: RunView,
    steering: Steering,
    lists: Lists,
}

/// A list, once it is there.
type Awaited = watch::Receiver<Option<Rc<Listed>>>;

/// The list that was asked for last, for all who want one.
#[derive(Debug, Default)]
struct Lists(RefCell<Option<Asked>>);

/// A list that was asked for.
#[derive(Debug)]
struct Asked {
    at: Instant,
    listed: Awaited,
}

impl Asked {
    /// Whether another may be asked for. While it is waited for, it is not old.
    fn is_older_than(&self, age: Duration) -> bool {
        self.listed.borrow().is_some() && self.at.elapsed() >= age
    }
}

impl Lists {
    /// A list that is still good, or else one that is asked for. A task of its own does so: whoever breaks off leaves the
    /// answer to all others.
    fn wanted<A: Future<Output = Listed> + 'static>(&self, ask: impl FnOnce() -> A) -> Awaited {
        let mut last = self.0.borrow_mut();
        last.take_if(|asked| asked.is_older_than(GOOD_FOR));
        let asked = last.get_or_insert_with(|| {
            let (answered, listed) = watch::channel(None);
            let asking = ask();
            spawn_local(async move { answered.send_replace(Some(Rc::new(asking.await))) });
            Asked { at: Instant::now(), listed }
        });
        asked.listed.clone()
    }
}

/// All that are known.
#[derive(Debug)]
struct Listed {
    running: Vec<SessionState>,
    ended: Vec<EndedSession>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
enum One<'a> {
    Running(&'a SessionState),
    Ended(&'a EndedSession),
}

impl Sessions {
    /// Those of this run, which hears questions through `steering`.
    pub(super) fn new(run: RunView, steering: Steering) -> Self {
        Self { run, steering, lists: Lists::default() }
    }

    /// Answers somebody.
    pub(in super::super) async fn page(&self, query: &Query) -> Page {
        let listed = self.listed().await;
        listed.page(query)
    }

    /// What can be told when the run is not asked any more.
    pub(super) fn last_page(&self) -> Page {
        Listed::of(&[], &self.run).page(&Query::of(""))
    }

    /// The list is forgotten when nobody has asked for it lately.
    pub(super) fn forget(&self) {
        self.lists.0.borrow_mut().take_if(|asked| asked.is_older_than(10 * GOOD_FOR));
    }

    async fn listed(&self) -> Rc<Listed> {
        let (run, steering) = (&self.run, &self.steering);
        let mut listed = self.lists.wanted(|| Listed::ask(run.clone(), steering.clone()));
        match listed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(listed)) => Rc::clone(listed),
            // Whoever was to answer has gone.
            _ => Rc::new(Listed::of(&[], run)),
        }
    }
}

impl Listed {
    async fn ask(run: RunView, steering: Steering) -> Self {
        match steering.ask_and_wait(Order::ListSessions).await {
            Some(Answer::Sessions(running)) => Self::of(&running, &run),
            // There is no run any more.
            _ => Self::of(&[], &run),
        }
    }

    /// Of these that ran when they were asked for, and of those that have ended. Who has ended meanwhile is in both lists,
    /// and not in neither.
    fn of(running: &[SessionState], run: &RunView) -> Self {
        let ended = run.ended_sessions();
        let have_ended: HashSet<u64> = ended.iter().map(|one| one.id).collect();
        let running = running.iter().filter(|one| !have_ended.contains(&one.id));
        Self { running: running.cloned().collect(), ended }
    }

    fn page(&self, query: &Query) -> Page {
        let all = self.running.len() + self.ended.len();
        let running = self.running.iter().map(One::Running);
        let mut found: Vec<One<'_>> = running.chain(self.ended.iter().map(One::Ended)).collect();
        if !query.words.is_empty() {
            let mut text = String::new();
            found.retain(|one| one.has(&query.words, &mut text));
        }
        match (query.sort, query.is_descending) {
            (Sort::State, false) => {}
            (Sort::State, true) => found.reverse(),
            (sort, false) => found.sort_by(|a, b| a.compare(b, sort)),
            (sort, true) => found.sort_by(|a, b| b.compare(a, sort)),
        }
        let pages = found.len().div_ceil(ROWS_MAX).max(1);
        let page = query.page.min(pages);
        let first = (page - 1) * ROWS_MAX;
        let shown: Vec<_> = found.iter().skip(first).take(ROWS_MAX).collect();
        let told = match shown.len() {
            0 => "No session.".into(),
            len => format!(
                "{} to {} of {}, of which {} run; page {page} of {pages}.",
                first + 1,
                first + len,
                words::counted(found.len() as u64, "session"),
                found.iter().filter(|one| matches!(one, One::Running(_))).count(),
            ),
        };
        let is_asked = !query.words.is_empty();
        let found =
            if is_asked { format!("{} of {all} found.", found.len()) } else { String::new() };
        Page { rows: shown.into_iter().map(One::row).collect(), told, found, page, pages }
    }
}

impl One<'_> {
    fn id(&self) -> u64 {
        match self {
            Self::Running(session) => session.id,
            Self::Ended(session) => session.id,
        }
    }

    fn key(&self) -> Option<KeyId> {
        match self {
            Self::Running(session) => session.key,
            Self::Ended(session) => session.key,
        }
    }

    fn peer(&self) -> SocketAddr {
        match self {
            Self::Running(session) => session.peer,
            Self::Ended(session) => session.peer,
        }
    }

    fn age(&self) -> Option<Duration> {
        match self {
            Self::Running(session) => Some(session.age),
            Self::Ended(session) => session.lasted,
        }
    }

    fn bytes(&self) -> Option<BothWays<u64>> {
        match self {
            Self::Running(session) => session.bytes,
            Self::Ended(session) => Some(session.bytes),
        }
    }

    fn state(&self) -> String {
        match self {
            Self::Running(_) => "running".into(),
            Self::Ended(session) => session.outcome.to_string(),
        }
    }

    /// How the session of its key that had ended last did so.
    fn last_outcome(&self) -> String {
        let outcome = match self {
            Self::Running(session) => session.last_outcome,
            Self::Ended(session) => session.last_outcome,
        };
        outcome.map_or_else(|| "-".into(), |outcome| outcome.to_string())
    }

    fn reason(&self) -> &str {
        match self {
            Self::Running(_) => "",
            Self::Ended(session) => session.reason.as_deref().unwrap_or_default(),
        }
    }

    /// Whether all words are found in it, by way of a text that is used again.
    fn has(&self, words: &[String], text: &mut String) -> bool {
        text.clear();
        let key = self.key().map(|key| key.to_string()).unwrap_or_default();
        let (state, reason) = (self.state(), self.reason().to_lowercase());
        // What is written to is a text, which never fails.
        let (id, peer, last_outcome) = (self.id(), self.peer(), self.last_outcome());
        let _ = write!(text, "{id} {key} {peer} {state} {last_outcome} {reason}");
        words.iter().all(|word| text.contains(word))
    }

    fn compare(&self, other: &Self, sort: Sort) -> Ordering {
        let bytes = |one: &Self, way: fn(BothWays<u64>) -> u64| one.bytes().map(way);
        match sort {
            Sort::State | Sort::Session => self.id().cmp(&other.id()),
            Sort::Key => self.key().map(|key| key.0).cmp(&other.key().map(|key| key.0)),
            Sort::Peer => self.peer().cmp(&other.peer()),
            Sort::Age => self.age().cmp(&other.age()),
            Sort::ToEndpoint => {
                bytes(self, |both| both.to_endpoint).cmp(&bytes(other, |both| both.to_endpoint))
            }
            Sort::FromEndpoint => {
                bytes(self, |both| both.from_endpoint).cmp(&bytes(other, |both| both.from_endpoint))
            }
        }
    }

    fn row(&self) -> Vec<Cell> {
        let unknown = || "-".to_owned();
        let key = self.key().map(|key| Cell::Cut { text: key.short(), title: key.to_string() });
        let size = |bytes: Option<u64>| bytes.map_or_else(unknown, words::size);
        let age = self.age().map_or_else(unknown, age);
        vec![
            self.id().into(),
            key.unwrap_or_else(|| unknown().into()),
            self.peer().into(),
            self.state().into(),
            age.into(),
            size(self.bytes().map(|bytes| bytes.to_endpoint)).into(),
            size(self.bytes().map(|bytes| bytes.from_endpoint)).into(),
            self.last_outcome().into(),
            words::shown(self.reason()).into(),
        ]
    }
}

/// To a tenth of a second, as the list is not much younger.
fn age(age: Duration) -> String {
    let seconds = age.as_secs_f64();
    if seconds < 99.95 { format!("{seconds:.1} s") } else { duration(seconds * 1e3) }
}

#[cfg(test)]
mod tests {
    use engine::OutcomeKind;

    use super::*;

    fn key(number: u64) -> Option<KeyId> {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        Some(KeyId(key))
    }

    fn bytes(number: u64) -> BothWays<u64> {
        BothWays { to_endpoint: number % 7, from_endpoint: number }
    }

    /// So many that run, and two that have ended.
    fn listed(count: u64) -> Listed {
        let running = |id| SessionState {
            id,
            key: key(id),
            peer: SocketAddr::from(([10, 0, 0, 1], 1 + (id % 60_000) as u16)),
            snikey: None,
            pid: None,
            age: Duration::from_secs(20_000 - id),
            bytes: (id != 1).then(|| bytes(id)),
            last_outcome: (id == 2).then_some(OutcomeKind::StartRefused),
        };
        let ended = |(id, reason): (u64, Option<&str>)| EndedSession {
            id,
            key: None,
            peer: SocketAddr::from(([10, 0, 0, 2], 7)),
            lasted: Some(Duration::from_secs(1)),
            bytes: bytes(id),
            outcome: if reason.is_none() { OutcomeKind::Ok } else { OutcomeKind::MletFailed },
            reason: reason.map(str::to_owned),
            last_outcome: None,
        };
        let both = [(50_002, None), (50_001, Some("mlet <b>Exit</b> code 3"))];
        Listed { running: (1..=count).map(running).collect(), ended: both.map(ended).into() }
    }

    fn numbers(page: &Page) -> Vec<u64> {
        let number = |row: &Vec<Cell>| match &row[0] {
            Cell::Text(number) => number.parse().unwrap(),
            other => panic!("{other:?}"),
        };
        page.rows.iter().map(number).collect()
    }

    #[test]
    fn a_hundred_rows_are_told_of_ten_thousand_and_the_rest_behind_them() {
        let listed = listed(10_000);
        let page = listed.page(&Query::of(""));
        assert_eq!(numbers(&page), (1..=100).collect::<Vec<_>>());
        assert_eq!((page.page, page.pages), (1, 101));
        assert_eq!(page.told, "1 to 100 of 10002 sessions, of which 10000 run; page 1 of 101.");
        assert!(serde_json::to_string(&page).unwrap().len() < 25_000);
        let page = listed.page(&Query::of("page=1000"));
        assert_eq!((numbers(&page), page.page), (vec![50_002, 50_001], 101));
        let page = listed.page(&Query::of("q=00000000000026e7"));
        assert_eq!((numbers(&page), &*page.found), (vec![0x26e7], "1 of 10002 found."));
        let none = listed.page(&Query::of("q=nobody+at+all"));
        assert_eq!((&*none.told, none.rows.len()), ("No session.", 0));
    }

    #[test]
    fn all_words_have_to_be_found_whatever_their_case() {
        let listed = listed(3);
        for (query, found) in [
            ("q=running", vec![1, 2, 3]),
            ("q=%3Cb%3eexit+10.0.0.2", vec![50_001]),
            ("q=exit+10.0.0.1", vec![]),
            ("q=10.0.0.2%3A7&page=x", vec![50_002, 50_001]),
            ("q=+%20&nothing", vec![1, 2, 3, 50_002, 50_001]),
            ("q=start_refused", vec![2]),
            ("q=%e", vec![]),
            ("q=1+2+3+4+5+6+7+8", vec![]),
            ("q=r+u+n+n+i+n+g+running+nobody", vec![1, 2, 3]),
        ] {
            assert_eq!(numbers(&listed.page(&Query::of(query))), found, "{query}");
        }
    }

    #[test]
    fn one_list_is_asked_for_until_it_is_answered_and_old_whoever_breaks_off() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (lists, asked) = (Lists::default(), std::cell::Cell::new(0));
        let (answer, is_answered) = tokio::sync::oneshot::channel();
        let is_answered = RefCell::new(Some(is_answered));
        let want = || {
            lists.wanted(|| {
                asked.set(asked.get() + 1);
                let is_answered = is_answered.take();
                async move {
                    if let Some(is_answered) = is_answered {
                        is_answered.await.unwrap();
                    }
                    listed(3)
                }
            })
        };
        let grow_old = || lists.0.borrow_mut().as_mut().unwrap().at -= 2 * GOOD_FOR;
        tokio::task::LocalSet::new().block_on(&runtime, async {
            // Each of these breaks off at once, and the run takes its time.
            (0..9).for_each(|_| drop(want()));
            grow_old();
            let mut waiting = want();
            assert_eq!((asked.get(), waiting.borrow().is_none()), (1, true));
            answer.send(()).unwrap();
            assert!(waiting.wait_for(Option::is_some).await.is_ok());
            drop(want());
            assert_eq!(asked.get(), 2, "what took so long is old");
            let mut waiting = want();
            assert!(waiting.wait_for(Option::is_some).await.is_ok());
            drop(want());
            assert_eq!(asked.get(), 2, "it is good for a while");
            grow_old();
            drop(want());
            assert_eq!(asked.get(), 3);
        });
    }

    #[test]
    fn rows_are_sorted_by_what_was_asked_for_both_ways() {
        let listed = listed(9);
        let first = |query: &str| numbers(&listed.page(&Query::of(query)))[..3].to_vec();
        assert_eq!(first("sort=session&order=descending"), [50_002, 50_001, 9]);
        assert_eq!(first("sort=age&order=ascending"), [50_002, 50_001, 9]);
        assert_eq!(first("sort=age&order=descending"), [1, 2, 3]);
        assert_eq!(first("sort=from&order=descending"), [50_002, 50_001, 9]);
        assert_eq!(first("sort=to&order=descending"), [6, 5, 4]);
        assert_eq!(first("sort=to&order=ascending"), [1, 7, 50_001], "what is unknown is least");
        assert_eq!(first("sort=key&order=ascending"), [50_002, 50_001, 1]);
        assert_eq!(first("sort=peer&order=descending"), [50_002, 50_001, 9]);
        assert_eq!(first("sort=state&order=descending"), [50_001, 50_002, 9]);
    }
}
