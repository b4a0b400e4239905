//! Test 8 of spec/monitors.md 17: which modules can be monitors.

use monitor_module::{ENV_FUNCTIONS, MODULE_LEN_MAX, Number, Unfit};

use super::*;

async fn refused(text: &str) -> Unusable {
    add(&mut Monitors::default(), text, &Arc::default()).await.unwrap_err()
}

#[test]
fn a_module_that_cannot_be_a_monitor_is_refused_with_its_reason() {
    run(async {
        let with_memory = |memory: &str| format!("(module {memory} {})", allocator());
        let own = with_memory("(memory 1)");
        assert_eq!(refused(&own).await, Unusable::Unfit(Unfit::NoMemory));
        assert_eq!(
            refused(&with_memory(r#"(import "env" "memory" (memory 1))"#)).await,
            Unusable::Unfit(Unfit::NoMemory)
        );
        let two = with_memory(r#"(import "monitor" "memory" (memory 1)) (memory 1)"#);
        assert!(matches!(refused(&two).await, Unusable::Unfit(Unfit::Invalid(_))));
        let import = r#"(import "monitor" "memory" (memory 1))"#;
        let with_functions = |functions: &str| format!("(module {import} {functions})");
        let trapped =
            || Crash::Trapped("wasm trap: wasm `unreachable` instruction executed".to_owned());
        let (malloc, free) = (
            r#"(func (export "malloc") (param i32) (result i32) (i32.const 1024))"#,
            r#"(func (export "free") (param i32))"#,
        );
        for (functions, cause) in [
            (free.to_owned(), Unusable::Unfit(Unfit::NoExport("malloc"))),
            (malloc.to_owned(), Unusable::Unfit(Unfit::NoExport("free"))),
            (
                format!("{malloc} (func (export \"free\"))"),
                Unusable::Unfit(Unfit::NoExport("free")),
            ),
            (
                format!("{free} (func (export \"malloc\") (param i32) (result i32) (i32.const 0))"),
                Unusable::NoPersistentMemory,
            ),
            (
                format!("{free} (func (export \"malloc\") (param i32) (result i32) unreachable)"),
                Unusable::Malloc(trapped()),
            ),
            (
                format!(
                    "{free} (func (export \"malloc\") (param i32) (result i32) (i32.const -8))"
                ),
                Unusable::NoPersistentMemory,
            ),
        ] {
            assert_eq!(refused(&with_functions(&functions)).await, cause, "{functions}");
        }
        let start = format!("{malloc} {free} (func $start unreachable) (start $start)");
        assert!(matches!(
            refused(&with_functions(&start)).await,
            Unusable::Start(Crash::Trapped(_))
        ));
        // Two pages are what there is, and everything that a module of the original needs.
        let fine =
            module(r#"(func (export "_start") unreachable)"#).replace("(memory 1)", "(memory 2)");
        add(&mut Monitors::default(), &fine, &Arc::default()).await.unwrap();
    });
}

#[test]
fn every_function_of_the_endpoint_that_a_module_is_judged_by_is_there_with_its_type() {
    let number = |parameter: &Number| match parameter {
        Number::I32 => "i32 ",
        Number::I64 => "i64 ",
    };
    let imported = ENV_FUNCTIONS.map(|(name, parameters, has_result)| {
        let parameters: String = parameters.iter().map(number).collect();
        let result = if has_result { "(result i32)" } else { "" };
        format!(r#"(import "env" "{name}" (func (param {parameters}) {result}))"#)
    });
    let text = module("").replacen(IMPORTS, &format!("{IMPORTS} {}", imported.concat()), 1);
    assert!(text.contains(&imported[3]));
    run(add(&mut Monitors::default(), &text, &Arc::default())).unwrap();
}

#[test]
fn every_function_of_wasi_can_be_imported_and_none_called() {
    let i = "i32 ";
    let functions = [
        ("args_get", i.repeat(2), true),
        ("args_sizes_get", i.repeat(2), true),
        ("fd_close", i.to_owned(), true),
        ("fd_fdstat_get", i.repeat(2), true),
        ("fd_fdstat_set_flags", i.repeat(2), true),
        ("fd_prestat_dir_name", i.repeat(3), true),
        ("fd_prestat_get", i.repeat(2), true),
        ("fd_read", i.repeat(4), true),
        ("fd_seek", "i32 i64 i32 i32".to_owned(), true),
        ("fd_write", i.repeat(4), true),
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32".to_owned(), true),
        ("proc_exit", i.to_owned(), false),
    ];
    run(async {
        for (name, parameters, has_result) in functions {
            let result = if has_result { "(result i32)" } else { "" };
            let arguments: Vec<_> =
                parameters.split_whitespace().map(|of| format!("({of}.const 0)")).collect();
            let drop = if has_result { "drop" } else { "" };
            let text = nsend(&format!("(call $wasi {}) {drop} (i32.const 0)", arguments.join(" ")));
            let import = format!(
                "(module (import \"wasi_snapshot_preview1\" \"{name}\" (func $wasi (param {parameters}) {result}))"
            );
            let monitors = session(&[&text.replacen("(module", &import, 1)]).await;
            let said = says(&monitors).await;
            let is_trap = matches!(
                &said,
                Verdict::Objection { objection: Objection::Failed(Some(Crash::Trapped(_))), .. }
            );
            assert!(is_trap, "{name}: {said:?}");
        }
    });
}

#[test]
fn what_is_no_module_or_a_broken_or_too_large_one_is_not_compiled() {
    run(async {
        let whole = wat::parse_str(module("")).unwrap();
        for file in [&whole[..whole.len() - 1], &whole[..8], b"", b"\0asm\x02\0\0\0", &[7; 100]] {
            let refused = Compiled::of(&Program::from_wasm(file).unwrap()).await.err().unwrap();
            assert!(
                matches!(refused, Unusable::Unfit(Unfit::Invalid(_) | Unfit::NoMemory)),
                "{refused:?}"
            );
        }
        let large = Program::from_wasm(&vec![0; MODULE_LEN_MAX + 1]).unwrap();
        let refused = Compiled::of(&large).await.err().unwrap();
        assert_eq!(refused, Unusable::Unfit(Unfit::TooLarge { len_bytes: MODULE_LEN_MAX + 1 }));
    });
}
