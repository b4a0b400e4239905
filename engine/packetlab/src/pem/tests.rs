//! Files with odd layouts, and files that hold more or something else.

use proptest::prelude::*;

use super::*;

const KEY: &str = "PUBLIC KEY";

fn section(label: &'static str, contents: &[u8]) -> String {
    pem::encode_string(label, pem::LineEnding::LF, contents).unwrap()
}

fn read(file: &[u8]) -> Result<Vec<u8>, String> {
    one(file, &[KEY]).map(|(_, der)| der.to_vec()).map_err(|error| error.to_string())
}

#[test]
fn a_byte_order_mark_notes_and_odd_lines_do_not_matter() {
    let bytes: Vec<u8> = (0..100).collect();
    let plain = section(KEY, &bytes);
    let body: String = plain.lines().filter(|line| !line.contains('-')).collect();
    for file in [
        plain.clone(),
        format!("\u{feff}{plain}"),
        format!("\u{feff}  {plain}"),
        format!("Bag Attributes\n  x: y\n{plain}notes\n"),
        plain.replace('\n', "\r\n"),
        plain.replace('\n', "\r"),
        plain.replace('\n', " \n\n\t"),
        plain.trim_end().to_owned(),
        format!("-----BEGIN {KEY}-----\n{body}\n-----END {KEY}-----"),
        format!("-----BEGIN CERTIFICATE-----\n{plain}"),
        format!("{}{plain}", section("CERTIFICATE", b"x")),
    ] {
        assert_eq!(read(file.as_bytes()), Ok(bytes.clone()), "{file}");
    }
}

#[test]
fn files_with_marks_that_were_put_together_keep_every_section() {
    let (one, two) = (section(KEY, b"one"), section(KEY, b"two"));
    let file = format!("\u{feff}{one}\u{feff}{two}");
    let held = list(file.as_bytes(), KEY).unwrap();
    assert_eq!(held.iter().map(|held| held.to_vec()).collect::<Vec<_>>(), [b"one", b"two"]);
    assert!(super::one(file.as_bytes(), &[KEY]).is_err());
    let noisy = one.replace("\n-----END", "\u{a0}\n-----END");
    assert!(list(noisy.as_bytes(), KEY).is_err(), "what is no white space is not overlooked");
}

#[test]
fn one_of_several_is_never_picked_silently() {
    let two = section(KEY, b"a") + &section("CERTIFICATE", b"c") + &section(KEY, b"b");
    let error = read(two.as_bytes()).unwrap_err();
    assert_eq!(
        error,
        "holds 2 PEM sections `PUBLIC KEY`, and one is meant; split it into files of one each"
    );
    // Also when the second is broken.
    let cut = two.strip_suffix("-----END PUBLIC KEY-----\n").unwrap();
    assert_eq!(read(cut.as_bytes()), Err(error));
    let both = section("PRIVATE KEY", b"a") + &section("ENCRYPTED PRIVATE KEY", b"b");
    let error = one(both.as_bytes(), &["PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]).unwrap_err();
    assert!(error.to_string().starts_with("holds 2 PEM sections `PRIVATE KEY`"), "{error}");

    let all: Vec<_> = list(two.as_bytes(), KEY).unwrap().iter().map(|der| der.to_vec()).collect();
    assert_eq!(all, [b"a", b"b"]);
    assert!(list(cut.as_bytes(), KEY).is_err(), "no part of a list is left out");
}

#[test]
fn what_cannot_be_read_says_why() {
    for (file, expected) in [
        ("", "holds no readable PEM section `PUBLIC KEY`"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "cut, or its base64 is wrong"),
        ("-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----", "base64 is wrong"),
        ("-----BEGIN PUBLIC KEY-----\n-----END PRIVATE KEY-----\n", "cut"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "but `PRIVATE KEY`"),
        ("-----BEGIN \x1b[2J-----\n", "but `\\u{1b}[2J`"),
        ("\u{feff}-----BEGIN TRUSTED CERTIFICATE-----\n", "openssl x509 -in FILE -out NEW"),
    ] {
        let error = read(file.as_bytes()).unwrap_err();
        assert!(error.starts_with("holds no readable PEM section `PUBLIC KEY`"), "{error}");
        assert!(error.contains(expected), "{file:?}: {error}");
    }
}

#[test]
fn sections_are_files_of_their_own() {
    let file = format!("\u{feff}x\n{}y\n{}", section(KEY, b"a"), section("CERTIFICATE", b"b"));
    let found = sections(file.as_bytes());
    let labels: Vec<_> = found.iter().map(|section| section.label).collect();
    assert_eq!(labels, [KEY, "CERTIFICATE"]);
    assert_eq!(found[0].text, section(KEY, b"a").as_bytes());
    assert_eq!(found[1].text, section("CERTIFICATE", b"b").as_bytes());
}

proptest! {
    #[test]
    fn what_is_written_is_read(contents in prop::collection::vec(any::<u8>(), 1..300)) {
        prop_assert_eq!(read(section(KEY, &contents).as_bytes()), Ok(contents));
    }

    #[test]
    fn no_file_makes_the_reader_panic(
        parts in prop::collection::vec(
            prop_oneof![
                Just(&b"-----BEGIN PUBLIC KEY-----"[..]),
                Just(&b"-----END PUBLIC KEY-----"[..]),
                Just(&b"\n"[..]),
                Just(&b"\r"[..]),
                Just(&b"QUJD"[..]),
                Just(&b"-----"[..]),
                Just(&b"\xef\xbb\xbf"[..]),
                Just(&b"\x30\x82"[..]),
            ],
            0..20,
        ),
    ) {
        let file = parts.concat();
        let _ = read(&file);
        let _ = foreign::recognise(&file);
        prop_assert!(sections(&file).len() <= parts.len());
    }
}
