//! Bytes that others have computed: of RFC 8448 3, and of HMAC as Python has it.

use super::super::key::Generation;
use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

const CLIENT: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";

/// The first record that the client seals, with 50 bytes of data.
const FROM_CLIENT: &str = "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa 66
    bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21
    69 49 15 e4";

/// The second that the server seals, behind a ticket of 201 bytes.
const FROM_SERVER: &str = "17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 69 32 fc 32 25 d0 5f 82
    aa 1b 36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b f2 e5 f0 a2 1c 00 47 c2 ab f3 32 54 0d d0 32 e1
    67 c2 95 5d";

fn rfc_secret(hex: &str) -> TrafficSecret {
    TrafficSecret::new(Suite::Aes128Gcm, &bytes(hex)).unwrap()
}

#[test]
fn key_and_iv_are_those_of_the_rfc() {
    for (secret, key, iv) in [
        (CLIENT, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"),
        (SERVER, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"),
    ] {
        let (mut of_key, mut of_iv) = ([0; 16], [0; 12]);
        rfc_secret(secret).fill(b"key", &mut of_key);
        rfc_secret(secret).fill(b"iv", &mut of_iv);
        assert_eq!((&of_key[..], &of_iv[..]), (&bytes(key)[..], &bytes(iv)[..]));
    }
}

#[test]
fn records_of_the_rfc_are_opened_and_sealed() {
    let data: Vec<u8> = (0..50).collect();
    let mut server = Records::new(rfc_secret(SERVER), rfc_secret(CLIENT));
    assert_eq!(open(&mut server, &bytes(FROM_CLIENT)), (data.clone(), Ok(Next::Input)));
    let ticket = seal(&mut server, &[4; 201]);
    assert_eq!(ticket.len(), 201 + RECORD_OVERHEAD);
    assert_eq!(seal(&mut server, &data), bytes(FROM_SERVER));
}

#[test]
fn the_secret_behind_a_key_update_is_what_hmac_gives() {
    let next = [
        (Suite::Aes128Gcm, bytes(CLIENT), "3879d82f5f14056e623f2ce5bfc66fce"),
        (
            Suite::Aes256Gcm,
            (0..48).collect(),
            "eb354f3b48924ed78de34dd8aa6a6a0a51d857ddad1454d5cfa7b69f60712911",
        ),
    ];
    for (suite, secret, key) in next {
        let secret = TrafficSecret::new(suite, &secret).unwrap();
        let mut of_key = vec![0; suite.aead().key_len()];
        secret.next().fill(b"key", &mut of_key);
        assert_eq!(of_key, bytes(key));
    }
}

#[test]
fn no_number_is_used_twice_and_none_is_left_behind_the_last() {
    let mut generation = Generation::new(secret(Suite::Aes128Gcm, 1));
    let mut record = [0; RECORD_OVERHEAD + 1];
    let mut seal = |generation: &mut Generation| {
        generation.seal(DATA, b"x", &mut record).map(|len| record[..len].to_vec())
    };
    let sealed: Vec<_> = (0..3).map(|_| seal(&mut generation).unwrap()).collect();
    assert!(sealed[0] != sealed[1] && sealed[1] != sealed[2] && sealed[0] != sealed[2]);
    generation.skip_to(u64::MAX - 1);
    assert!(seal(&mut generation).is_some());
    assert!(seal(&mut generation).is_none());
    assert!(seal(&mut generation).is_none());
    assert!(generation.open([DATA, 3, 3, 0, 17], &[0; 17], &mut [0]).is_none());
}

#[test]
fn a_secret_of_another_length_is_none() {
    for len in (0..100).filter(|len| *len != 48) {
        assert!(TrafficSecret::new(Suite::Aes256Gcm, &vec![0; len]).is_none());
    }
    assert!(TrafficSecret::new(Suite::ChaCha20Poly1305, &[0; 48]).is_none());
}
