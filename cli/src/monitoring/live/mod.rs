//! The page of a run while it goes on, and what keeps it up to date.
//!
//! ```text
//! main.html, script.js, style.css  the page, which is the same for everybody
//! watched.rs   the run as all pages see it: looked at once a second for all of them, or seldom for none
//! history.rs   how it has gone so far
//! cells.rs     the cells of their tables
//! told.rs      what pages are told: every number on them, as text
//! sessions.rs  the table of sessions, as somebody asks for it
//! query.rs     what is asked for
//! streams.rs   who may be told again and again, and how slowly
//! ```
//!
//! Not here: what pages share with the one after a run (`page/`), and who may connect (`server.rs`). Invariant: however many
//! look, the run's threads are asked for nothing but the list of sessions, once a second at most.

mod cells;
mod history;
mod query;
mod sessions;
mod streams;
mod told;
mod watched;

pub(super) use self::query::Query;
pub(super) use self::streams::{Place, STREAMS_MAX};
pub(super) use self::watched::Watched;
use crate::page::html::Html;
use crate::page::policy::{Look, policy};
use crate::page::{begin, end};

const LOOK: Look = Look {
    style: concat!(include_str!("../../page/style.css"), include_str!("style.css")),
    script: concat!(include_str!("../../page/headings.js"), include_str!("script.js")),
    connect: "'self'",
};

/// The page of a run of this mlet.
pub(super) fn page(mlet: &str) -> String {
    let mut html = Html::default();
    begin(&mut html, &format!("Run of {mlet}"), &LOOK);
    html.raw(include_str!("main.html"));
    end(&mut html, &LOOK);
    html.finish()
}

/// Its Content-Security-Policy; what only a header can say is that no other page may show it as a part.
pub(super) fn policy_header() -> String {
    format!("{}; frame-ancestors 'none'", policy(&LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::LOADING;

    #[test]
    fn style_and_script_end_no_element_and_load_nothing_from_elsewhere() {
        for part in LOADING {
            assert!(!LOOK.style.contains(part) && !LOOK.script.contains(part), "{part}");
        }
        for part in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!LOOK.script.contains(part), "{part}");
        }
    }

    #[test]
    fn a_mlet_may_be_called_anything() {
        assert!(page("<b>&").contains("<h1>Run of &lt;b&gt;&amp;</h1>"));
    }
}
