//! How far something is while it goes on: on a terminal one line that is rewritten, elsewhere a line now and then.
//!
//! Not here: what the line says, and the thread that tells it beside a log (`status_beside_log.rs`). Invariant: on a terminal
//! the line is never wider than that, and nothing of it is left where
//! something else is written, also when the window has become narrower meanwhile.

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use terminal_size::{Width, terminal_size_of};

/// Pause between two lines in a file or pipe.
const LINES_PAUSE: Duration = Duration::from_secs(10);

/// Pause between two looks at a terminal.
const TERMINAL_PAUSE: Duration = Duration::from_secs(1);

/// Columns where nobody says how many there are.
const COLUMNS: usize = 80;

/// Back to the beginning of the line, and away with what is on it (ECMA-48 EL).
const CLEARED: &str = "\r\x1b[K";

/// The same of the row above (ECMA-48 CUU, EL).
const ROW_ABOVE_CLEARED: &str = "\x1b[A\x1b[K";

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Not at all.
    Hidden,
    /// As a line of its own every 10 s.
    Lines,
    /// As one line of the terminal, rewritten each second.
    Terminal,
}

impl Way {
    /// How it is shown on standard error, unless it is `hidden`.
    #[must_use]
    pub fn on_stderr(hidden: bool) -> Self {
        let can_rewrite = env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        match (hidden, can_rewrite && io::stderr().is_terminal()) {
            (true, _) => Self::Hidden,
            (false, true) => Self::Terminal,
            (false, false) => Self::Lines,
        }
    }

    /// How often there is something new to be shown.
    #[must_use]
    pub fn pause(self) -> Duration {
        match self {
            Self::Terminal => TERMINAL_PAUSE,
            Self::Lines | Self::Hidden => LINES_PAUSE,
        }
    }

    /// How many columns a line may take. A line of a log fits 80 behind its time and level.
    #[must_use]
    pub fn columns(self) -> usize {
        match self {
            Self::Terminal => columns_of_stderr(),
            Self::Lines | Self::Hidden => COLUMNS,
        }
    }
}

/// The last column stays free, since some terminals go to the next line behind it.
fn columns_of_stderr() -> usize {
    columns_of(io::stderr()).unwrap_or(COLUMNS) - 1
}

/// How many columns a line has there; `None` where it is no terminal, or nobody has said.
pub fn columns_of(out: impl AsFd) -> Option<usize> {
    let columns = terminal_size_of(out).map(|(Width(columns), _)| usize::from(columns));
    columns.filter(|columns| *columns > 0)
}

/// The line of a terminal, and how much of it is there.
#[derive(Debug)]
pub(crate) struct Line {
    /// Columns of what was drawn last.
    drawn: usize,
    /// A window that becomes narrower wraps it. Two programs cut it instead, and other text stands in the row above.
    is_wrapped: bool,
}

impl Line {
    /// One of which nothing is drawn, in the terminal that the environment tells of.
    pub(crate) fn new() -> Self {
        let cuts =
            ["XTERM_VERSION", "STY"].iter().any(|of_program| env::var_os(of_program).is_some());
        Self { drawn: 0, is_wrapped: !cuts }
    }

    /// What makes it show this text, cut to the width of the terminal.
    pub(crate) fn draw(&mut self, text: &str) -> String {
        self.draw_in(text, columns_of_stderr())
    }

    /// What takes it away.
    pub(crate) fn clear(&mut self) -> String {
        self.draw("")
    }

    fn draw_in(&mut self, text: &str, columns: usize) -> String {
        let text: String = text.chars().take(columns).collect();
        // The cursor is in the last of them.
        let rows = if self.is_wrapped { self.drawn.div_ceil(columns + 1).max(1) } else { 1 };
        self.drawn = text.chars().count();
        format!("{}{text}", CLEARED.to_owned() + &ROW_ABOVE_CLEARED.repeat(rows - 1))
    }
}

/// Of `parts`, those that fit so many columns with two blanks between them: each has its rank, and the ones of the highest
/// ranks are left out first.
#[must_use]
pub fn fitted(parts: &[(u8, String)], columns: usize) -> String {
    const BETWEEN: &str = "  ";
    let mut left_out_from = u8::MAX;
    loop {
        let shown = parts.iter().filter(|(rank, text)| *rank < left_out_from && !text.is_empty());
        let texts: Vec<&str> = shown.clone().map(|(_, text)| &**text).collect();
        let line = texts.join(BETWEEN);
        match shown.map(|(rank, _)| *rank).max() {
            Some(rank) if line.chars().count() > columns => left_out_from = rank,
            _ => return line,
        }
    }
}

/// Where there is no log: what is shown, and where.
#[derive(Debug)]
pub struct Progress<W> {
    way: Way,
    out: W,
    started: Instant,
    /// When a line was written last.
    told: Duration,
    line: Line,
}

impl<W: Write> Progress<W> {
    /// Of something that begins now.
    #[expect(clippy::disallowed_methods, reason = "how long it lasts is shown to people")]
    pub fn new(way: Way, out: W) -> Self {
        Self { way, out, started: Instant::now(), told: Duration::ZERO, line: Line::new() }
    }

    /// How often there is something new to be shown.
    pub fn pause(&self) -> Duration {
        self.way.pause()
    }

    /// How long it has lasted.
    pub fn lasted(&self) -> Duration {
        self.started.elapsed()
    }

    /// It is so far; elsewhere than on a terminal that is told no more often than every 10 s, and not at the start. A write
    /// that fails must not stop anything.
    pub fn show(&mut self, text: impl Display) {
        let lasted = self.lasted();
        let _ = match self.way {
            Way::Lines if lasted - self.told >= LINES_PAUSE => {
                self.told = lasted;
                writeln!(self.out, "{text}")
            }
            Way::Terminal => write!(self.out, "{}", self.line.draw(&text.to_string())),
            Way::Lines | Way::Hidden => Ok(()),
        }
        .and_then(|()| self.out.flush());
    }

    /// Something else is about to be written.
    pub fn clear(&mut self) {
        if self.way == Way::Terminal {
            let _ = write!(self.out, "{}", self.line.clear()).and_then(|()| self.out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    /// What is shown of something that began so many seconds ago.
    fn shown(way: Way, seconds: u64) -> String {
        let started = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let (out, line) = (Vec::new(), Line { drawn: 0, is_wrapped: true });
        let mut progress = Progress { way, out, started, told: Duration::ZERO, line };
        progress.show("0 of 500");
        progress.show("123 of 500");
        progress.clear();
        String::from_utf8(progress.out).unwrap()
    }

    #[test]
    fn a_terminal_shows_one_line_that_is_gone_in_the_end() {
        let shown = shown(Way::Terminal, 3);
        assert!(shown.ends_with(&format!("{CLEARED}123 of 500{CLEARED}")), "{shown}");
        assert!(!shown.contains('\n'), "{shown}");
    }

    /// It was made for a wider window, perhaps.
    #[test]
    fn a_line_that_is_drawn_is_no_wider_than_the_terminal_whatever_it_was_made_for() {
        let columns = Way::Terminal.columns();
        let drawn = Line::new().draw(&"x".repeat(2_000));
        assert_eq!(drawn, format!("{CLEARED}{}", "x".repeat(columns)));
    }

    /// Columns are those that a line may take, one less than the window has.
    #[test]
    fn as_many_rows_are_cleared_as_the_line_takes_in_a_window_that_has_become_narrower() {
        let mut line = Line { drawn: 0, is_wrapped: true };
        assert_eq!(line.draw_in(&"x".repeat(70), 79).matches(ROW_ABOVE_CLEARED).count(), 0);
        for (columns, above) in [(79, 0), (31, 2), (31, 0), (9, 3), (9, 0)] {
            let drawn = line.draw_in(&"x".repeat(70), columns);
            assert_eq!(drawn.matches(ROW_ABOVE_CLEARED).count(), above, "{columns}");
        }
        assert_eq!(line.draw_in("", 3), format!("{CLEARED}{}", ROW_ABOVE_CLEARED.repeat(2)));
        assert_eq!(line.draw_in("", 2), CLEARED);
        let mut cut = Line { drawn: 70, is_wrapped: false };
        assert_eq!(cut.draw_in("", 31), CLEARED);
    }

    #[test]
    fn elsewhere_a_line_is_written_every_ten_seconds_and_hidden_nothing_is() {
        assert_eq!(shown(Way::Lines, 20), "0 of 500\n");
        assert_eq!(shown(Way::Lines, 0), "");
        assert_eq!(shown(Way::Hidden, 20), "");
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_rank_and_not_by_place() {
        let parts = [(0, "one"), (2, "two"), (3, ""), (1, "three")];
        let parts = parts.map(|(rank, text)| (rank, text.to_owned()));
        for (columns, expected) in [
            (80, "one  two  three"),
            (15, "one  two  three"),
            (14, "one  three"),
            (9, "one"),
            (2, ""),
        ] {
            assert_eq!(fitted(&parts, columns), expected, "{columns}");
        }
    }
}
