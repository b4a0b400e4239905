//! What a campaign is created from: of the command line and the config file what its descriptors tell.
//!
//! Not here: what a manager needs beside them. Invariant: no file that the config file names is opened, so that whoever creates
//! a campaign needs none of its managers' keys and certificates.

use std::time::{Duration, SystemTime};

use engine::config::{Called, ControllerAddr, Experiment};
use packetlab::time::Ticks;

use super::{Kept, Loader, Purpose, read_config, settings_of};
use crate::args::Args;
use crate::conf;
use crate::findings::Findings;

/// What the descriptors of a campaign are made of.
pub(crate) struct OfCampaign {
    /// `None` if nothing is published.
    pub(crate) publication: Option<CampaignPublication>,
    /// Without chains and operators.
    pub(crate) experiments: Vec<Experiment>,
    /// Lines of the `ExpExec` entries whose snikey was drawn at random.
    pub(crate) drawn_snikeys: Vec<usize>,
}

/// The part that all experiments have in common.
pub(crate) struct CampaignPublication {
    pub(crate) called: Called,
    /// `None` if it was complained of.
    pub(crate) controller_addr: Option<ControllerAddr>,
    pub(crate) period: Option<Duration>,
}

/// Reads it; `None` if anything is missing or wrong, which is among the findings.
pub(crate) fn read(args: &Args, now: SystemTime, findings: &mut Findings) -> Option<OfCampaign> {
    let source = findings.keep(read_config(args))?;
    let settings = settings_of(&source, conf::read_alone(&source), findings)?;
    let mut loader = Loader {
        args,
        source: &source,
        now: Ticks::from_system_time(now),
        publication_end: None,
        purpose: Purpose::Check,
        listening: &[],
        kept: &mut Kept::default(),
        findings,
        drawn_snikeys: Vec::new(),
    };
    let approach = loader.approach(settings.proxy.is_some());
    let publication = settings.publication.map(|publication| {
        let told = (approach.as_ref(), &settings.experiments[..]);
        let addressed = loader.publication_addresses(publication, told);
        loader.campaigns(addressed)
    });
    let experiments = settings.experiments.into_iter();
    let experiments: Vec<_> = experiments.map(|one| loader.described_experiment(one)).collect();
    let drawn_snikeys = loader.drawn_snikeys;
    let experiments = experiments.into_iter().collect::<Option<_>>()?;
    findings.is_empty().then_some(OfCampaign { publication, experiments, drawn_snikeys })
}
