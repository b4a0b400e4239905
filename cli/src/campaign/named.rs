//! The campaign that a command names, and why what is asked of it is not done.
//!
//! Not here: what is asked (`command.rs`).

use ::campaign::DatabaseError;
use ::campaign::administration::{Administration, AdministrationError};
use clap::Args;
use packetlab::escape::Escaped;

use crate::campaign_access::{AccessArgs, address, shown};
use crate::exit::{self, Exit};
use crate::results::failure::{Failure, warn};

/// Which campaign, and how its database is reached.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// The database and the name of the campaign in it
    #[arg(value_name = "URL#NAME")]
    typed: String,

    #[command(flatten)]
    access: AccessArgs,
}

impl Named {
    /// The name of the campaign.
    ///
    /// # Errors
    /// None is named.
    pub(super) fn campaign(&self) -> Result<String, Failure> {
        Ok(address(&self.typed).map_err(told)?.campaign().to_owned())
    }

    /// Connects to the database.
    ///
    /// # Errors
    /// A file cannot be used, or the database cannot be reached.
    pub(super) fn open(&self) -> Result<Administration, Failure> {
        let access = address(&self.typed).and_then(|address| self.access.access(address));
        let mut opened = Administration::open(&access.map_err(told)?).map_err(failed)?;
        opened.tell_waits(|text| warn(Escaped(text.as_bytes())));
        Ok(opened)
    }
}

/// What the database refused, with the exit code that belongs to it.
pub(super) fn failed(error: AdministrationError) -> Failure {
    use AdministrationError as Error;
    let told = match &error {
        Error::Database(error) => shown(error),
        // Of a folder, whose name is escaped already.
        Error::Journal(why) => why.clone(),
        _ => Escaped(error.to_string().as_bytes()).to_string(),
    };
    match error {
        Error::Database(DatabaseError::NoSchema(_)) => Failure::Unusable(told),
        Error::Database(DatabaseError::NoRights(_)) => Failure::Refused(told),
        Error::Database(_) | Error::Silent(_) => Failure::Unreachable(told),
        Error::Unknown(_)
        | Error::Exists(_)
        | Error::ManagersThere { .. }
        | Error::NoReader
        | Error::NoOwner => Failure::Refused(told),
        Error::NoText | Error::Count | Error::Lease | Error::Created => Failure::Usage(told),
        Error::NewerSchema { .. }
        | Error::OlderSchema { .. }
        | Error::Roles
        | Error::Server(_)
        | Error::Journal(_) => Failure::Unusable(told),
    }
}

/// The same of what stands on the command line, or in files that it names.
pub(super) fn told(failure: exit::Failure) -> Failure {
    match failure.exit {
        Exit::Usage => Failure::Usage(failure.message),
        _ => Failure::Unusable(failure.message),
    }
}
