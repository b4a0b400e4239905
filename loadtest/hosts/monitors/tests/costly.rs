//! Modules that would take their endpoint long and much memory to compile, and how what is compiled is shared.
//!
//! Not here: how long it takes. What a price stands for is in performance.md "What compiling a monitor costs".

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::process::Command;

use monitor_module::Unfit;
use monitors::{Compiled, Unusable};
use packetlab::program::Program;

const MEMORY: &str = r#"(import "monitor" "memory" (memory 1))"#;
const ALLOCATOR: &str = r#"(func $malloc (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "free") (param i32))"#;
/// A value that is there until it is used.
const VALUE: &str = "(call $malloc (i32.const 0)) ";

fn program(functions: &str) -> Program {
    let text = format!("(module {MEMORY} {ALLOCATOR} {functions})");
    Program::from_wasm(&wat::parse_str(text).unwrap()).unwrap()
}

/// Why it is refused, if it is; an error of the module itself is one of this test.
async fn refused(program: &Program) -> Option<&'static str> {
    match Compiled::of(program).await {
        Ok(_) => None,
        Err(Unusable::Unfit(Unfit::TooCostly { .. })) => Some("module"),
        Err(Unusable::Unfit(Unfit::FunctionTooCostly { .. })) => Some("function"),
        Err(Unusable::Unfit(Unfit::FunctionTooLarge { .. })) => Some("length"),
        Err(other) => panic!("{other}"),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap().block_on(work)
}

/// A function of these instructions with as many values on the operand stack as that.
fn above(values: usize, instructions: &str) -> String {
    format!("(func {} {instructions} {})", VALUE.repeat(values), "drop ".repeat(values))
}

/// A function with so many variables, and a table that jumps out of so many blocks.
fn jumping(variables: usize, blocks: usize) -> String {
    let labels: Vec<_> = (0..blocks).map(|label| label.to_string()).collect();
    format!(
        "(func (local {}) {} local.get 0 br_table {} {})",
        "i32 ".repeat(variables),
        "block ".repeat(blocks),
        labels.join(" "),
        "end ".repeat(blocks)
    )
}

fn gives(results: usize, rest: &str) -> String {
    let results = "i32 ".repeat(results);
    format!("(type $gives (func (result {results}))) (func $f (type $gives) unreachable) {rest}")
}

/// Each is refused before it is compiled: in the compiler they take seconds to minutes, or gigabytes.
#[test]
fn a_module_that_costs_too_much_to_compile_is_refused() {
    let table = "(table 1 funcref)";
    let callers = |calls: usize| format!("(func {} unreachable)", "call $f ".repeat(calls));
    let modules = [
        ("functions", "(func)".repeat(20_000), "module"),
        ("types", (0..8_000).map(distinct_type).collect(), "module"),
        ("exports", (0..6_000).map(|n| format!("(func (export \"{n}\"))")).collect(), "module"),
        ("elements", format!("{table} (elem func {})", "0 ".repeat(6_000)), "module"),
        ("segments of data", "(data \"\")".repeat(6_000), "module"),
        ("tables", "(table 1000000 funcref)".repeat(10), "module"),
        ("globals", "(global i32 (i32.const 0))".repeat(6_000), "module"),
        ("results of calls", gives(1_000, &callers(100)), "function"),
        ("the same in several functions", gives(1_000, &callers(25).repeat(12)), "module"),
        ("results of blocks", gives(1_000, &blocks(1_000)), "function"),
        ("operands at blocks", above(3_000, &"block end ".repeat(3_000)), "function"),
        ("operands at loops", above(300, &"loop end ".repeat(300)), "function"),
        ("operands at calls", above(4_000, &format!("{VALUE} drop ").repeat(4_000)), "function"),
        ("variables at jumps", jumping(1_000, 1_000), "function"),
        ("loops in loops", variables_in_loops(150), "function"),
        ("loops", format!("(func {})", "loop end ".repeat(4_000)), "function"),
        ("jumps", jumping(100, 1_200), "function"),
        (
            "accesses to memory",
            format!("(func (param i32) local.get 0 {} drop)", "i32.load ".repeat(15_000)),
            "function",
        ),
        (
            "copies",
            format!("(func {})", "i32.const 0 i32.const 0 i32.const 0 memory.copy ".repeat(2_000)),
            "function",
        ),
        (
            "calls through a table",
            format!("{table} (func {})", "i32.const 0 call_indirect ".repeat(2_000)),
            "function",
        ),
        (
            "targets of a table of jumps",
            format!("(func block i32.const 0 br_table {} end)", "0 ".repeat(45_000)),
            "function",
        ),
        ("bytes", format!("(func {})", "nop ".repeat(70_000)), "length"),
    ];
    run(async {
        for (what, functions, expected) in modules {
            assert_eq!(refused(&program(&functions)).await, Some(expected), "{what}");
        }
    });
}

/// Twelve parameters, by the digits of a number.
fn distinct_type(number: u32) -> String {
    let digit = |place: u32| ["i32", "i64", "f32", "f64"][(number >> (2 * place) & 3) as usize];
    let parameters: Vec<_> = (0..12).map(digit).collect();
    format!("(type (func (param {})))", parameters.join(" "))
}

fn blocks(count: usize) -> String {
    let (begin, end) = ("block (type $gives) ".repeat(count), "end ".repeat(count));
    format!("(func {begin} unreachable {end} unreachable)")
}

fn variables_in_loops(count: usize) -> String {
    format!(
        "(func (local {}) {} {})",
        "i32 ".repeat(count),
        "loop ".repeat(count),
        "end ".repeat(count)
    )
}

#[test]
fn what_compilers_make_of_a_monitor_is_compiled() {
    let ordinary = format!(
        "{} {} {}",
        jumping(20, 30).repeat(20),
        variables_in_loops(12).repeat(5),
        above(8, &format!("{VALUE} drop ").repeat(100)).repeat(10),
    );
    assert_eq!(run(refused(&program(&ordinary))), None);
}

/// Formats, parses, sorts, and has maps.
const STD_MONITOR: &str = r#"
use std::collections::{BTreeMap, HashMap};
#[no_mangle]
pub extern "C" fn malloc(len: usize) -> *mut u8 { Vec::with_capacity(len).leak().as_mut_ptr() }
#[no_mangle]
pub extern "C" fn free(_: *mut u8) {}
#[no_mangle]
pub extern "C" fn check_pktlab_message_nclose(sktid: i32, _: i32, _: i32) -> i32 {
    let mut counts = HashMap::new();
    let mut texts = BTreeMap::new();
    for n in 0..sktid {
        let text = format!("{n:08} {sktid:x} {:?}", n as f64 / 3.0);
        *counts.entry(text.clone()).or_insert(0_u32) += 1;
        texts.insert(n, text);
    }
    let mut sorted: Vec<_> = texts.values().cloned().collect();
    sorted.sort();
    let parsed: f64 = sorted.join("1").parse().unwrap_or(1.0);
    counts.len() as i32 + parsed as i32
}
"#;

#[test]
#[ignore = "needs Debian's rustc, libstd-rust-dev-wasm32 and lld-16"]
fn a_monitor_with_the_standard_library_of_rust_is_compiled() {
    let folder = std::env::temp_dir().join(format!("pktfleet-costly-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (source, out) = (folder.join("monitor.rs"), folder.join("monitor.wasm"));
    std::fs::write(&source, STD_MONITOR).unwrap();
    for level in ["0", "s", "2"] {
        let made = Command::new("/usr/bin/rustc")
            .args(["--edition", "2021", "--target", "wasm32-unknown-unknown"])
            .args(["--crate-type", "cdylib", "-C", "linker=wasm-ld-16", "-C", "strip=symbols"])
            .args(["-C", "link-arg=--import-memory=monitor,memory"])
            .args(["-C", "link-arg=--initial-memory=131072", "-C", "link-arg=-zstack-size=16384"])
            .arg("-C")
            .arg(format!("opt-level={level}"))
            .args(["-o".as_ref(), out.as_os_str(), source.as_os_str()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = Program::from_wasm(&std::fs::read(&out).unwrap()).unwrap();
        assert_eq!(run(refused(&file)), None, "opt-level {level}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// What is newer than WebAssembly 2.0.
#[test]
fn what_nobody_has_priced_is_refused() {
    run(async {
        for functions in [
            "(func $f return_call $f)",
            "(tag) (func throw 0)",
            "(type (struct))",
            "(table i64 1 funcref)",
            "(func (param v128) (result v128) local.get 0 local.get 0 i8x16.relaxed_swizzle)",
        ] {
            let text = format!("(module {MEMORY} {ALLOCATOR} {functions})");
            let file = Program::from_wasm(&wat::parse_str(text).unwrap()).unwrap();
            let refused = Compiled::of(&file).await.err();
            assert!(
                matches!(refused, Some(Unusable::Unfit(Unfit::Invalid(_)))),
                "{functions}: {refused:?}"
            );
        }
    });
}
