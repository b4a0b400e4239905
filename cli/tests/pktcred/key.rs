//! `pktcred key`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use packetlab::key::{PrivateKey, PublicKey};

use super::Scratch;
use crate::common::assert_says;

#[test]
fn a_pair_is_private_and_fits_together() {
    let scratch = Scratch::with_home();
    let said = scratch.done(&["key", "k_new", "--no-passphrase"]);
    scratch.done(&["key", "k_new", "--no-passphrase", "--dir", "."]);
    let key = |name: &str| PrivateKey::from_pem(scratch.read(name).as_bytes(), None).unwrap();
    let (inside, outside) = (key("home/keys/k_new"), key("k_new"));
    assert_ne!(inside.public_key(), outside.public_key());
    let public = scratch.read("home/keys/k_new.pub");
    assert_eq!(PublicKey::from_pem(public.as_bytes()), Ok(inside.public_key()));
    assert_says(&said, &[&inside.public_key().key_id().to_string()]);
    for name in ["k_new", "k_new.pub"] {
        let mode = fs::metadata(scratch.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
}

#[test]
fn neither_half_of_an_existing_pair_is_overwritten() {
    let scratch = Scratch::new();
    for name in ["a", "b.pub"] {
        scratch.write(name, "mine");
        let pair = name.trim_end_matches(".pub");
        let said = scratch.refused(&["key", pair, "--no-passphrase", "--dir", "."], 3);
        assert_says(&said, &[name, "is not overwritten"]);
        assert_eq!(scratch.read(name), "mine");
    }
    assert_eq!(scratch.tree(".").len(), 2);
    for name in ["../a", "", ".hidden"] {
        scratch.refused(&["key", name, "--no-passphrase", "--dir", "."], 2);
    }
}
