//! What is logged of LINFOs, within which budget, and what is skipped.

use super::*;
use proptest::prelude::*;

const AMPLE: usize = 1 << 30;

fn budget(session_bytes_per_second: usize, total_bytes_per_second: usize) -> LinfoBudget {
    LinfoBudget::new(&Limits {
        linfo_max: 64 * 1024,
        linfos_per_second: 100,
        linfo_rate_max: session_bytes_per_second,
        linfo_rate_total: total_bytes_per_second,
        ..Limits::default()
    })
}

fn some_time() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    Instant::now()
}

fn message(message_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![message_type];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(payload);
    bytes
}

fn linfo(info: &[u8]) -> Vec<u8> {
    let lens = [0, 0, info.len() as u32].map(u32::to_be_bytes).concat();
    message(0x65, &[&lens, info].concat())
}

fn text_of(info: &str) -> String {
    format!("name \"\", aux \"\", info \"{info}\"")
}

/// What passes and what is logged of these pieces of a stream.
fn run(chunks: &[Vec<u8>], payload_max: usize) -> (Vec<u8>, Vec<Linfo>) {
    let budget = LinfoBudget::new(&Limits {
        linfo_max: payload_max,
        linfo_rate_max: AMPLE,
        linfo_rate_total: AMPLE,
        ..Limits::default()
    });
    let (mut filter, mut passed, mut logged) = (LinfoFilter::default(), Vec::new(), Vec::new());
    let now = some_time();
    for chunk in chunks {
        let mut bytes = chunk.clone();
        let kept = filter.filter(&mut bytes, now, &budget, |linfo| logged.push(linfo));
        passed.extend_from_slice(&bytes[..kept]);
    }
    (passed, logged)
}

/// What is logged of these bytes.
fn logged(
    filter: &mut LinfoFilter,
    bytes: &[u8],
    now: Instant,
    budget: &LinfoBudget,
) -> Vec<Linfo> {
    let mut logged = Vec::new();
    for piece in bytes.chunks(16 * 1024) {
        filter.filter(&mut piece.to_vec(), now, budget, |linfo| logged.push(linfo));
    }
    logged
}

/// Item 83.
#[test]
fn a_linfo_between_messages_is_taken_out_and_logged() {
    let chunk = [message(0x62, b"data"), message(0x65, b"log"), message(0x61, b"")].concat();
    let (passed, logged) = run(&[chunk], 100);
    assert_eq!(passed, [message(0x62, b"data"), message(0x61, b"")].concat());
    assert_eq!(logged, [Linfo { text: "\"log\"".into(), truncated: false, lost_before: 0 }]);
}

#[test]
fn its_parts_are_named_and_escaped() {
    let payload = b"\0\0\0\x04\0\0\0\x02\0\0\0\x05name\xff\0\x1b[2J\n";
    let (_, logged) = run(&[message(0x65, payload)], 100);
    assert_eq!(logged[0].text, r#"name "name", aux "\xff\0", info "\u{1b}[2J\n""#);
}

#[test]
fn a_linfo_longer_than_the_limit_is_kept_up_to_it() {
    let (passed, logged) = run(&[message(0x65, &[b'x'; 50])], 8);
    assert!(passed.is_empty());
    let text = "\"xxxxxxxx\"".into();
    assert_eq!(logged, [Linfo { text, truncated: true, lost_before: 0 }]);
}

/// With the limits as they are: one as long as `--linfo-max` allows is logged whole.
#[test]
fn a_single_long_linfo_is_logged_whole_by_default() {
    let limits = Limits::default();
    let budget = LinfoBudget::new(&limits);
    let info = vec![b'x'; limits.linfo_max - 12];
    let logged = logged(&mut LinfoFilter::default(), &linfo(&info), some_time(), &budget);
    assert_eq!(logged.len(), 1);
    assert!(!logged[0].truncated && logged[0].text.len() > info.len(), "{}", logged[0].text.len());
}

#[test]
fn a_session_logs_no_more_escaped_bytes_in_a_second_than_it_may() {
    const PER_SECOND: usize = 10_000;
    let budget = budget(PER_SECOND, AMPLE);
    let (mut filter, start) = (LinfoFilter::default(), some_time());
    let flood: Vec<u8> = (0..50).flat_map(|_| linfo(&[0x1b; 4_000])).collect();
    for second in 0..3 {
        let now = start + Duration::from_secs(second);
        let logged = logged(&mut filter, &flood, now, &budget);
        let len: usize = logged.iter().map(|linfo| LINE_LEN + linfo.text.len()).sum();
        assert!(len <= PER_SECOND + LABELS_LEN * logged.len(), "{len}");
        assert!(len > PER_SECOND / 2, "{len}");
        assert!(logged.iter().all(|linfo| linfo.truncated == (linfo.text.len() < 24_000)));
        let whole = logged.iter().all(|linfo| !linfo.text.contains("\\u{1\""));
        assert!(whole, "half an escape");
    }
    assert!(filter.lost() > 140 && budget.lost() == filter.lost(), "{}", filter.lost());
}

#[test]
fn what_was_lost_is_told_by_the_next_that_is_logged() {
    let budget = budget(AMPLE, AMPLE);
    let (mut filter, start) = (LinfoFilter::default(), some_time());
    let flood: Vec<u8> = (0..107).flat_map(|_| linfo(b"x")).collect();
    assert_eq!(logged(&mut filter, &flood, start, &budget).len(), 100);
    let next = start + Duration::from_secs(1);
    let logged = logged(&mut filter, &[linfo(b"y"), linfo(b"z")].concat(), next, &budget);
    let texts: Vec<_> =
        logged.iter().map(|linfo| (linfo.text.clone(), linfo.lost_before)).collect();
    assert_eq!(texts, [(text_of("y"), 7), (text_of("z"), 0)]);
    assert_eq!(filter.lost(), 7);
}

/// How long it takes to filter so many bytes of these messages, at best.
fn cost(messages: &[u8], budget: &LinfoBudget) -> Duration {
    let mut filter = LinfoFilter::default();
    let one_run = |_| {
        let mut bytes = messages.repeat(60_000 / messages.len());
        let start = some_time();
        filter.filter(&mut bytes, start, budget, |_| panic!("it is logged"));
        some_time() - start
    };
    (0..20).map(one_run).min().unwrap()
}

/// A record may hold thousands of them, so none of them may cost a look at the clock, a lock or a count that all share.
#[test]
fn lost_linfos_cost_no_more_than_messages_that_pass() {
    let budget = budget(AMPLE, 0);
    for payload in [&[] as &[u8], &[0; 12]] {
        let lost = cost(&message(0x65, payload), &budget);
        let passing = cost(&message(0x62, payload), &budget);
        assert!(lost < passing * 2, "{lost:?}, {passing:?}");
    }
    assert!(budget.lost() > 0, "none was lost");
}

/// Nothing is kept of it, however long it is.
#[test]
fn a_linfo_beyond_the_budget_is_skipped_as_it_streams_past() {
    let budget = budget(LINE_LEN - 1, AMPLE);
    let mut filter = LinfoFilter::default();
    let bytes = [linfo(&[7; 60_000]), message(0x62, b"data")].concat();
    for piece in bytes.chunks(1000) {
        let mut piece = piece.to_vec();
        filter.filter(&mut piece, some_time(), &budget, |_| panic!("it is logged"));
        assert!(filter.arriving.is_none(), "it is collected");
    }
    assert_eq!(filter.lost(), 1);
}

#[test]
fn all_sessions_together_log_no_more_than_they_may() {
    const TOTAL: usize = 50_000;
    let budget = budget(AMPLE, TOTAL);
    let now = some_time();
    let mut len = 0;
    for _ in 0..100 {
        let mut filter = LinfoFilter::default();
        for linfo in logged(&mut filter, &linfo(&[0x1b; 4_000]).repeat(20), now, &budget) {
            len += LINE_LEN + linfo.text.len().saturating_sub(LABELS_LEN);
        }
    }
    assert!(len <= TOTAL && len > TOTAL / 2, "{len}");
}

#[test]
fn sessions_that_log_much_leave_room_for_those_that_log_little() {
    let budget = budget(128 * 1024, 1 << 20);
    let now = some_time();
    let mut floods: Vec<LinfoFilter> = (0..100).map(|_| LinfoFilter::default()).collect();
    for filter in &mut floods {
        logged(filter, &linfo(&[0x1b; 60_000]).repeat(3), now, &budget);
        assert!(filter.lost() > 0, "it is no flood");
    }
    let mut quiet = LinfoFilter::default();
    let logged = logged(&mut quiet, &linfo(b"a line as any endpoint writes it"), now, &budget);
    assert_eq!(logged[0].text, text_of("a line as any endpoint writes it"));
}

#[test]
fn an_endpoint_that_has_much_skipped_is_read_at_a_mebibyte_a_second() {
    let budget = budget(0, AMPLE);
    let (start, stream) = (some_time(), linfo(&[b'x'; 60_000]).repeat(200));
    let (mut filter, mut now) = (LinfoFilter::default(), start);
    for piece in stream.chunks(32 * 1024) {
        logged(&mut filter, piece, now, &budget);
        if filter.is_paused() {
            now = filter.due().unwrap();
            filter.resume(now);
            assert!(!filter.is_paused());
        }
    }
    let seconds = stream.len() as f64 / SKIPPED_PER_SECOND as f64;
    let took = (now - start).as_secs_f64();
    assert!(took < seconds && took > 0.9 * seconds, "{took} of {seconds} s");
}

#[test]
fn an_endpoint_whose_linfos_are_logged_or_of_which_little_is_skipped_is_read_at_once() {
    let now = some_time();
    for (budget, linfos) in [(budget(AMPLE, AMPLE), 20), (budget(0, AMPLE), 1)] {
        let mut filter = LinfoFilter::default();
        logged(&mut filter, &linfo(&[b'x'; 60_000]).repeat(linfos), now, &budget);
        assert!(!filter.is_paused());
    }
}

#[test]
fn a_linfo_that_does_not_arrive_is_cut_and_its_rest_is_skipped() {
    let budget = budget(AMPLE, AMPLE);
    let (mut filter, start) = (LinfoFilter::default(), some_time());
    let bytes = [message(0x65, &[b'x'; 50]), message(0x65, b"next")].concat();
    assert_eq!(logged(&mut filter, &bytes[..24], start, &budget), []);
    let due = filter.due().unwrap();
    assert_eq!(filter.cut(due - Duration::from_millis(1), &budget), None);
    let text = format!("\"{}\"", "x".repeat(20));
    let cut = Linfo { text, truncated: true, lost_before: 0 };
    assert_eq!(filter.cut(due, &budget), Some(cut));
    assert_eq!(filter.due(), None);
    let next = Linfo { text: "\"next\"".into(), truncated: false, lost_before: 0 };
    assert_eq!(logged(&mut filter, &bytes[24..], due, &budget), [next]);
}

proptest! {
    #[test]
    fn chunking_changes_nothing(
        messages in prop::collection::vec(
            (prop::sample::select(vec![0x65u8, 0x62, 0x99]), prop::collection::vec(any::<u8>(), 0..30)),
            0..12,
        ),
        chunk_len in 1usize..20,
    ) {
        let stream: Vec<u8> =
            messages.iter().flat_map(|(kind, payload)| message(*kind, payload)).collect();
        let expected: Vec<u8> = messages.iter().filter(|(kind, _)| *kind != 0x65)
            .flat_map(|(kind, payload)| message(*kind, payload)).collect();
        let chunks: Vec<_> = stream.chunks(chunk_len).map(<[u8]>::to_vec).collect();
        let (passed, logged) = run(&chunks, 1000);
        prop_assert_eq!(passed, expected);
        let texts: Vec<_> = messages.iter().filter(|(kind, _)| *kind == 0x65)
            .map(|(_, payload)| shown(payload, AMPLE).0).collect();
        prop_assert_eq!(logged.into_iter().map(|linfo| linfo.text).collect::<Vec<_>>(), texts);
    }

    /// What the budget is charged is no less than what is logged.
    #[test]
    fn no_text_is_longer_than_was_paid_for(
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            ".{0,100}".prop_map(|text: String| text.into_bytes()),
        ],
        len_max in 0usize..2000,
    ) {
        let (text, is_whole) = shown(&payload, len_max);
        prop_assert!(text.len() <= len_max);
        let (whole, _) = shown(&payload, AMPLE);
        prop_assert_eq!(is_whole, text == whole);
        prop_assert!(whole.starts_with(&text));
        prop_assert!(whole.len() <= payload.len() * (1 + ESCAPE_GROWTH) + LABELS_LEN);
    }
}

/// One that names itself and has auxiliary bytes.
fn named(name: &[u8], auxiliary: &[u8], info: &[u8]) -> Vec<u8> {
    let lens = [name.len(), auxiliary.len(), info.len()];
    let lens = lens.map(|len| (len as u32).to_be_bytes()).concat();
    message(0x65, &[&lens, name, auxiliary, info].concat())
}

#[test]
fn the_first_crash_of_a_monitor_is_remembered_by_its_index() {
    let mut filter = LinfoFilter::default();
    let budget = budget(AMPLE, AMPLE);
    let mut crashed = |linfo: Vec<u8>| {
        assert_eq!(logged(&mut filter, &linfo, some_time(), &budget).len(), 1);
        filter.crashed_monitor()
    };
    for none in [
        named(b"monitor", &[2, 0], b"what its initialize says"),
        named(b"monitor-crashed", &[2], b"no index"),
        named(b"monitor-crashed", &[2, 0, 0], b"no index"),
        named(b"", b"", b"monitor-crashed"),
    ] {
        assert_eq!(crashed(none), None);
    }
    assert_eq!(crashed(named(b"monitor-crashed", &[2, 1], b"late")), Some(0x0102));
    assert_eq!(crashed(named(b"monitor-crashed", &[0, 0], b"trapped")), Some(0x0102));
}

#[test]
fn a_crash_is_remembered_in_whatever_pieces_its_linfo_comes_and_though_it_is_not_logged() {
    let long = vec![0x1b; 1 << 16];
    for (room, piece_len) in [(AMPLE, 1), (AMPLE, 7), (0, 3), (0, 1 << 17)] {
        let (mut filter, budget) = (LinfoFilter::default(), budget(room, AMPLE));
        let stream = [linfo(&long), named(b"monitor-crashed", &[7, 0], &long)];
        let mut lost = 0;
        for message in stream {
            for piece in message.chunks(piece_len) {
                filter.filter(&mut piece.to_vec(), some_time(), &budget, |_| ());
            }
            lost += u64::from(room == 0);
        }
        assert_eq!(
            (filter.crashed_monitor(), filter.lost()),
            (Some(7), lost),
            "{room} {piece_len}"
        );
    }
}
