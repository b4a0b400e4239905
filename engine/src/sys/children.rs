//! Ending every child of this process, adopted ones too.
//!
//! As a subreaper a process inherits the orphans below it, so killing its direct children over and over reaches every
//! descendant, also one that forked twice and left session and group. Shared by the supervisor, whose manager may
//! be killed, and the manager, whose supervisor may be.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpgid};

use crate::guards::{Guard, holds};

/// For [`Lack`](super::lack::Lack): what a subreaper takes.
pub const ADOPTING: &str = "adopt the orphans of mlets (prctl)";

/// How long killing may take on a machine that is very busy.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two looks for children that were adopted meanwhile; nothing announces those.
const PASS_INTERVAL: Duration = Duration::from_millis(20);
/// A grace beyond a year is for ever; the cap keeps the sum with the present within the clock.
const GRACE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long processes are given at each step of being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graces {
    /// From the end of their sockets to TERM: to read that end, write what they have gathered, and exit.
    pub eof: Duration,
    /// From TERM to KILL.
    pub term: Duration,
}

impl Graces {
    /// KILL at once.
    pub const NONE: Self = Self { eof: Duration::ZERO, term: Duration::ZERO };

    /// Until KILL.
    #[must_use]
    pub fn total(self) -> Duration {
        let Self { eof, term } = self.capped();
        eof + term
    }

    /// Such that KILL comes within `limit`. Where that is short, both steps have half of it.
    #[must_use]
    pub(crate) fn within(self, limit: Duration) -> Self {
        let eof = self.eof.min(limit / 2);
        Self { eof, term: self.term.min(limit - eof) }
    }

    /// Short enough to be added to the present.
    pub(super) fn capped(self) -> Self {
        Self { eof: self.eof.min(GRACE_MAX), term: self.term.min(GRACE_MAX) }
    }
}

/// Makes this process the one that adopts the orphans among its descendants.
///
/// # Errors
/// As the kernel says.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(holds(Guard::AdoptsOrphans))?)
}

/// Ends every child of this process, whose sockets have been closed: TERM after the first grace, KILL after the second,
/// until none is left, none may be signalled, or what is left has outlived its KILL by a second.
///
/// For a manager whose supervisor is gone, after [`become_subreaper`]. Blocks, up to both graces and the moment that
/// killing takes.
///
/// # Errors
/// When `/proc` cannot be read to find them.
pub fn end_all_children(graces: Graces, mut is_hurried: impl FnMut() -> bool) -> io::Result<()> {
    let begun = now();
    let mut ending = Ending::new(begun, graces);
    let children = ChildList::of_all_threads();
    loop {
        let now = now();
        if is_hurried() {
            ending.hurry(now, Graces::NONE);
        }
        let is_late = now >= begun + graces.total() + KILL_PATIENCE;
        if reap(|_, _| ()) == Reaped::NoneLeft || !ending.pass(now, &children)? || is_late {
            return Ok(());
        }
        thread::sleep(ending.next_pass_in(now));
    }
}

/// Makes sure that the ends of children are told, while there is none.
pub(super) fn prove_reaping() -> Result<(), Errno> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(_) | Err(Errno::ECHILD) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// What [`reap`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaped {
    /// Children that still run.
    SomeLeft,
    /// No child at all.
    NoneLeft,
}

/// Reaps every child that has ended and tells its wait status to `ended`.
#[allow(unsafe_code)]
pub(super) fn reap(mut ended: impl FnMut(Pid, i32)) -> Reaped {
    loop {
        let mut status = 0;
        // Not nix's waitpid, which loses the child when a real-time signal killed it.
        // SAFETY: status is a valid place for the wait status.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match pid {
            0 => return Reaped::SomeLeft,
            1.. => {
                ended(Pid::from_raw(pid), status);
                if !holds(Guard::ReapsAll) {
                    return Reaped::SomeLeft;
                }
            }
            _ if Errno::last() == Errno::EINTR => {}
            _ => return Reaped::NoneLeft,
        }
    }
}

/// The steps of ending all children, without waiting between them.
///
/// ```text
///  nothing --eof grace--> TERM --term grace--> KILL
/// ```
#[derive(Debug)]
pub(super) struct Ending {
    term_at: Instant,
    kill_at: Instant,
    next_pass_at: Instant,
    /// Who has had TERM; a second one might be taken for impatience.
    warned: HashSet<Pid>,
}

impl Ending {
    /// Starts with nothing but time; TERM and KILL follow after their graces.
    pub(super) fn new(now: Instant, graces: Graces) -> Self {
        let term_at = now + graces.eof.min(GRACE_MAX);
        let kill_at = now + graces.total();
        Self { term_at, kill_at, next_pass_at: now, warned: HashSet::new() }
    }

    /// Lets TERM and KILL follow as if it began now, where that is sooner.
    pub(super) fn hurry(&mut self, now: Instant, graces: Graces) {
        let anew = Self::new(now, graces);
        self.term_at = self.term_at.min(anew.term_at);
        self.kill_at = self.kill_at.min(anew.kill_at);
        self.next_pass_at = now;
    }

    /// Signals the children there are, if it is time for that. False when there is no point in going on: only
    /// children are left that we may not even kill (a mlet that changed its user).
    pub(super) fn pass(&mut self, now: Instant, children: &ChildList) -> io::Result<bool> {
        if now < self.next_pass_at {
            return Ok(true);
        }
        let next_step = [self.term_at, self.kill_at].into_iter().find(|step| now < *step);
        self.next_pass_at = now + PASS_INTERVAL;
        if let Some(next_step) = next_step {
            self.next_pass_at = self.next_pass_at.min(next_step);
        }
        if now < self.term_at {
            return Ok(true);
        }
        let kills = now >= self.kill_at && holds(Guard::KillsAfterGrace);
        let children = children.read()?;
        let mut reached_any = children.is_empty();
        for child in children {
            reached_any |= if kills {
                signal_child(child, Signal::SIGKILL)
            } else {
                self.warned.insert(child) && signal_child(child, Signal::SIGTERM)
            };
        }
        Ok(reached_any || !kills)
    }

    /// Time until `pass` has something to do.
    pub(super) fn next_pass_in(&self, now: Instant) -> Duration {
        self.next_pass_at.saturating_duration_since(now)
    }
}

/// Monotonic time, for the two processes that have children.
#[expect(clippy::disallowed_methods, reason = "supervisor and last resort are shells of their own")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Signals a child, with its whole group if it leads one; an unreaped child keeps its numbers, so this cannot hit
/// a stranger. False if we may not.
pub(super) fn signal_child(child: Pid, signal: Signal) -> bool {
    let leads_group = getpgid(Some(child)) == Ok(child);
    let sent = if leads_group { killpg(child, signal) } else { kill(child, signal) };
    sent != Err(Errno::EPERM)
}

/// Where the direct children of this process are listed.
#[derive(Debug)]
pub(super) struct ChildList(Option<File>);

impl ChildList {
    /// For a process with one thread, which has all of them. It keeps the list open, where the kernel has one, so that it can
    /// be read when no file can be opened any more.
    pub(super) fn of_one_thread() -> Self {
        Self(File::open("/proc/thread-self/children").ok())
    }

    /// For a process with others.
    fn of_all_threads() -> Self {
        Self(None)
    }

    /// All of them, ended ones that are not reaped included.
    fn read(&self) -> io::Result<Vec<Pid>> {
        let Some(mut of_thread) = self.0.as_ref() else { return children() };
        let mut list = String::new();
        of_thread.rewind()?;
        of_thread.read_to_string(&mut list)?;
        Ok(list.split_ascii_whitespace().filter_map(parse_pid).collect())
    }

    /// Kills what is left of a process group whose leader has ended and was reaped.
    ///
    /// The group's number may belong to strangers by now, unless a child of this process is in that group: a process whose
    /// parent has ended is adopted here.
    pub(super) fn kill_rest_of_group(&self, group: Pid) {
        if killpg(group, None) == Err(Errno::ESRCH) {
            return;
        }
        // Where they cannot be listed, nothing is killed that is not known to be ours.
        let children = self.read().unwrap_or_default();
        if children.into_iter().any(|child| getpgid(Some(child)) == Ok(group)) {
            // It fails only when they have ended meanwhile.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// What a [`ChildList`] reads that is of all threads.
fn children() -> io::Result<Vec<Pid>> {
    if !fs::exists("/proc/thread-self/children")? {
        return children_by_parent();
    }
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that ended meanwhile has handed its children to another; the next pass sees them.
        let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        children.extend(list.split_ascii_whitespace().filter_map(parse_pid));
    }
    Ok(children)
}

/// As [`children`], for kernels built without CONFIG_PROC_CHILDREN: every process whose parent we are.
fn children_by_parent() -> io::Result<Vec<Pid>> {
    let own = Pid::this();
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(parse_pid) else { continue };
        let stat = fs::read(entry.path().join("stat")).unwrap_or_default();
        if parent_in_stat(&stat) == Some(own) {
            children.push(pid);
        }
    }
    Ok(children)
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().filter(|&pid| pid > 0).map(Pid::from_raw)
}

/// The parent's number in `/proc/PID/stat`: second field after the name, which ends at the last `)`.
fn parent_in_stat(stat: &[u8]) -> Option<Pid> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(1).and_then(parse_pid)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn graces_within_a_limit_are_no_longer_than_that_and_leave_something_to_each_step() {
        let graces = Graces { eof: Duration::from_millis(500), term: Duration::from_secs(2) };
        let within = |ms| {
            let Graces { eof, term } = graces.within(Duration::from_millis(ms));
            (eof.as_millis(), term.as_millis())
        };
        assert_eq!(within(6_000), (500, 2_000), "as they are");
        assert_eq!(within(1_500), (500, 1_000));
        assert_eq!(within(500), (250, 250));
        assert_eq!(graces.within(Duration::ZERO), Graces::NONE);
    }

    #[test]
    fn both_ways_to_find_children_find_a_child() {
        let mut child =
            Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        assert!(children().unwrap().contains(&pid));
        assert!(children_by_parent().unwrap().contains(&pid));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!children().unwrap().contains(&pid));
    }

    #[test]
    fn the_parent_is_found_behind_a_name_with_brackets_and_spaces() {
        assert_eq!(parent_in_stat(b"12 (a) b) S 7 12 12 0"), Some(Pid::from_raw(7)));
        assert_eq!(parent_in_stat(b"12 (a) S"), None);
        assert_eq!(parent_in_stat(b""), None);
    }
}
