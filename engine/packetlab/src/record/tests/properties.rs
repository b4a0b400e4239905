//! What holds for any bytes at any chunking.

use proptest::prelude::*;

use super::*;

/// What one side says next.
#[derive(Debug, Clone)]
enum Said {
    Data(Vec<u8>),
    Padded(Vec<u8>, usize),
    Empty,
    KeyUpdate(u8),
}

fn said() -> impl Strategy<Value = Said> {
    let data = || prop::collection::vec(any::<u8>(), 1..60);
    prop_oneof![
        4 => data().prop_map(Said::Data),
        1 => prop::collection::vec(any::<u8>(), 2000..CONTENT_LEN_MAX).prop_map(Said::Data),
        1 => (data(), 0..300usize).prop_map(|(data, len)| Said::Padded(data, len)),
        1 => Just(Said::Empty),
        1 => (0..2u8).prop_map(Said::KeyUpdate),
    ]
}

impl Peer {
    fn say(&mut self, said: &Said) -> Vec<u8> {
        match said {
            Said::Data(data) => self.seal(DATA, data),
            Said::Padded(data, len) => {
                self.seal_inner(&[data, &[DATA][..], &vec![0; *len]].concat())
            }
            Said::Empty => self.seal(DATA, b""),
            Said::KeyUpdate(asks) => self.seal_key_update(*asks),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn data_comes_out_as_it_was_sealed_however_it_is_cut(
        suite in prop::sample::select(&SUITES[..]),
        says in prop::collection::vec(said(), 1..20),
        cuts in prop::collection::vec(prop_oneof![1..8usize, 1..3000usize], 1..20),
    ) {
        let (mut records, mut peer) = connection(suite);
        let sent: Vec<u8> = says.iter().flat_map(|said| peer.say(said)).collect();
        let data: Vec<u8> = says.iter().flat_map(|said| match said {
            Said::Data(data) | Said::Padded(data, _) => data.clone(),
            Said::Empty | Said::KeyUpdate(_) => Vec::new(),
        }).collect();
        let (mut rest, mut came) = (&sent[..], Vec::new());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break; }
            let (chunk, behind) = rest.split_at((*cut).min(rest.len()));
            let (more, next) = open(&mut records, chunk);
            prop_assert_eq!(next, Ok(Next::Input));
            came.extend(more);
            rest = behind;
            prop_assert!(records.carried_len() < HEADER_LEN + BODY_LEN_MAX, "at most one is kept");
        }
        prop_assert!(came == data);
        prop_assert_eq!(records.opening.carried_capacity(), 0, "none is kept when none is under way");
    }

    #[test]
    fn a_small_room_delays_records_and_loses_none(
        datas in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..10),
        cut_len in 1..300usize,
    ) {
        let (mut records, mut peer) = connection(Suite::Aes128Gcm);
        let sent: Vec<u8> = datas.iter().flat_map(|data| peer.seal(DATA, data)).collect();
        let mut came = Vec::new();
        for mut cut in sent.chunks(cut_len) {
            loop {
                let mut room = [0; 230];
                let opened = records.open(&mut cut, &mut room);
                came.extend_from_slice(&room[..opened.len]);
                if opened.next.unwrap() == Next::Input { break; }
            }
            prop_assert!(cut.is_empty());
        }
        prop_assert_eq!(came, datas.concat());
    }

    #[test]
    fn no_bytes_of_a_stranger_bring_data_or_a_panic(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..10),
        header in any::<bool>(),
    ) {
        let (mut records, _) = connection(Suite::Aes128Gcm);
        for chunk in chunks {
            let chunk = if header { [&[DATA, 3, 3, 0, 40], &chunk[..]].concat() } else { chunk };
            let (data, _) = open(&mut records, &chunk);
            prop_assert!(data.is_empty());
        }
    }

    #[test]
    fn pieces_are_records_of_their_own_in_any_room(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 1..20),
        max in 3..9u64,
    ) {
        let (mut records, mut peer) = connection(Suite::ChaCha20Poly1305);
        records.limit_records_per_key(max);
        let sealed: Vec<u8> = pieces.iter().flat_map(|piece| seal(&mut records, piece)).collect();
        let opened = peer.open(&sealed).into_iter();
        let data: Vec<_> = opened.filter(|(kind, _)| *kind == DATA).map(|(_, data)| data).collect();
        prop_assert_eq!(data, pieces);
    }
}
