//! `run.json`: what is known of each run of a folder.
//!
//! Not here: the file itself (`folder.rs`). All but the run's name may be missing.

use serde::Deserialize;

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Run {
    /// Its name, as records have it.
    #[serde(rename = "run")]
    pub(crate) name: String,
    pub(crate) program: Option<String>,
    pub(crate) commit: Option<String>,
    #[serde(default)]
    pub(crate) command: Vec<String>,
    pub(crate) config: Option<Digested>,
    pub(crate) mlet: Option<Digested>,
    pub(crate) host: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) note: Option<String>,
}

/// A file, and what was in it.
#[derive(Debug, Deserialize)]
pub(crate) struct Digested {
    pub(crate) path: String,
    /// Hexadecimal.
    pub(crate) sha256: String,
}

impl Run {
    /// The runs that a file of this text tells of.
    ///
    /// # Errors
    /// It is no such file, in words.
    pub(crate) fn list(text: &[u8]) -> Result<Vec<Self>, String> {
        let runs: Runs = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        Ok(runs.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_may_tell_little_and_may_tell_what_nobody_knows() {
        let text = br#"{"v":1,"runs":[{"run":"7f3a","ended":null,"limits":{"x":1},"new":[],
            "mlet":{"path":"./m","sha256":"ab","arguments":[]}},{"run":"8"}]}"#;
        let runs = Run::list(text).unwrap();
        assert_eq!((runs.len(), &*runs[0].name, &*runs[1].name), (2, "7f3a", "8"));
        assert_eq!(runs[0].mlet.as_ref().unwrap().sha256, "ab");
        assert!(Run::list(b"{").is_err());
    }
}
