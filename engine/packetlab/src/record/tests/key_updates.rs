//! KeyUpdates of both sides (RFC 8446 4.6.3, 5.5, 7.2).

use super::*;

#[test]
fn a_key_update_of_the_peer_changes_its_key_whatever_it_is_cut_into() {
    for suite in SUITES {
        let (mut records, mut peer) = connection(suite);
        let mut sent = peer.seal(DATA, b"old");
        sent.extend(peer.seal_key_update(0));
        sent.extend(peer.seal(DATA, b"new"));
        sent.extend([24, 0, 0, 1, 0].iter().flat_map(|byte| peer.seal(HANDSHAKE, &[*byte])));
        peer.seals.update();
        sent.extend(peer.seal(DATA, b"newer"));
        assert_eq!(open(&mut records, &sent), (b"oldnewnewer".to_vec(), Ok(Next::Input)));
        assert_eq!(due(&mut records), b"", "it has not asked for ours");
    }
}

#[test]
fn a_key_update_that_is_asked_for_comes_before_the_next_piece() {
    for suite in SUITES {
        let (mut records, mut peer) = connection(suite);
        assert_eq!(peer.open(&seal(&mut records, b"1")), [(DATA, b"1".to_vec())]);
        // Asked twice while nothing is sent, it is answered once.
        let asked = [peer.seal_key_update(1), peer.seal_key_update(1)].concat();
        assert_eq!(open(&mut records, &asked), (Vec::new(), Ok(Next::Input)));
        assert!(records.has_due());
        let answer = (HANDSHAKE, vec![24, 0, 0, 1, 0]);
        let sealed = seal(&mut records, b"2");
        assert_eq!(peer.open(&sealed), [answer.clone(), (DATA, b"2".to_vec())]);
        open(&mut records, &peer.seal_key_update(1)).1.unwrap();
        assert_eq!(peer.open(&due(&mut records)), [answer]);
        assert_eq!(peer.open(&seal(&mut records, b"3")), [(DATA, b"3".to_vec())]);
    }
}

#[test]
fn no_key_seals_as_many_records_as_its_limit_even_if_an_alert_follows() {
    for suite in SUITES {
        for max in 3..8 {
            let (mut records, mut peer) = connection(suite);
            records.limit_records_per_key(max);
            let mut under_key = 0;
            for index in 0..50u8 {
                for (content_type, content) in peer.open(&seal(&mut records, &[index])) {
                    under_key += 1;
                    assert!(under_key < max, "one is left for an alert");
                    if content_type == HANDSHAKE {
                        assert_eq!(content, [24, 0, 0, 1, 1]);
                        assert_eq!(under_key, max - 1, "a key is used as long as it may be");
                        under_key = 0;
                    } else {
                        assert_eq!((content_type, content), (DATA, vec![index]));
                    }
                }
            }
        }
    }
}

#[test]
fn the_limit_of_a_key_is_below_that_of_aes_gcm() {
    let (mut records, mut peer) = connection(Suite::Aes128Gcm);
    records.sealing.skip_records((1 << 24) - 3);
    peer.opens.sequence = (1 << 24) - 3;
    assert_eq!(peer.open(&seal(&mut records, b"x")), [(DATA, b"x".to_vec())]);
    let update = (HANDSHAKE, vec![24, 0, 0, 1, 1]);
    assert_eq!(peer.open(&seal(&mut records, b"y")), [update, (DATA, b"y".to_vec())]);
}

#[test]
fn what_is_due_waits_for_room_and_keeps_its_order() {
    let (mut records, mut peer) = connection(Suite::Aes128Gcm);
    open(&mut records, &peer.seal_key_update(1)).1.unwrap();
    records.close();
    let mut room = [0; 100];
    for len in 0..RECORD_OVERHEAD + KEY_UPDATE_LEN {
        assert_eq!(records.write_due(&mut room[..len]), 0, "a record is not cut");
    }
    let len = records.write_due(&mut room[..RECORD_OVERHEAD + KEY_UPDATE_LEN]);
    assert_eq!(peer.open(&room[..len]), [(HANDSHAKE, vec![24, 0, 0, 1, 0])]);
    assert!(records.has_due());
    assert_eq!(records.write_due(&mut room[..RECORD_OVERHEAD + 1]), 0);
    assert_eq!(peer.open(&due(&mut records)), [(ALERT, CLOSE.to_vec())]);
}

#[test]
fn after_a_violation_a_key_update_is_not_answered() {
    let (mut records, mut peer) = connection(Suite::Aes128Gcm);
    let sent = [peer.seal_key_update(1), peer.seal(99, b"x")].concat();
    assert_eq!(open(&mut records, &sent).1, Err(Violation::UnexpectedRecord(99)));
    assert_eq!(peer.open(&due(&mut records)), [(ALERT, vec![2, 10])]);
}
