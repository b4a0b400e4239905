//! How far a demo is, while it runs: one line that is rewritten on a terminal, elsewhere a line now and then.
//!
//! Not here: what came of it (`summary`). Invariant: on a terminal nothing of it is left when something else is written.

use std::io::{self, IsTerminal, Stderr, Write};
use std::time::{Duration, Instant};

/// Pause between two lines in a file or pipe.
const LINES_PAUSE: Duration = Duration::from_secs(10);
/// Pause between two looks at a terminal.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
/// Back to the beginning of the line, and away with what is on it (ECMA-48 EL).
const CLEARED: &str = "\r\x1b[K";

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Hidden,
    Lines,
    Terminal,
}

/// What is shown, and where.
#[derive(Debug)]
pub(super) struct Progress<W> {
    way: Way,
    out: W,
    total: usize,
    started: Instant,
}

impl Progress<Stderr> {
    /// Of a run with so many endpoints that begins now, on standard error.
    pub(super) fn of(total: usize, quiet: bool) -> Self {
        let out = io::stderr();
        let way = match (quiet, out.is_terminal()) {
            (true, _) => Way::Hidden,
            (false, true) => Way::Terminal,
            (false, false) => Way::Lines,
        };
        Self { way, out, total, started: Instant::now() }
    }
}

impl<W: Write> Progress<W> {
    /// How often there is something new to be shown.
    pub(super) fn pause(&self) -> Duration {
        match self.way {
            Way::Terminal => TERMINAL_PAUSE,
            Way::Lines | Way::Hidden => LINES_PAUSE,
        }
    }

    /// So many endpoints have been served, or have failed. A write that fails must not stop the run.
    pub(super) fn show(&mut self, ended: usize) {
        let lasted = self.started.elapsed();
        let text = format!(
            "demo: {ended} of {} endpoints are done, after {} s",
            self.total,
            lasted.as_secs()
        );
        let _ = match self.way {
            // The first look is at the start, of which there is nothing to tell.
            Way::Lines if lasted >= LINES_PAUSE / 2 => writeln!(self.out, "{text}"),
            Way::Terminal => write!(self.out, "{CLEARED}{text}").and_then(|()| self.out.flush()),
            Way::Lines | Way::Hidden => Ok(()),
        };
    }

    /// Something else is about to be written.
    pub(super) fn clear(&mut self) {
        if self.way == Way::Terminal {
            let _ = write!(self.out, "{CLEARED}").and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a run that began so many seconds ago.
    fn shown(way: Way, seconds: u64) -> String {
        let started = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let mut progress = Progress { way, out: Vec::new(), total: 500, started };
        progress.show(0);
        progress.show(123);
        progress.clear();
        String::from_utf8(progress.out).unwrap()
    }

    #[test]
    fn a_terminal_shows_one_line_that_is_gone_in_the_end() {
        let line = "demo: 123 of 500 endpoints are done, after 3 s";
        let shown = shown(Way::Terminal, 3);
        assert!(shown.ends_with(&format!("{CLEARED}{line}{CLEARED}")), "{shown}");
        assert!(!shown.contains('\n'), "{shown}");
    }

    #[test]
    fn elsewhere_lines_are_written_but_for_the_start_and_with_quiet_nothing_is() {
        let lines = "demo: 0 of 500 endpoints are done, after 20 s\n\
                     demo: 123 of 500 endpoints are done, after 20 s\n";
        assert_eq!(shown(Way::Lines, 20), lines);
        assert_eq!(shown(Way::Lines, 0), "");
        assert_eq!(shown(Way::Hidden, 20), "");
    }
}
