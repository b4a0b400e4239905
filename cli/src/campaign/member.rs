//! A run as a member of a campaign, from the join to the leave.
//!
//! Not here: when the database is asked, and what its answers mean (the crate `campaign`). Invariant: nothing here waits, but
//! the join before the run and the leave behind it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ::campaign::{Access, Client, DatabaseError, JoinError, Plan, Settings};
use command_line::provenance::kernel_value;
use engine::config::{Config, Experiment};
use engine::permits::Permits;
use packetlab::escape::Escaped;
use packetlab::key::sha256;
use tokio::sync::mpsc::unbounded_channel;
use tracing::{info, warn};

use self::permits::MemberPermits;
use self::shared::Shared;
use super::texts;
use crate::args::Args;
use crate::campaign_access::shown;
use crate::exit::{Exit, Failure};
use crate::results_folder::ResultsFolder;

mod permits;
mod shared;

/// A membership, from the join to the leave.
pub(crate) struct Membership(Shared<Client>);

/// Joins the campaign that `args` name, and gives what the engine asks for permits. The configuration publishes the campaign's
/// descriptors from now on, and the results folder is of it.
///
/// # Errors
/// The database cannot be reached, the campaign is not one of this mlet and these experiments, or the folder is of another.
pub(crate) fn join(
    args: &Args,
    access: Access,
    config: &mut Config,
    results: Option<&mut ResultsFolder>,
) -> Result<(Membership, Box<dyn Permits>), Failure> {
    let refused = |problem: String| Failure::new(Exit::Config, format!("--campaign: {problem}"));
    texts::check_publication(config).map_err(refused)?;
    let (sender, heard) = unbounded_channel();
    let name = access.address.campaign().to_owned();
    let settings = Settings {
        access,
        plan: plan_of(args, &config.experiments)?,
        host: kernel_value("kernel/hostname").unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        places: u32::try_from(config.limits.sessions_max).unwrap_or(u32::MAX),
        fence: args.campaign.fence(),
    };
    let fence = settings.fence;
    // It fails when the run is over, and then nobody wants to hear.
    let hear = move |news| drop(sender.send(news));
    let client = ::campaign::join(settings, hear).map_err(|error| {
        let exit = match &error {
            JoinError::Database(DatabaseError::NoSchema(_) | DatabaseError::NoRights(_)) => {
                Exit::Config
            }
            JoinError::Database(_) | JoinError::Thread(_) => Exit::Listen,
            _ => Exit::Config,
        };
        let told = match (&error, results.as_deref().and_then(ResultsFolder::of_lost_campaign)) {
            (JoinError::Database(error), _) => shown(error),
            (JoinError::Unknown(_), Some(folder)) => format!("{error}; {folder}"),
            _ => error.to_string(),
        };
        Failure::new(exit, format!("--campaign: {told}"))
    })?;
    let text = client.plan().descriptor.clone().unwrap_or_default();
    let (waves, lease) = (client.waves().to_vec(), client.lease());
    let joined = results.map_or(Ok(()), |results| results.join(client.created()));
    let client = Shared::new(client);
    let membership = Membership(client.clone());
    let lines = texts::lines_for(&text, &config.experiments).map_err(refused);
    let lines = match joined.and(lines) {
        Ok(lines) => lines,
        Err(failure) => {
            membership.leave();
            return Err(failure);
        }
    };
    if let Some(warning) = texts::elsewhere(&lines, config) {
        warn!("{warning}");
    }
    for publication in &mut config.publications {
        publication.texts = Some(lines.clone());
    }
    info!("member of the campaign {name}");
    Ok((membership, Box::new(MemberPermits::new(client, heard, (waves, fence, lease)))))
}

/// What this manager would measure with.
///
/// # Errors
/// The mlet cannot be read, or an argument is no text.
pub(super) fn plan_of(args: &Args, experiments: &[Experiment]) -> Result<Plan, Failure> {
    let argv = args.mlet_arguments().iter().map(|word| {
        word.to_str().map(ToOwned::to_owned).ok_or_else(|| {
            let shown = Escaped(word.as_bytes());
            let problem = "in a campaign the mlet's arguments are compared, so they must be text";
            Failure::new(Exit::Usage, format!("{shown}: {problem}"))
        })
    });
    Ok(Plan {
        mlet_digest: mlet_digest(args.mlet())?,
        argv: argv.collect::<Result<_, _>>()?,
        descriptor: None,
        snikeys: experiments.iter().map(|one| one.snikey.as_str().to_owned()).collect(),
    })
}

/// What all managers run is compared by its bytes.
///
/// # Errors
/// It cannot be read.
fn mlet_digest(path: &Path) -> Result<[u8; 32], Failure> {
    let bytes = fs::read(path).map_err(|error| {
        let shown = Escaped(path.as_os_str().as_bytes());
        Failure::new(Exit::Config, format!("cannot read the mlet {shown}: {error}"))
    })?;
    Ok(sha256(&bytes))
}

impl Membership {
    /// Leaves: what has ended is reported, and what runs is lost to others. Waits for that, ten seconds at most.
    pub(crate) fn leave(self) {
        self.0.take().into_iter().for_each(Client::leave);
    }
}
