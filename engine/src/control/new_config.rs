//! A configuration that is read while a run goes on, and where the run stands with that.
//!
//! Not here: what is made of it (`reload.rs`).

use std::sync::Arc;
use std::time::Instant;

use super::clock::wall;
use super::steering::Asker;
use crate::config::Config;
use crate::proto::experiments::Experiments;

/// Reads the configuration again, on a thread of its own. Of what it gives the controller key, the experiments, the
/// programs, the publication, and all of the proxy but its presence are put into effect. What is only odd in the
/// config file comes with it, a line each, and is in the log already. The error says in words for the log, some lines
/// perhaps, what is wrong and where.
pub type Reader = Arc<dyn Fn() -> Result<(Config, Vec<String>), String> + Send + Sync>;

/// Where the run stands with reloads.
pub(super) struct Reloads {
    pub(super) reader: Reader,
    /// Whom the one that is being read is answered, and since when it is; `None` while nothing is.
    pub(super) reading: Option<(Vec<Asking>, Instant)>,
    /// Who asked meanwhile, and is answered by the next one.
    pub(super) next: Vec<Asking>,
}

/// Who asks for a reload; `None` is a signal.
pub(super) type Asking = Option<Asker>;

/// A configuration that was read, with what is made of it once.
pub(super) struct NewConfig {
    pub(super) config: Config,
    pub(super) experiments: Experiments,
    /// What is only odd, a line each.
    pub(super) warnings: Vec<String>,
}

impl Reloads {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, reading: None, next: Vec::new() }
    }
}

/// Reads it, and makes of it what takes long.
pub(super) fn read(reader: &Reader, before: &Experiments) -> Result<NewConfig, String> {
    let (config, warnings) = reader()?;
    let experiments = before.reloaded(&config, wall());
    let experiments = experiments.map_err(|error| format!("TLS cannot use it: {error}"))?;
    Ok(NewConfig { config, experiments, warnings })
}
