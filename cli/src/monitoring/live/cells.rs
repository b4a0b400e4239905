//! The cells of tables, as pages are told them.
//!
//! Not here: what is in them. Invariant: what a peer has said is in a text or a title, and nowhere else.

use serde::Serialize;

/// A cell of a table: a text, a text that is cut with all of it as its title, a bar, or the sample of a line.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Cell {
    Text(String),
    Cut {
        text: String,
        title: String,
    },
    /// Percent of its length.
    Bar {
        bar: String,
    },
    /// The class of the line.
    Line {
        line: &'static str,
    },
}

impl<T: ToString> From<T> for Cell {
    fn from(told: T) -> Self {
        Self::Text(told.to_string())
    }
}

/// The rows of a table.
pub(super) type Rows = Vec<Vec<Cell>>;
