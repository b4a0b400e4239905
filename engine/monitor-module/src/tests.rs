//! Test 8 of spec/monitors.md 17, as far as it takes no endpoint: which programs can be monitors.

use super::*;

const MEMORY: &str = r#"(import "monitor" "memory" (memory 1))"#;
const MALLOC: &str = r#"(func (export "malloc") (param i32) (result i32) (i32.const 1024))"#;
const FREE: &str = r#"(func (export "free") (param i32))"#;

fn checked(contents: &str) -> Result<Vec<Kind>, Unfit> {
    let file = wat::parse_str(format!("(module {contents})")).unwrap();
    check(&Program::from_wasm(&file).unwrap())
}

/// With an allocator.
fn checked_with(contents: &str) -> Result<Vec<Kind>, Unfit> {
    checked(&format!("{contents} {MALLOC} {FREE}"))
}

#[test]
fn a_module_with_another_memory_is_no_monitor() {
    for memory in ["(memory 1)", "", r#"(import "env" "memory" (memory 1))"#] {
        assert_eq!(checked_with(memory), Err(Unfit::NoMemory), "{memory}");
    }
    for memory in ["3", "1 9", "2 2", "0 2"] {
        let import = format!(r#"(import "monitor" "memory" (memory {memory}))"#);
        assert_eq!(checked_with(&import), Err(Unfit::Memory), "{memory}");
    }
    let imported = r#"(import "monitor" "memory" (func))"#;
    assert_eq!(checked_with(imported), Err(Unfit::Import("monitor.memory".to_owned())));
    for memory in ["0", "1", "2"] {
        let import = format!(r#"(import "monitor" "memory" (memory {memory}))"#);
        assert!(checked_with(&import).is_ok(), "{memory}");
    }
}

#[test]
fn a_module_that_imports_what_there_is_not_is_no_monitor() {
    let wasi = r#""wasi_snapshot_preview1""#;
    for (import, name) in [
        (r#""env" "nothing" (func)"#.to_owned(), "env.nothing"),
        (r#""env" "monitor_debug" (func (param i64))"#.to_owned(), "env.monitor_debug"),
        (
            r#""env" "monitor_debug" (func (param i32) (result i32))"#.to_owned(),
            "env.monitor_debug",
        ),
        (r#""env" "monitor_debug" (global i32)"#.to_owned(), "env.monitor_debug"),
        (r#""other" "read_vmem_region" (func)"#.to_owned(), "other.read_vmem_region"),
        (
            format!(r#"{wasi} "random_get" (func (param i32 i32) (result i32))"#),
            "wasi_snapshot_preview1.random_get",
        ),
        // What a name does to a terminal it does not do to the reader of an error.
        (r#""env" "\1b[2J" (func)"#.to_owned(), r"env.\u{1b}[2J"),
    ] {
        let found = checked_with(&format!("(import {import}) {MEMORY}"));
        assert_eq!(found, Err(Unfit::Import(name.to_owned())));
    }
    let offered = r#"(import "env" "read_vmem_region" (func (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_seek" (func (param i32 i64 i32 i32) (result i32)))"#;
    assert!(checked_with(&format!("{offered} {MEMORY}")).is_ok());
}

#[test]
fn a_module_without_what_is_called_in_each_session_is_no_monitor() {
    for (functions, lacking) in [
        (FREE.to_owned(), Unfit::NoExport("malloc")),
        (MALLOC.to_owned(), Unfit::NoExport("free")),
        (format!(r#"{FREE} (func (export "malloc") (param i32))"#), Unfit::NoExport("malloc")),
        (
            format!(r#"{FREE} (global (export "malloc") i32 (i32.const 0))"#),
            Unfit::NoExport("malloc"),
        ),
        (format!(r#"{MALLOC} (func (export "free"))"#), Unfit::NoExport("free")),
        (
            format!(
                r#"{MALLOC} {FREE} (func (export "initialize") (param i32 i32) (result i32) (i32.const 0))"#
            ),
            Unfit::Initialize,
        ),
        (
            format!(r#"{MALLOC} {FREE} (func (export "initialize") (param i32 i32 i32))"#),
            Unfit::Initialize,
        ),
    ] {
        assert_eq!(checked(&format!("{MEMORY} {functions}")), Err(lacking), "{functions}");
    }
    let tables = |one: &str, count: usize| format!("{MEMORY} {}", one.repeat(count));
    for (text, fits) in [
        (tables("(table 10000 funcref)", 1), true),
        (tables("(table 10001 funcref)", 1), false),
        (tables("(table 1 funcref)", 16), true),
        (tables("(table 1 funcref)", 17), false),
    ] {
        assert_eq!(checked_with(&text).is_ok(), fits, "{text}");
    }
}

#[test]
fn messages_that_a_monitor_cannot_judge_are_told() {
    assert_eq!(checked_with(MEMORY), Ok(Kind::ALL.to_vec()));
    let parameters = "(param i32 i32 i32 i64 i32 i32)";
    let capture =
        |rest: &str| format!("{MEMORY} (func (export \"check_pktlab_message_ncap\") {rest})");
    let rest = [Kind::Nopen, Kind::Nclose, Kind::Nsend, Kind::Ndata];
    for judges in [
        format!("{parameters} (result i32) (i32.const 0)"),
        // Of a longer number endpoints read the low half.
        format!("{parameters} (result i64) (i64.const 0)"),
    ] {
        assert_eq!(checked_with(&capture(&judges)), Ok(rest.to_vec()), "{judges}");
    }
    for does_not in [
        parameters.to_owned(),
        format!("{parameters} (result f32) (f32.const 0)"),
        "(param i32) (result i32) (i32.const 0)".to_owned(),
    ] {
        assert_eq!(checked_with(&capture(&does_not)), Ok(Kind::ALL.to_vec()), "{does_not}");
    }
}

#[test]
fn a_program_that_is_no_module_is_no_monitor() {
    let ebpf = Program::from_ebpf_text(b"0xb7 0 0 0 1\n0x95 0 0 0 0\n").unwrap();
    assert_eq!(check(&ebpf), Err(Unfit::Ebpf));
    let whole = wat::parse_str(format!("(module {MEMORY} {MALLOC} {FREE})")).unwrap();
    for file in [&whole[..whole.len() - 1], &whole[..4], b"", b"\0asm\x02\0\0\0", b"#!/bin/sh"] {
        let found = check(&Program::from_wasm(file).unwrap());
        assert!(matches!(found, Err(Unfit::Invalid(_))), "{file:?}: {found:?}");
    }
    let large = Program::from_wasm(&vec![0; MODULE_LEN_MAX + 1]).unwrap();
    assert_eq!(check(&large), Err(Unfit::TooLarge { len_bytes: MODULE_LEN_MAX + 1 }));
}
