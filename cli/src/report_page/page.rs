//! The page: what stands on it, from top to bottom.
//!
//! Not here: charts, the table of sessions, and how text is escaped.

use super::chart::{self, Mark};
use super::timeline::Course;
use crate::page::chart::bar;
use crate::page::html::Html;
use crate::page::policy::Look;
use crate::results::run::{Digested, Run};
use crate::results::tally::{EndpointTotals, RunSpan, Spread, Tally};
use crate::results::words::{self, counted};

/// So many reasons, and endpoints of a kind, are listed.
const LISTED: usize = 10;

/// What the page looks like and runs.
pub(super) const LOOK: Look = Look {
    style: concat!(include_str!("../page/style.css"), include_str!("report.css")),
    script: concat!(include_str!("../page/headings.js"), include_str!("script.js")),
    connect: "'none'",
};

/// The numbers that one looks for first.
pub(super) fn figures(html: &mut Html, tally: &Tally) {
    let sessions = tally.sessions;
    html.raw("<dl class=\"figures\">");
    for (id, name, number) in [
        ("sessions-all", "sessions", sessions.all),
        ("sessions-ok", "ok", sessions.ok),
        ("sessions-failed", "failed", sessions.failed),
        ("sessions-neither", "neither", sessions.neither()),
        ("endpoints-all", "endpoints", tally.endpoints().len() as u64),
        ("folded", "strangers without records", tally.folded),
    ] {
        html.raw("<div><dt>").raw(name).raw("</dt><dd id=\"").raw(id).raw("\">");
        html.text(number).raw("</dd></div>");
    }
    html.raw("</dl>\n<p class=\"soft\">Failed are sessions whose endpoint had shown a certificate that was \
        verified, and that did not end as they should. Neither are those that were not wanted, and \
        strangers.</p>\n");
}

/// What is known of each run.
pub(super) fn runs(html: &mut Html, spans: &[RunSpan], runs: &[Run]) {
    if spans.is_empty() {
        return;
    }
    html.raw("<section><h2>Runs</h2>\n");
    for span in spans {
        match runs.iter().find(|run| run.name == span.name) {
            Some(run) => write_run(html, span, run),
            None => write_run(html, span, &Run::default()),
        }
    }
    html.raw("</section>\n");
}

fn write_run(html: &mut Html, span: &RunSpan, run: &Run) {
    let ended = span.ended.clone().unwrap_or_else(|| "not recorded: it runs, or was killed".into());
    let program = run.program.clone().or_else(|| span.program.clone());
    let commit = run.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    let command: Vec<_> = run.command.iter().map(ToString::to_string).collect();
    let digested = |file: &Option<Digested>| {
        file.as_ref().map(|file| format!("{}, SHA-256 {}", file.path, file.sha256))
    };
    html.raw("<dl class=\"facts\">");
    for (name, fact) in [
        ("run", Some(span.name.clone())),
        ("note", run.note.clone()),
        ("started", Some(span.started.clone())),
        ("ended", Some(ended)),
        ("program", program.map(|program| program + &commit)),
        ("command", (!run.command.is_empty()).then(|| command.join(" "))),
        ("mlet", digested(&run.mlet)),
        ("config", digested(&run.config)),
        ("host", run.host.clone()),
        ("kernel", run.kernel.clone()),
    ] {
        let Some(fact) = fact else { continue };
        html.raw("<dt>").raw(name).raw("</dt><dd>").text(words::shown(&fact)).raw("</dd>");
    }
    html.raw("</dl>\n");
}

/// When sessions ended.
pub(super) fn completion(html: &mut Html, course: &Course) {
    html.raw("<section><h2>Completion</h2>\n");
    if course.ends.is_empty() {
        html.raw("<p>No session has ended.</p></section>\n");
        return;
    }
    html.raw("<figure>");
    chart::completion(html, course);
    html.raw(
        "<figcaption class=\"soft\">Sessions that had ended: all (thick line) and ok (broken line)",
    );
    if !course.later_runs.is_empty() {
        html.raw(
            "; an upright line is where another run began, and the time between runs is left out",
        );
    }
    html.raw(".</figcaption></figure><p>");
    let when = |percent: usize| {
        let index = (course.ends.len() * percent).div_ceil(100).saturating_sub(1);
        words::duration(course.ends.get(index).map_or(0.0, |(at, _)| at * 1000.0))
    };
    html.raw("Half of them had ended after ").text(when(50)).raw(", 90% after ").text(when(90));
    html.raw(", the last after ").text(when(100)).raw(".</p></section>\n");
}

/// Outcomes, and why sessions are not `ok`.
pub(super) fn outcomes(html: &mut Html, tally: &Tally) {
    let outcomes = tally.outcomes();
    let all: u64 = outcomes.iter().map(|(_, count)| count).sum();
    html.raw(
        "<section><h2>Outcomes</h2>\n<div class=\"scroll\"><table id=\"outcomes\"><thead><tr>",
    );
    html.raw("<th scope=\"col\">outcome</th><th scope=\"col\" class=\"n\">count</th>");
    html.raw(
        "<th scope=\"col\" class=\"n\">share</th><td class=\"bar\"></td></tr></thead><tbody>\n",
    );
    for (outcome, count) in outcomes {
        let part = count as f64 / all.max(1) as f64;
        html.raw("<tr><th scope=\"row\">").text(outcome).raw("</th><td class=\"n\">").text(count);
        html.raw("</td><td class=\"n\">").text(format!("{:.1} %", part * 100.0));
        html.raw("</td><td class=\"bar\">");
        bar(html, part);
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
    let reasons = tally.reasons();
    if !reasons.is_empty() {
        html.raw("<table id=\"reasons\"><caption>The most frequent reasons</caption><thead><tr>");
        html.raw("<th scope=\"col\" class=\"n\">count</th><th scope=\"col\">reason</th></tr></thead><tbody>\n");
        for (reason, count) in reasons.into_iter().take(LISTED) {
            html.raw("<tr><td class=\"n\">")
                .text(count)
                .raw("</td><td class=\"why\">")
                .text(reason);
            html.raw("</td></tr>\n");
        }
        html.raw("</tbody></table>\n");
    }
    html.raw("</section>\n");
}

/// How times and bytes are spread.
pub(super) fn spreads(html: &mut Html, tally: &Tally) {
    if tally.spreads().next().is_none() {
        return;
    }
    html.raw("<section><h2>Times and bytes</h2>\n<div class=\"scroll\"><table id=\"spreads\"><thead><tr>");
    html.raw("<th scope=\"col\">of each session</th><th scope=\"col\" class=\"n\">sessions</th>");
    html.raw("<th scope=\"col\" class=\"n\">p50</th><th scope=\"col\" class=\"n\">p90</th>");
    html.raw("<th scope=\"col\" class=\"n\">p99</th><th scope=\"col\" class=\"n\">max</th>");
    html.raw("</tr></thead><tbody>\n");
    for (quantity, Spread { count, p50, p90, p99, max }) in tally.spreads() {
        html.raw("<tr><th scope=\"row\">")
            .text(quantity.name())
            .raw("</th><td class=\"n\">")
            .text(count);
        for amount in [p50, p90, p99, max] {
            html.raw("</td><td class=\"n\">").text(quantity.shown(amount));
        }
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n<p class=\"soft\">");
    html.raw("TLS, programs and START are the set-up, one after the other; run is the mlet's.");
    if tally.spreads().any(|(quantity, _)| quantity.is_relay()) {
        html.raw(" Relay is how long messages took through pktxpmgr: the p50, p99 and max of each session, \
            spread over the sessions.");
    }
    html.raw("</p></section>\n");
}

/// Run time and bytes of each endpoint.
pub(super) fn endpoints(html: &mut Html, tally: &Tally) {
    let mut endpoints: Vec<_> = tally.endpoints().iter().collect();
    endpoints.sort_unstable_by_key(|(key, _)| *key);
    let mark = |(_, totals): &(&String, &EndpointTotals)| {
        let run = totals.run_ms?;
        Some(Mark { run, bytes: totals.bytes as f64, is_ok: totals.sessions.ok > 0 })
    };
    let marks: Vec<_> = endpoints.iter().filter_map(mark).collect();
    if marks.is_empty() {
        return;
    }
    html.raw("<section><h2>Endpoints</h2>\n<figure>");
    chart::endpoints(html, &marks);
    html.raw("<figcaption class=\"soft\">Run time (along) and bytes relayed (up) of ");
    html.text(counted(marks.len() as u64, "endpoint"));
    html.raw(" whose mlet ran: a dot with a session that is ok, a cross without.</figcaption></figure>\n");
    endpoints.sort_by(|a, b| b.1.run_ms.unwrap_or(-1.0).total_cmp(&a.1.run_ms.unwrap_or(-1.0)));
    list(html, "The longest run time", &endpoints);
    if marks.iter().any(|mark| mark.bytes > 0.0) {
        endpoints.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.bytes));
        list(html, "The most bytes", &endpoints);
    }
    html.raw("</section>\n");
}

fn list(html: &mut Html, caption: &'static str, endpoints: &[(&String, &EndpointTotals)]) {
    html.raw("<div class=\"scroll\"><table><caption>").raw(caption);
    html.raw("</caption><thead><tr><th scope=\"col\">key</th><th scope=\"col\" class=\"n\">sessions</th>");
    html.raw("<th scope=\"col\" class=\"n\">ok</th><th scope=\"col\" class=\"n\">run time</th>");
    html.raw("<th scope=\"col\" class=\"n\">bytes</th></tr></thead><tbody>\n");
    for (key, totals) in endpoints.iter().take(LISTED) {
        html.raw("<tr><th scope=\"row\"><code>").text(words::front(Some(key)));
        html.raw("</code></th><td class=\"n\">").text(totals.sessions.all);
        html.raw("</td><td class=\"n\">").text(totals.sessions.ok);
        html.raw("</td><td class=\"n\">")
            .text(totals.run_ms.map_or_else(String::new, words::duration));
        html.raw("</td><td class=\"n\">");
        html.text(words::size(totals.bytes)).raw("</td></tr>\n");
    }
    html.raw("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::LOADING;

    #[test]
    fn style_and_script_end_no_element_and_load_nothing() {
        for part in LOADING.iter().chain(&["fetch("]) {
            assert!(!LOOK.style.contains(part) && !LOOK.script.contains(part), "{part}");
        }
    }
}
