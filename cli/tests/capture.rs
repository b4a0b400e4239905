//! `--capture` and `--pcap`: what endpoints and mlets say to each other, in files.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use packetlab::message::{MessageType, Status};
use serde_json::{Value, json};

use common::Home;
use common::disk;
use common::endpoint::{End, LINFO, NDATA, SUCCESS, message};

/// The lines of a session's file without their times, which are in order.
fn captured(home: &Home, session: u64) -> Vec<Value> {
    let text = fs::read_to_string(home.path(&format!("captured/{session}.jsonl"))).unwrap();
    let mut last = 0.0;
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let time = line.as_object_mut().unwrap().remove("t_ms").unwrap().as_f64().unwrap();
        assert!(time >= last, "{text}");
        last = time;
        line
    };
    text.lines().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_messages_of_each_session_are_in_a_file_from_what_its_mlet_finds_to_the_ends_of_both() {
    let home = Home::new();
    let manager = home.start(&["--capture", "captured", "--cores", "1"], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.send(&message(LINFO, &[0; 12]));
    for payload in [&b"question"[..], &[7; 70_000]] {
        endpoint.echoes(payload);
    }
    endpoint.close_after(&message(NDATA, &[5])[..4]);
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    // A session that never came to START has no file.
    assert_eq!(home.dial(&manager).handshake().receive().unwrap().0, 0x21);
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(fs::read_dir(home.path("captured")).unwrap().count(), 1);

    let mut lines = captured(&home, 1);
    // The mlet may have echoed what came of the last message before it came to know that there is no more.
    let echoed = json!({"from": "mlet", "type": "0x62", "hex": "62000001", "cut": true});
    lines.retain(|line| *line != echoed);
    let [found, messages @ ..] = &lines[..] else { panic!("an empty file") };
    let found = &found["mlet_finds"];
    assert_eq!((&found["EPADDR"], &found["PKTLAB_SESSION"]), (&json!("127.0.0.1"), &json!("1")));
    assert_eq!(found["PKTLAB_ENDPOINT_KEY"].as_str().unwrap().len(), 64);
    assert_eq!(found["PKTLAB_RUN"].as_str().unwrap().len(), 16);
    assert_eq!(found["PKTLAB_RESULTS"], Value::Null, "it is of this machine alone");
    let line = |from: &str, bytes: &[u8]| json!({"from": from, "type": format!("{:#04x}", bytes[0]), "hex": hex(bytes)});
    let long = message(NDATA, &[7; 70_000]);
    let of_long = |from| {
        let mut front = line(from, &long[..4 + (64 << 10)]);
        front["len"] = json!(long.len());
        front
    };
    let mut cut = line("endpoint", &message(NDATA, &[5])[..4]);
    cut["cut"] = json!(true);
    let expected = [
        line("endpoint", &message(LINFO, &[0; 12])),
        line("endpoint", &message(NDATA, b"question")),
        line("mlet", &message(NDATA, b"question")),
        of_long("endpoint"),
        of_long("mlet"),
        cut,
        json!({"from": "endpoint", "eof": true}),
        json!({"from": "mlet", "eof": true}),
    ];
    assert_eq!(messages, expected);
}

#[test]
fn only_the_session_that_is_asked_for_is_written() {
    let home = Home::new();
    let options = ["--cores", "1", "--trace-session", "2", "--capture", "captured", "--pcap", "m"];
    let manager = home.start(&options, &["echo"]);
    for number in 1..=3 {
        home.dial(&manager).is_served();
        manager.says_times(" over: ", number);
    }
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("NDATA"), "{}", ended.stderr);
    assert_eq!(fs::read_dir(home.path("captured")).unwrap().count(), 1);
    assert!(home.path("captured/2.jsonl").exists());
    let packets = fs::read(home.path("m")).unwrap();
    // What stands before each message, up to the session's number.
    let head = |session| [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, session];
    let found = |session| packets.windows(12).any(|window| window == head(session));
    assert_eq!([1, 2, 3].map(found), [false, true, false]);
}

#[test]
fn what_is_there_already_is_refused_and_left_as_it_is() {
    let home = Home::new();
    home.make_directory("captured");
    home.write("captured/1.jsonl", b"of another run\n");
    home.write("m.pcapng", b"of another run");
    for (words, told) in [
        (
            ["--capture", "captured"],
            "cannot write messages of sessions to captured: it is not empty",
        ),
        (
            ["--pcap", "m.pcapng"],
            "to m.pcapng: it holds something already; name an empty folder with",
        ),
    ] {
        let ended = home.spawn(&words, &["echo"]).ends();
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
    assert_eq!(fs::read(home.path("captured/1.jsonl")).unwrap(), b"of another run\n");
    assert_eq!(fs::read(home.path("m.pcapng")).unwrap(), b"of another run");
}

#[test]
fn a_full_disk_ends_no_session_is_told_once_and_leaves_whole_lines() {
    let home = Home::new();
    disk::mount(&home.path("captured"), "64k");
    let manager = home.start(&["--capture", "captured", "--cores", "1"], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    for _ in 0..20 {
        endpoint.echoes(&[7; 4_000]);
    }
    let told = "messages of sessions cannot be written to captured: No space left on device";
    manager.says(told);
    endpoint.echoes(b"and goes on");
    endpoint.close();
    home.dial(&manager).is_served();
    let lines = captured(&home, 1);
    let whole = |line: &Value| line["hex"].as_str().is_some_and(|hex| hex.len() == 8_008);
    assert!(lines.len() > 3 && lines[1..].iter().all(whole));
    assert!(!home.path("captured/2.jsonl").exists());
    let ended = manager.interrupted();
    assert_eq!((ended.code, ended.stderr.matches(told).count()), (Some(74), 1));
}

#[test]
fn a_run_of_one_mlet_for_all_has_no_line_of_what_it_finds() {
    let home = Home::new();
    let manager = home.start(&["-s", "--capture", "captured", "--cores", "1"], &["single", "echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.send(&SUCCESS);
    endpoint.close();
    manager.says(" over: ");
    manager.interrupted();
    assert_eq!(captured(&home, 1)[0]["hex"], hex(&SUCCESS));
}

/// Messages of spec/protocol.md 1.4 in hexadecimal, and what is shown of each.
const TAKEN_APART: [(&str, &[&str]); 34] = [
    ("2000000b076d6f6e69746f720000b7", &["CDATA (0x20)", "Hint: monitor", "Data: 0000b7"]),
    ("21000000", &["START (0x21)", "Payload length: 0"]),
    ("22000000", &["END (0x22)"]),
    ("2300000817979cfe362a0000", &["YIELD (0x23)", "Come back at: Nov 14, 2023 22:13:20.0"]),
    ("24000000", &["CONT (0x24)"]),
    ("28000006100100000008", &["MREAD (0x28)", "Memory address: 0x10010000", "Bytes to read: 8"]),
    ("2900000620000070003e", &["MWRITE (0x29)", "Memory address: 0x20000070", "Data: 003e"]),
    ("2a00000d05040600010000c00002013039", &["NOPEN (0x2a)", "Receive buffer length: 65536"]),
    (
        "2a00001305040600010000c00002013039c63364070050",
        &["TCP (0x06)", "Local port: 12345", "Remote address: 198.51.100.7", "Remote port: 80"],
    ),
    ("2a00000b05040000010000c0000201", &["Protocol: raw (0x00)", "Local address: 192.0.2.1"]),
    (
        "2a0000190506110001000020010db80000000000000000000000013039",
        &["UDP (0x11)", "Local address: 2001:db8::1", "Local port: 12345"],
    ),
    ("2b00000105", &["NCLOSE (0x2b)", "Socket: 5"]),
    (
        "2c00000f050406000000000000000001026869",
        &["NSEND (0x2c)", "at once", "Tag: 258", "Data: 6869"],
    ),
    ("2d00000c050400ffffffffffffffff00", &["NCAP (0x2d)", "Time: never", "Filter: 00"]),
    ("2e00000c05040617979cfe362a000001", &["NCTL (0x2e)", "Nov 14, 2023", "shut down writing (1)"]),
    ("300000023000", &["XCERT (0x30)", "Certificate: 3000"]),
    (
        "3100002c02010203aabbcc000000000000000000000000000000000000000000000000000000000000000001613d623b",
        &[
            "XPUB (0x31)",
            "Channel: 0102",
            "Channel: aabbcc",
            "operator: 00000000",
            "attributes: a=b;",
        ],
    ),
    (
        "38000028020102000000000000000000000000000000000000000000000000000000000000000001613d623b",
        &["XSUB (0x38)", "Channel: 0102", "operator: 00000000", "attributes: a=b;"],
    ),
    ("40000000", &["RESULT (0x40)", "Payload length: 0"]),
    ("40000006001200010007", &["Status: ECTLMONREJ (0x0012)", "Monitor: 1", "code: 7"]),
    ("4100000c1001000017979cfe362a0000", &["MDATA (0x41)", "Data: 17979cfe362a0000"]),
    ("6000000d05010217979cfe362a00000044", &["NTAG (0x60)", "Tag: 258", "ENORES (0x0044)"]),
    ("6100000c050406000000000000000101", &["NSTAT (0x61)", "Change: reset (1)"]),
    ("610000110504060000000000000001c63364070050", &["Remote address: 198.51.100.7"]),
    ("6200000d05040600000000000000016869", &["NDATA (0x62)", "Data: 6869"]),
    (
        "6200002701040018eaad63bcbc10324500001cabfc00004001d0957f4d00017f0000010000ea4115be0000",
        &["Src: 127.77.0.1, Dst: 127.0.0.1", "Type: 0 (Echo (ping) reply)"],
    ),
    (
        "6300001b050406000000000000000500000000000000060000000700000008",
        &["NDROP (0x63)", "Packets dropped: 7", "Bytes dropped: 8"],
    ),
    ("6400000d05040600070000000000000001", &["NBLOCK (0x64)", "The monitor's code: 7"]),
    (
        "650000170000000400000002000000056e616d65010268656c6c6f",
        &["LINFO (0x65)", "Name: name", "Auxiliary bytes: 0102", "Text: hello"],
    ),
    ("68000000", &["SUSPD (0x68)"]),
    ("69000000", &["RESUMD (0x69)"]),
    ("70000007020102613d623b", &["XNOTIFY (0x70)", "Channel: 0102", "attributes: a=b;"]),
    ("8000000568656c6c6f", &["XREG (0x80)", "Snikey: hello"]),
    ("99000002abcd", &["Type: Unknown (0x99)", "Data: abcd"]),
];

/// What a table of the script says, by its numbers.
fn table_of(script: &str, name: &str) -> BTreeMap<u16, String> {
    let (_, rest) = script.split_once(&format!("local {name} = {{")).unwrap();
    let (entries, _) = rest.split_once('}').unwrap();
    let entry = |entry: &str| {
        let (number, name) = entry.trim().split_once(" = ").unwrap();
        let number = number.strip_prefix("[0x").unwrap().strip_suffix(']').unwrap();
        (u16::from_str_radix(number, 16).unwrap(), name.trim_matches('"').to_owned())
    };
    entries.trim().trim_end_matches(',').split(',').map(entry).collect()
}

#[test]
fn wireshark_has_a_name_for_every_type_of_message_and_every_status_and_each_type_is_tried() {
    let script = include_str!("../../docs/packetlab.lua");
    let named = |name: &str, of: fn(u16) -> Option<&'static str>| {
        let all = (0..=u16::MAX).filter_map(|number| Some((number, of(number)?.to_owned())));
        assert_eq!(table_of(script, name), all.collect::<BTreeMap<_, _>>());
    };
    named("TYPES", |number| MessageType(u8::try_from(number).ok()?).name());
    named("STATUSES", |number| Status(number).name());
    let tried =
        |number: &u16| TAKEN_APART.iter().any(|(hex, _)| hex.starts_with(&format!("{number:02x}")));
    let mut untried = table_of(script, "TYPES").into_keys().filter(|number| !tried(number));
    assert_eq!(untried.next(), None);
}

#[test]
#[ignore = "needs tshark"]
fn wireshark_takes_every_message_apart_into_its_fields() {
    let home = Home::new();
    let manager = home.start(&["--pcap", "m.pcapng", "--cores", "1"], &["sink"]);
    let mut endpoint = home.dial(&manager).session();
    let malformed = ("2b0000020505", &["NCLOSE (0x2b)", "Malformed message"][..]);
    // The front of a packet of 60 bytes, all that the mlet's filter kept.
    let front = (
        "6200002701040018eaad63bcbc10324500003c0001000040060000c0000201c63364010050d43100000001",
        &["Src: 192.0.2.1, Dst: 198.51.100.1", "Destination Port: 54321", "Malformed Packet: TCP"]
            [..],
    );
    let expected = [&TAKEN_APART[..], &[malformed, front]].concat();
    for (hex, _) in &expected {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        endpoint.send(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>());
    }
    endpoint.close();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    assert_eq!(manager.interrupted().code, Some(0));

    let script = concat!("lua_script:", env!("CARGO_MANIFEST_DIR"), "/../docs/packetlab.lua");
    let tshark = |form: &[&str], filter: &str| {
        let path = home.path("m.pcapng");
        let words = ["-X", script, "-Y", filter, "-r", path.to_str().unwrap()];
        let output = Command::new("tshark").args(words).args(form).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = |filter: &str| tshark(&["-V"], filter);
    let messages = shown("pktlab.session == 1 && pktlab.from == 0 && pktlab.kind == 0");
    let packets: Vec<_> = messages.split("\nFrame ").collect();
    assert_eq!(packets.len(), expected.len(), "{messages}");
    for (packet, (hex, fields)) in packets.iter().zip(&expected) {
        for field in *fields {
            assert!(packet.contains(field), "{hex}: {field}: {packet}");
        }
        let is_malformed = [malformed.0, front.0].contains(hex);
        assert_eq!(packet.contains("Malformed"), is_malformed, "{packet}");
    }
    let lines = tshark(&[], "pktlab.type == 0x62 && ip");
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(lines.lines().all(|line| line.contains(" PacketLab ")), "{lines}");
    assert!(lines.contains("session 1: NDATA, 43 bytes"), "{lines}");
    assert!(shown("pktlab.kind == 1").contains("The mlet finds: PKTLAB_SESSION=1\n"));
    assert!(shown("pktlab.kind == 2 && pktlab.from == 1").contains("Kind: end (2)"));
    assert!(!shown("frame").contains("Lua Error"));
}

/// A file of Wireshark's with these packets, as `--pcap` writes it.
fn pcapng(packets: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let body = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
        let len = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, &body, &len].concat()
    };
    let section = [&0x1A2B_3C4D_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xFF; 8]].concat();
    // Of the first kind that is for private use.
    let mut file = [block(0x0A0D_0D0A, &section), block(1, &[147, 0, 0, 0, 0, 0, 0, 0])].concat();
    for packet in packets {
        let len = (packet.len() as u32).to_le_bytes();
        file.extend(block(6, &[&[0; 12][..], &len, &len, packet].concat()));
    }
    file
}

#[test]
#[ignore = "needs tshark"]
fn wireshark_shows_damaged_messages_as_damaged() {
    let head = |kind: u8| [&[1, kind, 0, 0][..], &7_u64.to_be_bytes()].concat();
    let cut = |whole: Vec<u8>| (1..whole.len()).map(move |len| whole[..len].to_vec());
    // The front of what stands before each, and of how many are missing.
    let packets: Vec<_> =
        cut(head(0)).chain(cut([head(3), vec![0; 8]].concat()).skip(12)).collect();
    assert_eq!(packets.len(), 11 + 7);
    let home = Home::new();
    let path = home.path("damaged.pcapng");
    fs::write(&path, pcapng(&packets)).unwrap();
    let script = concat!("lua_script:", env!("CARGO_MANIFEST_DIR"), "/../docs/packetlab.lua");
    let words = ["-X", script, "-V", "-r", path.to_str().unwrap()];
    let output = Command::new("tshark").args(words).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown.matches("[Malformed message]").count(), packets.len(), "{shown}");
    assert!(!shown.contains("Lua Error"), "{shown}");
}
