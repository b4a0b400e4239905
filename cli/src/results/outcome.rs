//! The closed list of outcomes by their names.
//!
//! Not here: which end is which outcome, and which sessions count as failed (`engine/src/records/outcome.rs`). A record may
//! name one that is not in the list, of a later version; it is read all the same.

/// Every outcome a record may have.
pub(crate) const OUTCOMES: [&str; 28] = [
    "ok",
    "mlet_failed",
    "mlet_signal",
    "mlet_timeout",
    "idle_timeout",
    "spawn_failed",
    "endpoint_closed",
    "endpoint_reset",
    "undelivered",
    "tls_failed",
    "certificate_refused",
    "no_experiment",
    "programs_failed",
    "start_refused",
    "handshake_timeout",
    "setup_timeout",
    "refused_limit",
    "own_chain",
    "backlog_lost",
    "already_measured",
    "skipped",
    "surplus",
    "duplicate",
    "campaign_refused",
    "killed",
    "deadline",
    "drained",
    "internal",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// The variants of the engine's enum, by their names in records.
    fn of_engine() -> BTreeSet<String> {
        let source = include_str!("../../../engine/src/records/outcome.rs");
        let (_, variants) = source.split_once("pub enum OutcomeKind {\n").unwrap();
        let (variants, _) = variants.split_once("\n}\n").unwrap();
        let variants = variants.lines().filter(|line| !line.trim_start().starts_with("//"));
        variants.map(|variant| in_snake_case(variant.trim().trim_end_matches(','))).collect()
    }

    fn in_snake_case(variant: &str) -> String {
        let letters = variant.char_indices().flat_map(|(index, letter)| {
            let gap = (letter.is_ascii_uppercase() && index > 0).then_some('_');
            gap.into_iter().chain([letter.to_ascii_lowercase()])
        });
        letters.collect()
    }

    fn owned<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_lists_of_outcomes_agree() {
        let all = owned(OUTCOMES);
        assert_eq!(all.len(), OUTCOMES.len(), "each stands there once");
        assert_eq!(all, of_engine());
        let schema = include_str!("../../../docs/events.schema.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        let named = schema["$defs"]["outcome"]["enum"].as_array().unwrap();
        assert_eq!(named.len(), all.len());
        assert_eq!(owned(named.iter().map(|name| name.as_str().unwrap())), all);
        let page = include_str!("../../../docs/operating.md");
        let (_, table) =
            page.split_once("\n| outcome | what happened | failed |\n|---|---|---|\n").unwrap();
        let cells = table.lines().map_while(|line| line.strip_prefix("| ")?.split(" | ").next());
        let told = cells.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`')));
        assert_eq!(owned(told), all);
    }
}
