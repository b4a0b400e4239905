//! The table of sessions, with the beginning of what their mlets printed.
//!
//! Invariant: however many sessions there are and whatever they printed, the table has at most [`ROWS_MAX`] rows, and their
//! output takes at most [`OUTPUT_BUDGET`] bytes of the page.

use std::io::Read;

use crate::page::html::Html;
use crate::results::chosen::{Chosen, Sort};
use crate::results::failure::Failure;
use crate::results::folder::{Folder, OutputReader, Stream};
use crate::results::lines::Place;
use crate::results::record::Session;
use crate::results::words;

/// Rows that a browser still shows and sorts at once.
const ROWS_MAX: usize = 10_000;

/// Bytes of the page that output may take, so that with 5,000 sessions all of it has less than 5 MB.
const OUTPUT_BUDGET: usize = 2 << 20;

/// Bytes of the page for the output of one session; who wants more has the file.
const OUTPUT_MAX: usize = 16 << 10;

/// Bytes of the page for why a session is not `ok`, which may hold text of a peer.
const REASON_MAX: usize = 300;

/// Rows that are shown before more are asked for; `report.css` hides those behind.
const ROWS_AT_FIRST: usize = 300;

/// Sessions as they are found.
#[derive(Debug, Default)]
pub(super) struct Rows {
    ok: Chosen,
    others: Chosen,
}

impl Rows {
    /// Takes a session that was found there.
    pub(super) fn add(&mut self, session: &Session, place: Place) {
        let rows = if session.outcome == "ok" { &mut self.ok } else { &mut self.others };
        rows.push(session, Sort::Session, place);
    }

    /// The sessions that have a row, in their order: if there are too many, those that are not `ok` before all others.
    fn shown(self) -> Chosen {
        let Self { mut ok, others: mut shown } = self;
        ok.sort();
        shown.sort();
        shown.truncate(ROWS_MAX);
        ok.truncate(ROWS_MAX - shown.len());
        shown.append(ok);
        shown.sort();
        shown
    }

    /// Adds the table.
    ///
    /// # Errors
    /// The folder cannot be read any more.
    pub(super) fn write(self, html: &mut Html, folder: &Folder) -> Result<(), Failure> {
        let all = self.ok.len() + self.others.len();
        let shown = self.shown();
        html.raw("<section><h2>Sessions</h2><p>A heading sorts the table when it is pressed.");
        if shown.len() < all {
            let (shown, all) = (shown.len(), words::counted(all as u64, "session"));
            html.raw(" It shows ").text(format!("{shown} of {all}"));
            html.raw(", all that are not ok before the others; <code>pktxpmgr results ls</code> lists the rest.");
        }
        html.raw(
            "</p><div class=\"scroll\" role=\"region\" aria-label=\"Sessions\" tabindex=\"0\">",
        );
        let is_short = shown.len() > ROWS_AT_FIRST;
        html.raw(if is_short {
            "<table id=\"sessions\" class=\"short\">"
        } else {
            "<table id=\"sessions\">"
        });
        html.raw(HEAD);
        let mut budget = OUTPUT_BUDGET;
        for (row, session) in shown.sessions(folder).enumerate() {
            let share = (budget / (shown.len() - row)).min(OUTPUT_MAX);
            budget -= write_row(html, folder, &session?, share);
        }
        html.raw("</tbody></table></div>");
        if is_short {
            html.raw("<button type=\"button\" id=\"show-all\">Show all ").text(shown.len());
            html.raw(" rows</button>");
        }
        html.raw("</section>\n");
        Ok(())
    }
}

const HEAD: &str = "<thead><tr>\
<th scope=\"col\" class=\"n\" id=\"by-session\" aria-sort=\"ascending\"><button type=\"button\">session</button></th>\
<th scope=\"col\" id=\"by-key\"><button type=\"button\">key</button></th>\
<th scope=\"col\" id=\"by-snikey\"><button type=\"button\">snikey</button></th>\
<th scope=\"col\" id=\"by-outcome\"><button type=\"button\">outcome</button></th>\
<th scope=\"col\" id=\"by-reason\"><button type=\"button\">reason</button></th>\
<th scope=\"col\" id=\"by-run\" class=\"n\"><button type=\"button\">run, s</button></th>\
<th scope=\"col\" id=\"by-bytes\" class=\"n\"><button type=\"button\">bytes</button></th>\
<th scope=\"col\" id=\"by-started\"><button type=\"button\">started (UTC)</button></th>\
<th scope=\"col\">output</th></tr></thead><tbody>\n";

/// Adds a row whose output takes at most so many bytes; returns how many it takes.
fn write_row(html: &mut Html, folder: &Folder, session: &Session, share: usize) -> usize {
    let ep = &session.ep;
    let key = ep.key.as_deref();
    let run = session.ms.run.map_or_else(String::new, |run| format!("{:.3}", run / 1000.0));
    let started = session.accepted.as_deref().and_then(|time| time.get(..19)).unwrap_or_default();
    html.raw("<tr><th scope=\"row\" class=\"n\">").text(session.number);
    html.raw("</th><td><code>").text(key.map_or_else(String::new, |key| words::front(Some(key))));
    html.raw("</code></td>");
    write_snikey(html, ep.snikey.as_deref().unwrap_or_default());
    html.raw("<td>").text(&session.outcome);
    html.raw("</td><td class=\"why\">");
    html.text_within(session.reason.as_deref().unwrap_or_default(), REASON_MAX);
    html.raw("</td><td class=\"n\">").text(run);
    html.raw("</td><td class=\"n\">").text(session.bytes_relayed());
    html.raw("</td><td class=\"when\">").text(started.replace('T', " "));
    html.raw("</td><td>");
    let taken = write_output(html, folder, session, share);
    html.raw("</td></tr>\n");
    taken
}

/// Adds the cell of a snikey: its front, as random ones of 63 characters would push the last columns out of sight.
fn write_snikey(html: &mut Html, snikey: &str) {
    let front = words::front(Some(snikey));
    if front.chars().count() < snikey.chars().count() {
        html.raw("<td title=\"").text(snikey).raw("\">").text(front).raw("...</td>");
    } else {
        html.raw("<td>").text(snikey).raw("</td>");
    }
}

/// Adds the beginning of the output, and whose it is, to be unfolded.
fn write_output(html: &mut Html, folder: &Folder, session: &Session, share: usize) -> usize {
    let Some(output) = &session.output else { return 0 };
    let streams = [(Stream::Stdout, output.stdout), (Stream::Stderr, output.stderr)];
    let summary = match streams.map(|(_, len)| words::size(len)) {
        [stdout, _] if output.stderr == 0 => stdout,
        [stdout, stderr] => format!("{stdout} + {stderr}"),
    };
    html.raw("<details><summary>").text(summary).raw("</summary><div><p>key <code>");
    html.text(session.ep.key.as_deref().unwrap_or("-")).raw("</code>");
    if let Some(peer) = &session.ep.peer {
        html.raw(" at ").text(peer);
    }
    html.raw("</p>");
    let mut left = share;
    // Of a failure standard error tells most, and should find room.
    let order = if session.outcome == "ok" { [0, 1] } else { [1, 0] };
    for (stream, len) in order.map(|index| streams[index]).into_iter().filter(|(_, len)| *len > 0) {
        left -= write_stream(html, folder, session, (stream, len), left);
    }
    html.raw("</div></details>");
    share - left
}

fn write_stream(
    html: &mut Html,
    folder: &Folder,
    session: &Session,
    (stream, len): (Stream, u64),
    room: usize,
) -> usize {
    // A character that is cut in two lies behind what finds room.
    let read = |file: OutputReader| {
        let mut bytes = Vec::new();
        file.take(room as u64 + 4).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = match folder.output(session, stream) {
        None => return 0,
        Some(Err(failure)) => Err(failure.to_string()),
        Some(Ok(file)) => read(file).map_err(|error| error.to_string()),
    };
    html.raw("<p>").text(stream.name());
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(problem) => {
            html.raw(" cannot be read: ").text(problem).raw("</p>");
            return 0;
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut shown = Html::default();
    let (taken, text_len) = shown.text_within(&text, room);
    if text_len < text.len() || (bytes.len() as u64) < len {
        html.raw(", the beginning of ").text(len).raw(" bytes");
    }
    html.raw("</p><pre>").append(shown).raw("</pre>");
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::record::{self, Event};

    #[test]
    fn the_style_hides_what_is_not_shown_at_first() {
        let hidden = format!("tr:nth-child(n+{}) {{ display: none; }}", ROWS_AT_FIRST + 1);
        assert!(super::super::page::LOOK.style.contains(&hidden));
    }

    #[test]
    fn if_there_are_too_many_those_that_are_not_ok_are_shown_before_all_others() {
        let mut rows = Rows::default();
        for number in 1..=ROWS_MAX as u64 + 500 {
            let outcome = if number.is_multiple_of(7) { "killed" } else { "ok" };
            let line = format!(
                r#"{{"v":1,"t":"","ev":"session.end","sid":{number},"outcome":"{outcome}"}}"#
            );
            let Ok(Event::Session(session)) = record::read(line.as_bytes()) else { panic!() };
            rows.add(&session, Place { number, offset: 0, len: 0 });
        }
        let shown: Vec<_> = rows.shown().numbers().collect();
        assert_eq!(shown.len(), ROWS_MAX);
        assert!(shown.is_sorted());
        assert_eq!(
            shown.iter().filter(|number| number.is_multiple_of(7)).count(),
            (ROWS_MAX + 500) / 7
        );
    }
}
