//! What pages of HTML share: the one after a run (`report_page/`) and the one while it goes on (`monitoring/`).
//!
//! ```text
//! html.rs    text of HTML in the making, and the one place that escapes
//! chart.rs   charts
//! policy.rs  what a page may load and run
//! style.css, headings.js: how both look, and tables that a heading sorts
//! ```
//!
//! Not here: what either of them says. Invariant: a page loads nothing from elsewhere.

pub(crate) mod chart;
pub(crate) mod html;
pub(crate) mod policy;

use html::Html;
use policy::{Look, policy};

/// A page up to what its `main` begins with: its title as a heading.
pub(crate) fn begin(html: &mut Html, title: &str, look: &Look) {
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    html.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"");
    html.text(policy(look));
    html.raw(
        "\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
    );
    html.text(title)
        .raw("</title>\n<style>")
        .raw(look.style)
        .raw("</style></head>\n<body><main><h1>");
    html.text(title).raw("</h1>\n");
}

/// The page from the end of its `main` on.
pub(crate) fn end(html: &mut Html, look: &Look) {
    html.raw("</main>\n<script>").raw(look.script).raw("</script></body></html>\n");
}

/// Beginnings of what a style or a script could load from elsewhere, or end its element with.
#[cfg(test)]
pub(crate) const LOADING: [&str; 6] = ["</", "<!--", "http:", "https:", "url(", "@import"];
