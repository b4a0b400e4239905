//! `pktxpmgr report`: one page of HTML that holds all that a results folder tells, for people.
//!
//! Not here: reading the folder (`results/`). Invariant: the page loads nothing, and nothing that an endpoint or a mlet said
//! is anything but text in it.

mod chart;
mod page;
mod sessions;
mod timeline;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use packetlab_home::file;

use crate::page::html::Html;
use crate::page::{begin, end};
use crate::results::chosen::Filter;
use crate::results::failure::{Failure, shown_path};
use crate::results::folder::Folder;
use crate::results::record::Event;
use crate::results::tally::Tally;
use crate::results::words;
use sessions::Rows;
use timeline::Timeline;

/// The page's name within the folder.
const PAGE: &str = "report.html";

const EXAMPLES: &str = "\
Examples:
  pktxpmgr report DIR                  writes DIR/report.html
  pktxpmgr report DIR -o campaign.html";

const NOTES: &str = "\
The page stands alone: it loads nothing, and a browser opens it from the disk.
It shows completion over time, outcomes and reasons, percentiles, endpoints, and
a table of sessions with the beginning of their output. DIR may still be written
by a run. pktxpmgr results reads the same for programs. A mlet of this name is
run by pktxpmgr ./report or pktxpmgr -- report.

Exit codes: 0 done, 2 usage, 3 the folder cannot be read, 74 the page cannot be
written.";

/// What `pktxpmgr report` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub(crate) struct Options {
    /// The results folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Where the page goes, over what was there [default: DIR/report.html]
    #[arg(short = 'o', long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Makes the page.
///
/// # Errors
/// There is no such folder, or it cannot be read, or the page cannot be written.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = Folder::open(&options.dir)?;
    let (page, sessions) = page_of(&folder)?;
    let path = options.out.clone().unwrap_or_else(|| options.dir.join(PAGE));
    write(&path, page.as_bytes())?;
    let (path, len) = (shown_path(&path), words::size(page.len() as u64));
    Ok(writeln!(io::stdout(), "{path}: {}, {len}", words::counted(sessions, "session"))?)
}

/// The page, and how many sessions it tells of.
fn page_of(folder: &Folder) -> Result<(String, u64), Failure> {
    let (mut tally, mut timeline, mut rows) =
        (Tally::default(), Timeline::default(), Rows::default());
    folder.scan(|event, place| {
        tally.add(&event, &Filter::default());
        timeline.add(&event);
        if let Event::Session(session) = event {
            rows.add(&session, place);
        }
    })?;
    let mut html = Html::default();
    begin(&mut html, &format!("Campaign {}", name(folder.path())), &page::LOOK);
    page::figures(&mut html, &tally);
    page::runs(&mut html, &tally.runs, &folder.runs());
    page::completion(&mut html, &timeline.course());
    page::outcomes(&mut html, &tally);
    page::spreads(&mut html, &tally);
    page::endpoints(&mut html, &tally);
    rows.write(&mut html, folder)?;
    end(&mut html, &page::LOOK);
    Ok((html.finish(), tally.sessions.all))
}

/// What the folder is called, wherever it is.
fn name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    shown_path(Path::new(whole.file_name().unwrap_or(whole.as_os_str())))
}

/// Writes the page for its owner alone, whole or not at all; one that is there is replaced and keeps its mode.
fn write(path: &Path, page: &[u8]) -> Result<(), Failure> {
    let written = match file::create(path, page) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => file::replace(path, page),
        written => written,
    };
    written.map_err(|error| {
        Failure::NotWritten(format!("{} cannot be written: {error}", shown_path(path)))
    })
}
