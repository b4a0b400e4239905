//! The file of ceilings: what was counted when it was written, and how much it may be.
//!
//! Not here: counting. Invariant: whatever is counted stands in the file, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, PoisonError};

/// What was counted, by name.
pub(crate) type Counts = BTreeMap<String, u64>;

/// By section and name: what was counted when the file was written, and the ceiling.
type Ceilings = BTreeMap<String, BTreeMap<String, Ceiling>>;
type Ceiling = BTreeMap<String, u64>;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ceilings.json");

/// Members of a ceiling.
const COUNTED: &str = "counted";
const CEILING: &str = "ceiling";

/// Percent above what was counted at which the ceiling is.
const CEILING_PERCENT: u64 = 3;

/// Percent below what was counted from which on the file is to be renewed, or the ceiling would allow the gain to be
/// lost again.
const GAIN_PERCENT: u64 = 10;

/// Tests run beside one another, and each renews its own section.
static RENEWING: Mutex<()> = Mutex::new(());

/// Holds what was counted to the file's section, or writes it there if `RENEW_CEILINGS` is set.
pub(crate) fn check(section: &str, counts: &Counts) {
    let _guard = RENEWING.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(FILE).expect("a readable file");
    let mut file: Ceilings = serde_json::from_str(&text).expect("ceilings");
    for (name, count) in counts {
        println!("{name}: {count}");
    }
    if std::env::var_os("RENEW_CEILINGS").is_some() {
        let renewed = counts.iter().map(|(name, count)| (name.clone(), ceiling(*count)));
        file.insert(section.to_owned(), renewed.collect());
        let text = serde_json::to_string_pretty(&file).expect("names and numbers");
        fs::write(FILE, text + "\n").expect("a writable file");
        return;
    }
    let faults = faults(counts, file.get(section).unwrap_or(&BTreeMap::new()));
    assert!(
        faults.is_empty(),
        "{}\nif that is meant: RENEW_CEILINGS=1 cargo test -p bench --test counts -- --include-ignored",
        faults.join("\n")
    );
}

fn ceiling(count: u64) -> Ceiling {
    let ceiling = count + count * CEILING_PERCENT / 100;
    Ceiling::from([(COUNTED.to_owned(), count), (CEILING.to_owned(), ceiling)])
}

/// Each count that is above its ceiling or far below it, that has none, or that is not taken any more.
fn faults(counts: &Counts, ceilings: &BTreeMap<String, Ceiling>) -> Vec<String> {
    let names = counts.keys().chain(ceilings.keys()).collect::<BTreeSet<_>>();
    let fault = |name: &String| {
        let Some(count) = counts.get(name) else {
            return Some(format!("{name}: not counted any more, but in {FILE}"));
        };
        let Some(Some((base, ceiling))) =
            ceilings.get(name).map(|of| of.get(COUNTED).zip(of.get(CEILING)))
        else {
            return Some(format!("{name}: {count}, without a ceiling in {FILE}"));
        };
        if count > ceiling {
            Some(format!("{name}: {count}, more than the ceiling of {ceiling}; it was {base}"))
        } else if count * 100 < base * (100 - GAIN_PERCENT) {
            Some(format!("{name}: {count}, so much less than {base} that the ceiling is too high"))
        } else {
            None
        }
    };
    names.into_iter().filter_map(fault).collect()
}

#[test]
fn a_count_too_high_or_low_for_its_ceiling_is_told_and_no_other() {
    let of = |count: u64| [("it".to_owned(), count)];
    let file = BTreeMap::from([("it".to_owned(), ceiling(1_000))]);
    for count in [900, 1_000, 1_030] {
        assert_eq!(faults(&of(count).into(), &file), Vec::<String>::new(), "{count}");
    }
    for count in [0, 899, 1_031] {
        assert_eq!(faults(&of(count).into(), &file).len(), 1, "{count}");
    }
    let none = BTreeMap::from([("it".to_owned(), ceiling(0))]);
    assert_eq!(faults(&of(0).into(), &none).len(), 0);
    assert_eq!(faults(&of(1).into(), &none).len(), 1);
    assert_eq!(faults(&of(1).into(), &BTreeMap::new()).len(), 1);
    assert_eq!(faults(&Counts::new(), &file).len(), 1);
}
