//! Prices, summed up by hand: who changes one changes what is said of it in performance.md.

fn cost(contents: &str) -> u64 {
    let file = wat::parse_str(format!("(module {contents})")).unwrap();
    super::of(&file).unwrap().1
}

/// What instructions have to do with here, and what is not priced with them.
const CONTEXT: &str = r#"
    (type $none (func)) (type $some (func (param i32 i32) (result i32 i32 i32)))
    (type $through (func (param i32) (result i32)))
    (memory 1) (table 1 funcref)
    (func $none) (func $some (type $some) unreachable)
    (data $data "") (elem $elements func $none)"#;

/// Of instructions in a function without variables, which leave nothing behind.
fn priced(instructions: &str) -> u64 {
    let module = |instructions| cost(&format!("{CONTEXT} (func {instructions})"));
    module(instructions) - module("")
}

fn variables(count: usize, instructions: &str) -> u64 {
    cost(&format!("(func (local {}) {instructions})", "i32 ".repeat(count)))
}

#[test]
fn each_thing_outside_of_functions_has_its_price() {
    // With its type and its end.
    let function = 250 + 150 + 5;
    for (contents, expected) in [
        ("", 0),
        ("(type (func))", 250),
        ("(type (func (param i32 f64) (result i64)))", 250 + 3 * 15),
        (r#"(import "a" "b" (global i32))"#, 300),
        ("(global i32 (i32.const 0))", 300),
        (r#"(memory 1) (data (i32.const 0) "bytes")"#, 300),
        (r#"(memory (export "a") 1)"#, 300),
        ("(table 2 funcref)", 300),
        ("(table 10 funcref) (table 3 funcref)", 2 * 300 + 3 + 1),
        ("(elem funcref (ref.null func) (ref.null func))", 3 * 300),
        ("(func)", function),
        ("(func) (func)", function + 150 + 5),
        ("(func $f) (elem func $f $f)", function + 3 * 300),
    ] {
        assert_eq!(cost(contents), expected, "{contents}");
    }
}

#[test]
fn each_kind_of_instruction_has_its_price() {
    let (number, target) = (4, 5);
    for (instructions, expected) in [
        ("nop", 0),
        ("i32.const 0 drop", number),
        ("i32.const 0 i32.const 0 i32.add drop", 2 * number + 4),
        ("memory.size drop", 4),
        ("f64.const 0 f64.sqrt drop", number + 8),
        ("i32.const 0 f32.convert_i32_s drop", number + 8),
        ("v128.const i64x2 0 0 drop", 60),
        ("i32.const 0 i32.const 1 i32.div_s drop", 2 * number + 10),
        ("i64.const 0 i64.const 1 i64.rem_u drop", 2 * number + 10),
        ("f32.const 0 i32.trunc_f32_s drop", number + 30),
        ("f64.const 0 i64.trunc_f64_u drop", number + 30),
        ("f64.const 0 i64.trunc_sat_f64_u drop", number + 30),
        ("i32.const 0 i64.load drop", number + 20),
        ("i32.const 0 i32.const 0 i32.store8", 2 * number + 20),
        ("call $none", 15),
        ("i32.const 0 i32.const 0 call $some drop drop drop", 2 * number + 15 + 2 * 2 + 3 * 6),
        ("i32.const 0 memory.grow drop", number + 150 + 2 + 6),
        ("i32.const 0 i32.const 0 i32.const 0 memory.copy", 3 * number + 150 + 3 * 2),
        ("i32.const 0 i32.const 0 i32.const 0 memory.fill", 3 * number + 150 + 3 * 2),
        ("i32.const 0 i32.const 0 i32.const 0 memory.init $data", 3 * number + 150 + 3 * 2),
        ("data.drop $data", 150),
        ("i32.const 0 i32.const 0 i32.const 0 table.copy", 3 * number + 150 + 3 * 2),
        ("i32.const 0 ref.null func i32.const 0 table.fill", 3 * number + 150 + 3 * 2),
        ("i32.const 0 i32.const 0 i32.const 0 table.init $elements", 3 * number + 150 + 3 * 2),
        ("ref.null func i32.const 0 table.grow drop", 2 * number + 150 + 2 * 2 + 6),
        ("elem.drop $elements", 150),
        ("ref.func $none drop", 150 + 6),
        // As a call and as a jump.
        ("i32.const 0 call_indirect (type $none)", number + 180 + 2 + target + 4),
        (
            "i32.const 0 i32.const 0 i32.const 0 call_indirect (type $some) drop drop drop",
            3 * number + 180 + 3 * 2 + 3 * 6 + target + 6 * 4,
        ),
        ("i32.const 0 table.get drop", number + 180 + 2 + 6 + target + 2 * 4),
        ("i32.const 0 ref.null func table.set", 2 * number + 180 + 2 * 2 + target + 2 * 4),
        ("block end", 2 * target),
        ("i32.const 0 if else end", number + target + 4 + 2 * target),
        ("block br 0 end", 3 * target),
        ("return", target),
        ("block i32.const 0 br_if 0 end", number + 2 * target + target + 4),
        ("block (result i32) i32.const 0 end drop", number + target + target + 2 * 4),
        // Each target is a jump with all that goes there.
        ("block i32.const 0 br_table 0 0 0 end", number + 2 * target + 3 * (target + 4)),
        (
            "block (result i32) i32.const 0 i32.const 0 br_table 0 0 end drop",
            2 * number + target + 2 * (target + 2 * 4) + target + 2 * 4,
        ),
        ("loop end", target + 3 * 3 + target),
        (
            "i32.const 0 loop (type $through) end drop",
            number + target + 2 * 4 + (1 + 2 + 3) * 3 + target + 2 * 4,
        ),
    ] {
        assert_eq!(priced(instructions), expected, "{instructions}");
    }
}

#[test]
fn what_is_there_counts_at_calls_jumps_and_loops() {
    let function = 250 + 150;
    let operands = |count, instructions: &str| {
        let (given, taken) = ("i32.const 0 ".repeat(count), "drop ".repeat(count));
        priced(&format!("{given} {instructions} {taken}"))
    };
    assert_eq!(operands(15, "call $none"), 15 * 4 + 15);
    assert_eq!(operands(16, "call $none"), 16 * 4 + 15 + 1);
    assert_eq!(operands(7, "block end"), 7 * 4 + 2 * (5 + 1));
    assert_eq!(operands(8, "block end"), 8 * 4 + 2 * (5 + 2));
    // Each variable by itself, and at the end of its function; parameters are some.
    assert_eq!(variables(7, ""), function + 7 + 5 + 7);
    assert_eq!(cost("(func (param i32 i32))"), function + 2 * 15 + 2 + 5 + 2);
    let callee = function + 5;
    let alive = format!("(func $f) (func (local {}) call $f)", "i64 ".repeat(32));
    assert_eq!(cost(&alive), callee + 150 + 32 + 15 + 2 + 5 + 32);
    // At jump 0 to 10 once more for each 500 of variables times jumps.
    let before = 5 + 2;
    assert_eq!(variables(100, &"block end ".repeat(5)), function + 100 + 11 * 105 + before);
    assert_eq!(variables(499, "return"), function + 499 + 2 * (5 + 499));
    // The five targets of a table are jumps before.
    let table = "block i32.const 0 br_table 0 0 0 0 0 end";
    let jumps = 105 + 5 * (105 + 4) + (105 + 1) + (105 + 1);
    assert_eq!(variables(100, table), function + 100 + 4 + jumps);
    // 13 at each loop: the squares of 13 and 26 are 169 and 676.
    let loops = (15 + 13 * 3 + 1) + (15 + 13 * 3 + 5);
    assert_eq!(variables(10, "loop loop end end"), function + 10 + loops + 3 * 15);
    let squared = 103 * 103 / 100;
    assert_eq!(variables(100, "loop end"), function + 100 + 3 * 105 + 103 * 3 + squared);
}
