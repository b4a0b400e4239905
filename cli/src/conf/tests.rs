//! Reading whole config files. Paths are those of this package, where cargo runs the tests.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Any regular file will do: nothing here looks inside.
const FILE: &str = "Cargo.toml";

/// The least that is accepted.
const LEAST: &str = "EnableExpPublication 0\nControllerPrivkeyPath Cargo.toml\n\
                     ExpExec 1:hello:Cargo.toml:Cargo.toml::\n";

fn source(text: &str) -> Source {
    Source { path: "x.conf".into(), text: text.as_bytes().to_vec() }
}

fn accepted(text: &str) -> Settings {
    let source = source(text);
    let Outcome { errors, settings, .. } = read(&source);
    let complaints: Vec<_> = errors.iter().map(|error| source.with_caret(error)).collect();
    assert!(complaints.is_empty(), "{text}\n{}", complaints.join("\n"));
    settings.unwrap()
}

/// The complaints, one a line.
fn refused(text: &str) -> Vec<String> {
    let source = source(text);
    let complaints = read(&source).errors;
    assert!(!complaints.is_empty(), "{text}");
    complaints.iter().map(|complaint| source.one_line(complaint)).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let source = source(text);
    let warnings = read(&source).warnings;
    warnings.iter().map(|complaint| source.one_line(complaint)).collect()
}

/// The complaint about the last line of `LEAST` plus these lines; it must be the only one.
fn complaint(lines: &str) -> String {
    let mut complaints = refused(&format!("{LEAST}{lines}"));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    complaints.remove(0)
}

/// The complaint about an `ExpExec` line.
fn exp_exec_complaint(value: &str) -> String {
    let text = format!("EnableExpPublication 0\nControllerPrivkeyPath {FILE}\nExpExec {value}\n");
    let mut complaints = refused(&text);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    complaints.remove(0)
}

#[test]
fn the_least_that_is_needed_is_accepted_with_the_defaults() {
    let settings = accepted(LEAST);
    assert!(settings.publication.is_none());
    assert!(settings.proxy.is_none());
    assert!(settings.program_directory.is_none());
    assert_eq!(settings.controller_key.unwrap().value, Path::new(FILE));
    let [experiment] = &settings.experiments[..] else { panic!("one experiment") };
    assert!(experiment.is_default.value);
    assert_eq!(experiment.snikey.as_ref().unwrap().value.as_str(), "hello");
    assert_eq!(experiment.channels, [None]);
    assert!(experiment.overrides.is_empty());
}

#[test]
fn every_key_is_read() {
    let settings = accepted(&format!(
        "EnableExpPublication 1\nBrokerAddr broker.example,[::1]:7\nPubAgentCertPath {FILE}\n\
         BrokerCertRootPath {FILE},{FILE}\nPubControllerAddr [2001:db8::1]:5\nPubPeriod 31536000000000000\n\
         PubExpPriority 7\nPubCountry USA,DEU\nPubLocation IO91*,BK29\nGreetPeriodAfterPubEnd 5s\n\
         ControllerPrivkeyPath {FILE}\nExpExec 0::{FILE},{FILE}:{FILE}:0102,,AA:foo=bar;baz=q*;\n\
         ProgramDirPath src/\nEnableProxyMode 1\nBacklogConnAgentCertPath {FILE}\n\
         ProxyCertRootPath {FILE}\nTargetBacklogConn 3\nBacklogConnTimeout 3000000000\n\
         BootstrapBacklogTimeout 250ms\n"
    ));
    let publication = settings.publication.unwrap();
    let brokers = publication.brokers.unwrap();
    let brokers: Vec<_> = brokers.iter().map(|broker| broker.value.to_string()).collect();
    assert_eq!(brokers, ["broker.example", "[::1]:7"]);
    assert_eq!(publication.broker_roots.len(), 2);
    assert_eq!(publication.controller_addr.unwrap().0, "[2001:db8::1]:5");
    assert_eq!(publication.period, Some(Duration::from_secs(31_536_000)));
    assert_eq!(publication.priority, Some(7));
    assert_eq!(publication.countries, ["USA", "DEU"]);
    assert_eq!(publication.locations, ["IO91*", "BK29"]);
    assert_eq!(publication.greet_after, Duration::from_secs(5));
    let proxy = settings.proxy.unwrap();
    assert_eq!(proxy.agent_certificate.unwrap().value, Path::new(FILE));
    assert_eq!(proxy.proxy_roots.len(), 1);
    assert_eq!(proxy.backlog_target, 3);
    assert_eq!(proxy.step_timeout, Duration::from_secs(3));
    assert_eq!(proxy.bootstrap_timeout, Duration::from_millis(250));
    assert_eq!(settings.program_directory.unwrap().value, Path::new("src/"));
    let experiment = &settings.experiments[0];
    assert!(experiment.snikey.is_none());
    let chain = experiment.chain.as_ref().unwrap();
    assert_eq!((chain.len(), experiment.trusted_operators.as_ref().unwrap().len()), (2, 1));
    let channels: Vec<_> =
        experiment.channels.iter().map(|id| id.as_ref().map(ToString::to_string)).collect();
    assert_eq!(channels, [Some("0102".to_owned()), None, Some("aa".to_owned())]);
    let pairs: Vec<_> =
        experiment.overrides.iter().map(|o| (&*o.pair.name, &*o.pair.value)).collect();
    assert_eq!(pairs, [("foo", "bar"), ("baz", "q*")]);
}

#[test]
fn proxy_settings_have_the_defaults_of_the_original() {
    let proxy = accepted(&format!("{LEAST}EnableProxyMode 1\n")).proxy.unwrap();
    assert_eq!(proxy.backlog_target, 2);
    assert_eq!(proxy.step_timeout, Duration::from_secs(2));
    assert_eq!(proxy.bootstrap_timeout, Duration::from_secs(5));
    assert!(proxy.agent_certificate.is_none() && proxy.proxy_roots.is_empty());
}

/// Item 30.
#[test]
fn unknown_keys_warn_with_key_and_place_and_without_their_value() {
    let text = format!("{LEAST}Colour blue\nexpexec x\n ExpExec y\n");
    accepted(&text);
    let warnings = warnings(&text);
    assert_eq!(warnings.len(), 3);
    assert_eq!(warnings[0], "x.conf:4:1: unknown key 'Colour' is ignored; check the spelling");
    assert!(warnings[1].ends_with("write ExpExec"), "{}", warnings[1]);
    assert!(warnings[2].starts_with("x.conf:6:2: the line begins with a blank"), "{}", warnings[2]);
}

/// Item 31.
#[test]
fn the_last_non_empty_duplicate_wins_and_earlier_ones_are_not_looked_at() {
    let settings =
        accepted(&format!("ControllerPrivkeyPath /nowhere\n{LEAST}ControllerPrivkeyPath\n"));
    assert_eq!(settings.controller_key.unwrap().place.line, 3);
    accepted(&format!("TargetBacklogConn junk\n{LEAST}TargetBacklogConn 5\nTargetBacklogConn\n"));
    assert!(complaint("TargetBacklogConn 5\nTargetBacklogConn junk\n").starts_with("x.conf:5:19:"));
    let settings = accepted(&format!("{LEAST}ExpExec\nExpExec 0:b:{FILE}:{FILE}::\n"));
    let names: Vec<_> =
        settings.experiments.iter().map(|e| e.snikey.as_ref().unwrap().value.as_str()).collect();
    assert_eq!(names, ["hello", "b"]);
}

/// Items 31, 32.
#[test]
fn of_a_repeated_switch_the_last_line_counts_even_if_empty() {
    assert!(accepted(&format!("EnableProxyMode x\n{LEAST}EnableProxyMode 1\n")).proxy.is_some());
    let complaint = complaint("EnableProxyMode 1\nEnableProxyMode\n");
    assert!(complaint.starts_with("x.conf:5:16: a value is missing"), "{complaint}");
}

/// Item 32.
#[test]
fn a_switch_other_than_0_or_1_is_an_error() {
    for bad in ["2", "yes", "01", "0 ", "true"] {
        let complaint = complaint(&format!("EnableProxyMode {bad}\n"));
        assert!(complaint.starts_with("x.conf:4:17: '"), "{complaint}");
    }
    assert!(complaint("EnableProxyMode 1 \n").contains("blanks at the end of the line"));
}

/// Items 33, 34.
#[test]
fn paths_must_lead_to_the_right_kind_of_thing() {
    let cases = [
        ("ProxyCertRootPath /dev/null", "x.conf:4:19: '/dev/null' is not a regular file"),
        ("ProxyCertRootPath src", "x.conf:4:19: 'src' is not a regular file"),
        ("BacklogConnAgentCertPath nowhere", "x.conf:4:26: cannot use 'nowhere': No such file"),
        (
            "ProxyCertRootPath Cargo.toml,,Cargo.toml",
            "x.conf:4:30: an element of the list is empty",
        ),
        ("ProxyCertRootPath Cargo.toml,", "x.conf:4:30: an element of the list is empty"),
        ("ProgramDirPath Cargo.toml", "x.conf:4:16: 'Cargo.toml' is not a directory"),
    ];
    for (line, expected) in cases {
        let complaint = complaint(line);
        assert!(complaint.starts_with(expected), "{complaint}");
    }
    assert!(complaint("ProgramDirPath ~/progs").contains("not expanded"));
    assert!(complaint("ProgramDirPath src ").contains("blanks at the end"));
}

/// Item 35.
#[test]
fn what_is_missing_is_named() {
    let complaints = refused("# nothing\n");
    let missing = ["EnableExpPublication", "ControllerPrivkeyPath", "ExpExec"];
    assert_eq!(complaints.len(), 3, "{complaints:?}");
    for key in missing {
        let expected = format!("x.conf: {key} is missing");
        assert!(complaints.iter().any(|complaint| complaint.starts_with(&expected)), "{key}");
    }
    let complaints = refused("EnableExpPublication 0\nControllerPrivkeyPath \nExpExec\n");
    assert_eq!(complaints.len(), 2, "{complaints:?}");
}

/// Item 36.
#[test]
fn publication_needs_a_broker_and_an_agent_certificate() {
    let complaints = refused(&LEAST.replace("Publication 0", "Publication 1"));
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].starts_with("x.conf: BrokerAddr is missing"));
    assert!(complaints[1].starts_with("x.conf: PubAgentCertPath is missing"));
}

/// Item 37.
#[test]
fn two_default_entries_are_refused() {
    let complaint =
        complaint("ExpExec 0:b:Cargo.toml:Cargo.toml::\nExpExec 1:c:Cargo.toml:Cargo.toml::\n");
    assert!(
        complaint.starts_with("x.conf:5:9: line 3 is the default ExpExec already"),
        "{complaint}"
    );
}

#[test]
fn two_entries_of_one_snikey_are_refused() {
    let complaint = complaint("ExpExec 0:hello:Cargo.toml:Cargo.toml::\n");
    assert!(complaint.starts_with("x.conf:4:11: line 3 has the same SNIKEY"), "{complaint}");
}

/// Item 38.
#[test]
fn an_entry_needs_all_six_fields() {
    let complaint = exp_exec_complaint("1:hello:Cargo.toml:Cargo.toml:");
    assert!(complaint.starts_with("x.conf:3:9: ExpExec has 5 of its six fields"), "{complaint}");
    // The sixth keeps further colons.
    let settings = accepted(&LEAST.replace("toml::\n", "toml::time=10:30;\n"));
    assert_eq!(settings.experiments[0].overrides[0].pair.value, "10:30");
}

/// Item 39.
#[test]
fn a_snikey_must_be_usable_as_a_server_name() {
    let too_long = "a".repeat(64);
    for bad in ["Hello", "a-b", "a.b", "a b", "é", &too_long, "123", "0x1f"] {
        let complaint = exp_exec_complaint(&format!("1:{bad}:{FILE}:{FILE}::"));
        assert!(complaint.starts_with("x.conf:3:11: "), "{complaint}");
    }
    let longest = "a".repeat(63);
    let settings = accepted(&LEAST.replace("hello", &longest));
    assert_eq!(settings.experiments[0].snikey.as_ref().unwrap().value.as_str(), longest);
}

/// Items 34, 40.
#[test]
fn the_chain_must_name_files() {
    let complaint = exp_exec_complaint("1:hello::Cargo.toml::");
    assert!(complaint.starts_with("x.conf:3:17: an element of the list is empty"), "{complaint}");
    let complaint = exp_exec_complaint("1:hello:Cargo.toml:Cargo.toml,::");
    assert!(complaint.starts_with("x.conf:3:39: an element of the list is empty"), "{complaint}");
}

/// Item 41.
#[test]
fn without_operator_keys_only_short_explicit_channels_are_accepted() {
    let key_channel = "00".repeat(32);
    for channels in ["", "01,", ",01", "01,,02", &key_channel] {
        let complaint = exp_exec_complaint(&format!("1:hello:{FILE}::{channels}:"));
        assert!(complaint.starts_with("x.conf:3:29: without TRUSTEDEOP_PATH"), "{complaint}");
    }
    let almost = "00".repeat(31);
    for channels in ["01", "0102,aa", &almost] {
        accepted(&LEAST.replace("Cargo.toml::", &format!(":{channels}:")));
    }
    accepted(&LEAST.replace("Cargo.toml::", &format!("Cargo.toml:{key_channel}:")));
}

/// Item 42.
#[test]
fn channels_are_pairs_of_hexadecimal_digits_and_at_most_32_bytes() {
    let long = "00".repeat(33);
    for (channel, expected) in [
        ("0", "x.conf:3:39: the channel has 1 hexadecimal digits"),
        ("aa,0g", "x.conf:3:42: 'g' in the channel is no hexadecimal digit"),
        ("0x01", "x.conf:3:39: 'x' in the channel is no hexadecimal digit"),
        (&long, "x.conf:3:39: the channel has 33 bytes"),
    ] {
        let complaint = exp_exec_complaint(&format!("1:hello:{FILE}:{FILE}:{channel}:"));
        assert!(complaint.starts_with(expected), "{complaint}");
    }
}

/// Item 43.
#[test]
fn override_text_must_keep_the_grammar_of_descriptors() {
    for (text, column) in
        [("foo=bar", 40), ("foo=bar;baz", 48), ("=x;", 40), ("foo;", 40), ("a=%;", 42)]
    {
        let complaint = exp_exec_complaint(&format!("1:hello:{FILE}:{FILE}::{text}"));
        let expected = format!("x.conf:3:{column}: OVERRIDE_XDESCRNVP cannot be read");
        assert!(complaint.starts_with(&expected), "{text}: {complaint}");
    }
}

/// Item 44.
#[test]
fn the_backlog_target_is_a_number_above_0() {
    for bad in ["0", "junk", "2x", "00"] {
        let complaint = complaint(&format!("TargetBacklogConn {bad}\n"));
        assert!(complaint.starts_with("x.conf:4:19: "), "{complaint}");
    }
}

#[test]
fn numbers_read_as_in_c_and_times_also_take_units() {
    let publishing = format!(
        "EnableExpPublication 1\nBrokerAddr b\nPubAgentCertPath {FILE}\n{}",
        LEAST.replace("EnableExpPublication 0\n", "")
    );
    let with = |line: &str| accepted(&format!("{publishing}{line}\n")).publication.unwrap();
    assert_eq!(with("PubExpPriority 010").priority, Some(10));
    assert_eq!(with("PubExpPriority -1").priority, Some(u64::MAX));
    assert_eq!(with("PubExpPriority 99999999999999999999").priority, Some(u64::MAX));
    assert_eq!(with("PubPeriod -1").period, Some(Duration::from_nanos(u64::MAX)));
    assert_eq!(with("PubPeriod 365d").period, Some(Duration::from_secs(31_536_000)));
    assert_eq!(with("PubPeriod").period, None);
    for bad in ["PubExpPriority 0x1", "PubExpPriority 5s", "PubPeriod 5 s", "PubPeriod 1e9"] {
        let complaint = complaint(&format!("{bad}\n"));
        assert!(complaint.starts_with("x.conf:4:"), "{complaint}");
    }
}

#[test]
fn a_time_of_too_few_nanoseconds_is_warned_of() {
    let publishing = format!(
        "EnableExpPublication 1\nBrokerAddr b\nPubAgentCertPath {FILE}\n{}",
        LEAST.replace("EnableExpPublication 0\n", "")
    );
    for (line, warned) in [
        ("PubPeriod 10", true),
        ("PubPeriod 31536000", true),
        ("PubPeriod 999999999", true),
        ("PubPeriod 1000000000", false),
        ("PubPeriod 10ns", false),
        ("PubPeriod 0", false),
        ("PubPeriod -1", false),
        ("GreetPeriodAfterPubEnd 60", true),
        ("BacklogConnTimeout 2000", true),
        ("BacklogConnTimeout 500000000", false),
        ("BootstrapBacklogTimeout 5", true),
    ] {
        let warnings = warnings(&format!("{publishing}{line}\n"));
        assert_eq!(warnings.len(), usize::from(warned), "{line}: {warnings:?}");
        let says = |warning: &String| warning.contains("nanoseconds is surely a mistake");
        assert!(warnings.iter().all(says), "{line}: {warnings:?}");
    }
}

#[test]
fn a_pattern_of_host_ids_knows_no_classes() {
    let overriding = |pair: &str, publishes: u8| {
        let line = format!("ExpExec 1:hello:{FILE}:{FILE}::{pair}\n");
        warnings(&format!(
            "EnableExpPublication {publishes}\nBrokerAddr b\nPubAgentCertPath {FILE}\n\
             ControllerPrivkeyPath {FILE}\n{line}"
        ))
    };
    let said = overriding("hostid=EP[12];", 1);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("[ and ] stand for themselves"), "{said:?}");
    for (pair, publishes) in [("hostid=EP*;", 1), ("other=EP[12];", 1), ("hostid=EP[12];", 0)] {
        assert!(overriding(pair, publishes).is_empty(), "{pair}");
    }
}

/// Item 45.
#[test]
fn countries_and_locations_are_checked_also_when_nothing_is_published() {
    for bad in ["us", "usa", "US", "USA,", "USA,DE", "USA, DEU"] {
        assert!(complaint(&format!("PubCountry {bad}\n")).starts_with("x.conf:4:"), "{bad}");
    }
    for bad in ["io91", "IO91,", "IO 91", "IO91-"] {
        assert!(complaint(&format!("PubLocation {bad}\n")).starts_with("x.conf:4:"), "{bad}");
    }
    accepted(&format!("{LEAST}PubCountry USA,DEU\nPubLocation IO91*,??\n"));
}

/// Item 46.
#[test]
fn a_bad_address_is_an_error_only_if_it_is_used() {
    for key in ["BrokerAddr", "PubControllerAddr"] {
        let text = format!("{LEAST}{key} host:port\n");
        accepted(&text);
        let warnings = warnings(&text);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("nothing is published"), "{}", warnings[0]);
    }
    let publishing = LEAST.replace("Publication 0", "Publication 1");
    let text = format!("{publishing}PubAgentCertPath {FILE}\nBrokerAddr host:port\n");
    let complaints = refused(&text);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].starts_with("x.conf:5:12: "), "{complaints:?}");
}

/// Item 65.
#[test]
fn predefined_overrides_are_checked_if_something_is_published() {
    let bad = [
        "sni_key=other;",
        "pub_end=soon;",
        "pub_end=1;pub_end=2;",
        "exp_priority=;",
        "endpoint_country=us;",
        "endpoint_location=io;",
        "controller_addr=host:port;",
        "controller_addr=a;controller_addr=b;",
        "hostid=a;hostid=b;",
    ];
    let good = "pub_end=1795434141288556833;exp_priority=7;endpoint_country=USA;endpoint_country=DEU;\
                endpoint_location=IO91*;controller_addr=[::1]:5;hostid=HOST-*;custom=x;custom=y;";
    let quiet = |overrides: &str| LEAST.replace("toml::\n", &format!("toml::{overrides}\n"));
    let publishing = |overrides: &str| {
        let text = quiet(overrides).replace("Publication 0", "Publication 1");
        format!("{text}BrokerAddr b\nPubAgentCertPath {FILE}\n")
    };
    for overrides in bad {
        let complaints = refused(&publishing(overrides));
        assert_eq!(complaints.len(), 1, "{overrides}: {complaints:?}");
        assert_eq!(warnings(&quiet(overrides)).len(), 1, "{overrides}");
        accepted(&quiet(overrides));
    }
    assert!(
        refused(&publishing(bad[0]))[0].starts_with("x.conf:3:48: sni_key cannot be overridden")
    );
    assert!(
        refused(&publishing(bad[2]))[0].starts_with("x.conf:3:58: pub_end is overridden twice")
    );
    let settings = accepted(&publishing(good));
    assert_eq!(settings.experiments[0].overrides.len(), 9);
    assert!(warnings(&publishing(good)).is_empty());
}

/// Item 47.
#[test]
fn a_file_from_windows_with_long_lines_loads() {
    let text = format!(
        "\u{feff}# {}\n{LEAST}ProxyCertRootPath {}\n",
        "x".repeat(5000),
        [FILE; 1000].join(",")
    );
    accepted(&text.replace('\n', "\r\n"));
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let complaints =
        refused("EnableExpPublication 2\nPubCountry us\nTargetBacklogConn 0\nExpExec 1\n");
    let lines: Vec<_> = complaints.iter().map(|c| c.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines[..4], ["1", "2", "3", "4"]);
    assert!(complaints[4].contains("ControllerPrivkeyPath is missing"));
    assert_eq!(complaints.len(), 5);
}

#[test]
fn all_mistakes_of_an_entry_and_of_a_list_are_told() {
    let complaints = refused(
        "EnableExpPublication 0\nControllerPrivkeyPath Cargo.toml\nPubCountry us,DEU,,x\n\
         ExpExec 2:Hello:nowhere,Cargo.toml,src:gone:0g:foo\nExpExec 0:hello:Cargo.toml::: \n",
    );
    let places: Vec<_> = complaints.iter().map(|c| c.split(": ").next().unwrap()).collect();
    let expected = ["3:12", "3:19", "3:20", "4:9", "4:11", "4:17", "4:36", "4:40", "4:45", "4:48"];
    let expected: Vec<_> = expected.iter().map(|place| format!("x.conf:{place}")).collect();
    assert_eq!(places[..expected.len()], expected, "{complaints:?}");
    assert_eq!(places[expected.len()..], ["x.conf:5:29", "x.conf:5:30"], "{complaints:?}");
    // But a list does not choose how much is told.
    let lines = format!("PubCountry {}\n", "x,".repeat(1 << 19));
    assert_eq!(refused(&format!("{LEAST}{lines}")).len(), 10);
}

#[test]
fn bytes_that_are_no_text_are_complained_about_without_harm() {
    let text = [LEAST.as_bytes(), b"PubCountry \xff\xfe\x1b[2J\n"].concat();
    let source = Source { path: "x.conf".into(), text };
    let complaints = read(&source).errors;
    let shown = source.with_caret(&complaints[0]);
    assert!(shown.contains("\\xff\\xfe\\u{1b}[2J") && !shown.contains('\x1b'), "{shown}");
}

/// Words of the grammar between arbitrary bytes, so that the deeper parsers are reached.
fn any_config() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        proptest::sample::select(&KEYS[..]).prop_map(|key| key.as_bytes().to_vec()),
        proptest::sample::select(
            &["1:", ":", ",", ";", "=", " ", "\t", "\n", "\r\n", FILE, "0102"][..]
        )
        .prop_map(|word| word.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(word, 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn whatever_the_file_holds_every_complaint_can_be_shown(text in any_config()) {
        let source = Source { path: "x.conf".into(), text };
        let outcome = read(&source);
        for complaint in outcome.warnings.iter().chain(&outcome.errors) {
            let shown = source.with_caret(complaint) + &source.one_line(complaint);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        }
    }
}
