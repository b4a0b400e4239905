//! The options for a campaign that several managers share.
//!
//! Not here: the database's files, which the commands of a campaign take as well (`campaign_access.rs`).

use campaign::{Address, Fence};
use clap::{Args, ValueEnum};

use crate::campaign_access::AccessArgs;

pub(super) const HEADING: &str = "A campaign of several managers";

/// As typed.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct CampaignArgs {
    /// postgres://USER@HOST/DATABASE#NAME
    #[arg(long, value_name = "URL#NAME")]
    campaign: Option<String>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    /// Sessions without a lease: kill, finish
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "HOW",
        hide_default_value = true,
        hide_possible_values = true
    )]
    fence: FenceArg,

    #[arg(skip)]
    address: Option<Address>,
}

/// What becomes of sessions when the database is away for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum FenceArg {
    #[default]
    Kill,
    Finish,
}

impl CampaignArgs {
    /// Reads the address. What is wrong with it is told without it, for it may hold a password.
    ///
    /// # Errors
    /// It names no database and campaign.
    pub(super) fn read_address(&mut self) -> Result<(), String> {
        let read = self.campaign.as_deref().map(str::parse).transpose();
        self.address =
            read.map_err(|error: campaign::AddressError| format!("--campaign: {error}"))?;
        Ok(())
    }

    /// The campaign, if there is one.
    pub(crate) fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// What becomes of sessions when the lease is lost.
    pub(crate) fn fence(&self) -> Fence {
        match self.fence {
            FenceArg::Kill => Fence::Kill,
            FenceArg::Finish => Fence::Finish,
        }
    }
}
