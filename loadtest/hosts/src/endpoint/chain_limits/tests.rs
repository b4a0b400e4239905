//! Limits of one and of several certificates, in one session and in many.

use super::*;

fn limits(texts: &[&str]) -> ChainLimits {
    ChainLimits::of_session(&certificates(texts), &Arc::default())
}

const DENIED: Result<(), Status> = Err(Status::ESKTPKTDENY);

#[test]
fn no_limits_allow_everything_but_foreign_sources() {
    let limits = limits(&[""]);
    assert!(limits.take_socket().is_some() && limits.allows_destination([10, 0, 0, 1].into()));
    assert_eq!(limits.period(), None);
    assert!(limits.take_send(usize::MAX, false).is_ok());
    assert_eq!(limits.take_turn(Ticks(0), 9, 1), Turn::Now);
    assert!(limits.take_received(1) && !limits.spoofing_allowed());
    assert_eq!(limits.receivable_len(), Some(u64::MAX));
}

#[test]
fn the_tightest_limit_of_the_chain_holds() {
    let limits = limits(&["max_socket_count=2;max_exp_period=5;", "max_socket_count=3;"]);
    assert_eq!(limits.period(), Some(Duration::from_nanos(5)));
    let places = [limits.take_socket(), limits.take_socket()];
    assert!(places.iter().all(Option::is_some) && limits.take_socket().is_none());
    drop(places);
    assert!(limits.take_socket().is_some());
}

#[test]
fn every_certificate_that_passes_a_privilege_on_has_to_allow_foreign_sources() {
    let (yes, no) = ("src_ip_spoofing=1;", "src_ip_spoofing=0;");
    for (texts, allowed) in [
        (&[yes][..], true),
        (&[no], false),
        (&[""], false),
        (&["max_send_pkt=9;"], false),
        (&[yes, yes], true),
        (&[yes, no], false),
        (&[no, yes], false),
        (&[yes, ""], false),
        (&["", yes], false),
    ] {
        assert_eq!(limits(texts).spoofing_allowed(), allowed, "{texts:?}");
    }
}

#[test]
fn totals_are_used_up_and_what_is_denied_costs_nothing() {
    let limits = limits(&["max_send_byte=10;max_send_pkt=3;max_recv_byte=5;max_recv_pkt=2;"]);
    let send = |len| limits.take_send(len, false);
    assert_eq!((send(6), send(5)), (Ok(()), DENIED));
    assert_eq!((send(4), send(0), send(0)), (Ok(()), Ok(()), DENIED));
    assert_eq!(limits.receivable_len(), Some(5));
    assert!(!limits.take_received(6) && limits.take_received(4));
    assert_eq!(limits.receivable_len(), Some(1));
    assert!(limits.take_received(0) && !limits.take_received(1));
    assert_eq!(limits.receivable_len(), None);
}

#[test]
fn what_no_burst_could_ever_hold_is_denied_at_once_unless_it_may_be_cut() {
    let limits = limits(&["max_burst_rate_byte=10/5;", "max_burst_rate_byte=8/5;"]);
    assert_eq!((limits.take_send(9, false), limits.take_send(9, true)), (DENIED, Ok(())));
    assert_eq!((limits.take_send(8, false), limits.burst_len_max()), (Ok(()), 8));
    for text in ["max_burst_rate_byte=0/5;", "max_burst_rate_pkt=0/5;"] {
        assert_eq!(self::limits(&[text]).take_send(1, true), DENIED, "{text}");
    }
}

#[test]
fn a_turn_is_taken_of_all_certificates_or_of_none() {
    let limits = limits(&["max_burst_rate_pkt=3/100;", "max_burst_rate_pkt=1/10;"]);
    assert_eq!(limits.take_turn(Ticks(0), 1, 1), Turn::Now);
    assert_eq!(limits.take_turn(Ticks(1), 1, 1), Turn::Later(Ticks(10)));
    assert_eq!(limits.take_turn(Ticks(10), 1, 1), Turn::Now);
    assert_eq!(limits.take_turn(Ticks(20), 1, 1), Turn::Now);
    assert_eq!(limits.take_turn(Ticks(30), 1, 1), Turn::Later(Ticks(100)));
}

#[test]
fn a_stream_takes_what_it_reads_and_no_more() {
    let limits = limits(&["max_recv_byte=10;max_recv_pkt=3;"]);
    assert_eq!(limits.receive_by(6, Ok).unwrap(), 6);
    assert_eq!(limits.receive_by(6, |len| Ok(len.min(3))).unwrap(), 3);
    let nothing = limits.receive_by(6, |_| Err(io::ErrorKind::WouldBlock.into()));
    assert!(nothing.is_err());
    assert_eq!(limits.receive_by(6, |_| Ok(0)).unwrap(), 0);
    assert_eq!(limits.receivable_len(), Some(1));
    assert_eq!(limits.receive_by(6, Ok).unwrap(), 1);
    assert_eq!(limits.receivable_len(), None);
}

#[test]
fn each_certificate_counts_for_itself_in_every_session_and_chain() {
    let ledger = Arc::default();
    let chain = certificates(&["max_send_pkt=3;max_socket_count=2;", "max_send_pkt=4;"]);
    let (delegated, top) = (&chain[..], &chain[1..]);
    let session = |certificates| ChainLimits::of_session(certificates, &ledger);
    let first = session(delegated);
    let socket = first.take_socket();
    assert!(socket.is_some() && first.take_send(1, false).is_ok());
    // Another session at the same time, and others after it.
    let second = session(delegated);
    assert!(second.take_socket().is_some() && second.take_send(1, false).is_ok());
    let both = (second.take_socket(), second.take_socket());
    assert!(both.0.is_some() && both.1.is_none());
    drop((first, second, both, socket));
    let third = session(delegated);
    assert!(third.take_send(1, false).is_ok() && third.take_send(1, false) == DENIED);
    // The upper certificate has one packet left, in whatever chain.
    let fourth = session(top);
    assert!(fourth.take_send(1, false).is_ok() && fourth.take_send(1, false) == DENIED);
    // Another certificate with the same limits begins with all of them.
    let other = certificates(&["max_send_pkt=3;"]);
    assert!(session(&other).take_send(1, false).is_ok());
}

#[test]
fn a_burst_rate_does_not_begin_anew_with_each_session() {
    let (ledger, chain) = (Arc::default(), certificates(&["max_burst_rate_pkt=1/100;"]));
    let session = || ChainLimits::of_session(&chain, &ledger);
    assert_eq!(session().take_turn(Ticks(0), 1, 1), Turn::Now);
    assert_eq!(session().take_turn(Ticks(1), 1, 1), Turn::Later(Ticks(100)));
}

#[test]
fn a_chain_with_very_many_burst_rates_begins_no_session() {
    for name in ["max_burst_rate_byte", "max_burst_rate_pkt"] {
        let session = |rates: Vec<String>| {
            let chain = certificates(&["", &format!("{name}={};", rates.join(","))]);
            ChainLimits::of_certificates(&chain, &Arc::default(), Ticks(0)).map(drop)
        };
        let rate = |count| format!("{count}/7");
        assert_eq!(session((1..=8).map(rate).collect()), Ok(()));
        let refused = Err(LedgerError::TooManyRates);
        assert_eq!(session((1..=9).map(rate).collect()), refused);
        assert_eq!(session(vec![rate(1); 2500]), refused);
    }
}

#[test]
fn what_an_operators_own_monitor_has_kept_can_be_forgotten_a_year_behind_its_last_session() {
    let ledger = Arc::<Ledger>::default();
    let memories = ChainLimits::of_session(&[], &ledger).memories();
    let kept = |digest| {
        let own = memories.own(&digest).unwrap();
        memories.keep(&own.id, 0, &[1; size_of::<Persistent>()]);
        own.id.clone()
    };
    let is_idle = |id: &CertificateId, days: u64| {
        let later = crate::clock::now().saturating_add(Duration::from_secs(days * 24 * 3600));
        ledger.accounts().get_mut(id).unwrap().is_idle(later)
    };
    let id = kept([7; 32]);
    assert_eq!((is_idle(&id, 364), is_idle(&id, 366)), (false, true));
    // It is a year from the session on that was begun last.
    ledger.accounts().get_mut(&id).unwrap().not_after = Ticks(4);
    assert!(is_idle(&id, 0));
    assert_eq!(kept([7; 32]), id);
    assert!(!is_idle(&id, 364));
    // One that goes on keeps it for as long.
    let own = memories.own(&[7; 32]).unwrap();
    assert!(!is_idle(&id, 366));
    drop(own);
    assert!(is_idle(&id, 366));
}

#[test]
fn a_destination_must_be_in_every_list() {
    let limits = limits(&[
        "valid_dest=10.1.2.3/8,2001:db8::/32,192.0.2.7;",
        "valid_dest=10.0.0.0/9,192.0.2.0/24,2001:db8:1::/48;",
    ]);
    for (address, allowed) in [
        ("10.1.2.4", true),
        ("10.127.255.255", true),
        ("10.128.0.0", false),
        ("11.0.0.1", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("2001:db8:1::5", true),
        ("2001:db8:2::5", false),
        ("::ffff:10.1.2.4", false),
    ] {
        assert_eq!(limits.allows_destination(address.parse().unwrap()), allowed, "{address}");
    }
    assert!(self::limits(&["valid_dest=0.0.0.0/0;"]).allows_destination([1, 2, 3, 4].into()));
    assert!(!self::limits(&["valid_dest=0.0.0.0/0;"]).allows_destination("::1".parse().unwrap()));
}
