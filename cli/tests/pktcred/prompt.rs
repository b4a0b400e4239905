//! Passphrases typed at a terminal.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};

use super::Scratch;
use crate::common::debug_forms::assert_no_debug_form;
use crate::common::terminal::{Terminal, take_terminal};
use crate::common::{PKTCRED, assert_says};

fn on_terminal(scratch: &Scratch, words: &str) -> Terminal {
    Terminal::start(|terminal| itself(scratch, terminal, words))
}

/// This test program, told to become `pktcred` on this terminal.
fn itself(scratch: &Scratch, terminal: &str, words: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "prompt::become_pktcred", "--nocapture", "--quiet"]);
    command.current_dir(&scratch.0).env_clear().stdin(Stdio::null());
    command.env("TEST_TERMINAL", terminal).env("TEST_WORDS", words);
    command
}

/// Not a test but the child of one.
#[test]
fn become_pktcred() {
    let (Ok(terminal), Ok(words)) = (std::env::var("TEST_TERMINAL"), std::env::var("TEST_WORDS"))
    else {
        return;
    };
    let _terminal = take_terminal(&terminal);
    let mut command = Command::new(PKTCRED);
    command.args(["--home", "home"]).args(words.split(' ')).env_clear();
    panic!("cannot execute {PKTCRED}: {}", command.exec());
}

#[test]
fn each_key_gets_the_passphrase_that_was_typed_twice() {
    let scratch = Scratch::new();
    let mut terminal = on_terminal(&scratch, "init --no-broker");
    let mut answer = |question: &str, typed: &str| {
        terminal.read_until(question);
        assert!(!terminal.echoes(), "{question}");
        terminal.type_in(typed);
    };
    answer("New passphrase for k_exper (nothing for none): ", "one\n");
    answer("The same again for k_exper: ", "another\n");
    answer("New passphrase for k_exper (nothing for none): ", "one\n");
    answer("The same again for k_exper: ", "one\n");
    answer("New passphrase for k_xc (nothing for none): ", "\n");
    answer("New passphrase for k_eop (nothing for none): ", "three\n");
    answer("The same again for k_eop: ", "three\n");
    answer("New passphrase for k_ep (nothing for none): ", "\n");
    let (_, code, said) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(terminal.echoes());
    for (name, passphrase) in
        [("k_exper", Some(&b"one"[..])), ("k_xc", None), ("k_eop", Some(b"three")), ("k_ep", None)]
    {
        let pem = scratch.read(&format!("home/keys/{name}"));
        assert_eq!(pem.contains("ENCRYPTED"), passphrase.is_some(), "{name}");
        assert!(PrivateKey::from_pem(pem.as_bytes(), passphrase).is_ok(), "{name}");
    }
}

#[test]
fn ctrl_c_at_the_prompt_leaves_nothing() {
    let scratch = Scratch::new();
    let mut terminal = on_terminal(&scratch, "init");
    terminal.read_until("New passphrase for k_exper (nothing for none): ");
    terminal.type_in("half\x03");
    assert_eq!(terminal.end().1, Some(130));
    assert!(terminal.echoes());
    assert!(scratch.tree(".").is_empty());
}

#[test]
fn an_encrypted_signer_is_asked_for_once() {
    let scratch = Scratch::new();
    scratch.golden_key("enc");
    scratch.golden_key("xc");
    let mut terminal = on_terminal(&scratch, "sign agent --signer enc --subject xc.pub -o a.cert");
    terminal.read_until("Passphrase for enc: ");
    terminal.type_in("hunter2\n");
    let (_, code, said) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    let signer = PublicKey::from_pem(scratch.read("enc.pub").as_bytes()).unwrap();
    let certificate = Certificate::from_pem(scratch.read("a.cert").as_bytes()).unwrap();
    assert!(certificate.verify_signature(&signer));
}

#[test]
fn without_a_terminal_the_options_are_named() {
    let scratch = Scratch::new();
    scratch.golden_key("enc");
    for (words, expected) in [
        ("init", "give --passphrase-file or --no-passphrase"),
        ("key --dir . x", "give --passphrase-file or --no-passphrase"),
        ("csr agent --key enc", "give --passphrase-file"),
    ] {
        let output = itself(&scratch, "", words).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{words}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_no_debug_form(&said);
        assert_says(&said, &["no terminal", expected]);
    }
}
