//! What filters want, and which are none.

use super::*;

/// The filter of the original's ping: ICMP echo replies with identifier 0x15be, whole.
const ECHO_REPLIES: &str = "00bf61000000000000b770000000000000300000000000000057000000fffffff0\
    5500000800000040300000000000000955000006000000012800000000000014550000040000000028000000000000\
    18b77000000000ffff15000001000015beb770000000000000bf070000000000009500000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The filter written as text, as monitors are (spec/protocol.md 6.1).
fn filter(text: &str) -> Result<Filter, BadFilter> {
    Filter::decode(Program::from_ebpf_text(text.as_bytes()).unwrap().encoded())
}

impl Filter {
    /// How many bytes are wanted, by a filter that keeps to its budget.
    fn wanted(&mut self, packet: &[u8]) -> usize {
        self.wanted_len(packet).unwrap()
    }
}

#[test]
fn the_originals_ping_filter_takes_its_replies_and_nothing_else() {
    let mut filter = Filter::decode(&bytes(ECHO_REPLIES)).unwrap();
    let reply = bytes("4500001cabfc00004001d0957f4d00017f0000010000ea4115be0000");
    assert_eq!(filter.wanted(&reply), reply.len());
    for (at, value) in [(0, 0x60), (9, 0x11), (20, 8), (24, 0x16), (25, 0)] {
        let mut other = reply.clone();
        other[at] = value;
        assert_eq!(filter.wanted(&other), 0, "byte {at}");
    }
    // Long enough for the last load, or not.
    assert_eq!(filter.wanted(&reply[..26]), 26);
    assert_eq!(filter.wanted(&reply[..25]), 0);
    assert_eq!(filter.wanted(&[]), 0);
}

#[test]
fn packet_loads_are_big_endian_of_every_width_and_bounded_by_the_packet() {
    let packet = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    // if load == expected { return 9 } else { return 0 }
    let text = |load: &str, low: &str, high: &str| {
        format!(
            "0xbf 6 1 0 0\n0xb7 7 0 0 1\n{load}\n0x18 1 0 0 {low}\n0 0 0 0 {high}\n0x1d 0 1 2 0\n\
             0xb7 0 0 0 0\n0x95 0 0 0 0\n0xb7 0 0 0 9\n0x95 0 0 0 0"
        )
    };
    for (load, low, high) in [
        ("0x30 0 0 0 8", "9", "0"),
        ("0x28 0 0 0 7", "0x0809", "0"),
        ("0x20 0 0 0 1", "0x02030405", "0"),
        ("0x38 0 0 0 1", "0x06070809", "0x02030405"),
        ("0x50 0 7 0 7", "9", "0"),
        ("0x48 0 7 0 0", "0x0203", "0"),
        ("0x40 0 7 0 0xffffffff", "0x01020304", "0"),
        ("0x58 0 7 0 0", "0x06070809", "0x02030405"),
    ] {
        let mut filter = filter(&text(load, low, high)).unwrap();
        assert_eq!(filter.wanted(&packet), 9, "{load}");
        assert_eq!(filter.wanted(&packet[..1]), 0, "{load} past the end");
    }
    for load in ["0x30 0 0 0 9", "0x30 0 0 0 0xffffffff", "0x28 0 0 0 8", "0x58 0 7 0 1"] {
        let mut filter = filter(&text(load, "0", "0")).unwrap();
        assert_eq!(filter.wanted(&packet), 0, "{load}");
    }
}

#[test]
fn a_filter_may_want_a_part_of_the_packet() {
    let mut filter = filter("0xb7 0 0 0 5\n0x95 0 0 0 0").unwrap();
    assert_eq!((filter.wanted(&[7; 9]), filter.wanted(&[7; 3])), (5, 3));
    assert_eq!(filter.wanted(&vec![0; LEN_MAX + 1]), 0);
}

#[test]
fn the_smallest_number_has_a_negative() {
    let text = "0x18 0 0 0 0\n0 0 0 0 0x80000000\n0x87 0 0 0 0\n0x77 0 0 0 63\n0x95 0 0 0 0";
    assert_eq!(filter(text).unwrap().wanted(&[1, 2]), 1);
}

#[test]
fn what_is_no_program_is_refused() {
    let exit = "0x95 0 0 0 0";
    for text in [
        "",
        "0xb7 0 0 0 1",
        &format!("0xb7 0 0 0 0\n0x15 0 0 0xfff0 0\n{exit}"),
        &format!("5 0 0 9 0\n{exit}"),
        &format!("0xb7 1 0 0 0\n0x85 0 0 0 1\n{exit}"),
        &format!("0xb7 0 0 0 0\n0xff 0 0 0 0\n{exit}"),
        &format!("0xb7 0 0 0 0\n0xb7 11 0 0 0\n{exit}"),
        &format!("0xb7 0 0 0 0\n0xb7 10 0 0 0\n{exit}"),
        &format!("0x18 0 0 0 0\n0xb7 0 0 0 0\n{exit}"),
        &format!("0xb7 0 0 0 0\n0x15 0 0 1 0\n0x18 0 0 0 0\n0 0 0 0 0\n{exit}"),
        // A number that names something in the kernel.
        &format!("0x18 0 1 0 0\n0 0 0 0 0\n{exit}"),
    ] {
        assert_eq!(filter(text).err(), Some(BadFilter), "{text}");
    }
    let wasm = Program::from_wasm(b"\0asm").unwrap();
    assert_eq!(Filter::decode(wasm.encoded()).err(), Some(BadFilter));
    let long = format!("0xbf 6 1 0 0\n{}{exit}", "0x30 0 0 0 0\n".repeat(9000));
    assert_eq!(filter(&long).err(), Some(BadFilter));
}

/// As the kernel does with the original's (spec/protocol.md 1.4, NCAP).
#[test]
fn what_breaks_the_rules_of_the_kernel_is_refused_and_what_keeps_them_is_not() {
    let (context, exit, zero) = ("0xbf 6 1 0 0", "0x95 0 0 0 0", "0xb7 0 0 0 0");
    for (lines, accepted) in [
        // Packet loads want the context in r6, wherever it was put there.
        (&["0x30 0 0 0 0", exit][..], false),
        (&["0xb7 6 0 0 1", "0x30 0 0 0 0", exit], false),
        (&["0xb7 2 0 0 1", context, "0x30 0 0 0 0", exit], true),
        (&["0xb7 7 0 0 1", "0x50 0 7 0 0", exit], false),
        (&[context, "0xb7 7 0 0 1", "0x50 0 7 0 0", exit], true),
        // The context is there on one of two paths only.
        (&[zero, "0x15 0 0 1 1", context, "0x30 0 0 0 0", exit], false),
        // A packet load loses r1 to r5.
        (&[context, "0x30 0 0 0 0", "0xbf 6 1 0 0", zero, exit], false),
        (&[context, "0xb7 5 0 0 1", "0x30 0 0 0 0", "0xbf 0 5 0 0", exit], false),
        (&[context, "0xb7 9 0 0 1", "0x30 0 0 0 0", "0xbf 0 9 0 0", exit], true),
        // Code that is never reached.
        (&[zero, exit, exit], false),
        (&[zero, "5 0 0 1 0", zero, exit], false),
        // What was not set.
        (&[exit], false),
        (&["0xbf 0 2 0 0", exit], false),
        (&["0x07 0 0 0 1", exit], false),
        (&["0xb7 2 0 0 0", "0x15 2 0 1 0", zero, exit], false),
        (&["0x15 0 0 0 0", zero, exit], false),
        // Addresses are no numbers.
        (&["0xbf 0 1 0 0", exit], false),
        (&["0xbf 0 10 0 0", exit], false),
        (&["0x0f 1 1 0 0", zero, exit], false),
        (&["0x15 1 0 0 0", zero, exit], false),
        (&["0x7b 10 1 0xfff8 0", zero, exit], false),
        // Nor are they if there is another address, or a number, on another path.
        (&["0x61 7 1 0 0", "0x15 7 0 1 9", "0xbf 1 10 0 0", "0xbf 0 1 0 0", exit], false),
        (&["0x61 7 1 0 0", "0x15 7 0 1 9", "0xb7 1 0 0 1", "0xbf 0 1 0 0", exit], false),
        (&["0x61 7 1 0 0", "0xb7 0 0 0 1", "0x15 7 0 1 9", "0xb7 0 0 0 2", exit], true),
        (&["0xbc 0 10 0 0", exit], false),
        // The context is read-only, and of it only the length of the packet can be read.
        (&["0x62 1 0 0 0", zero, exit], false),
        (&["0x61 0 1 0 0", exit], true),
        (&["0x61 0 1 4 0", exit], false),
        (&["0x79 0 1 0 0", exit], false),
        // Memory is the stack.
        (&["0x7a 10 0 0xfff8 7", "0x79 0 10 0xfff8 0", exit], true),
        (&["0xbf 2 10 0 0", "0x07 2 0 0 0xfffffff0", "0x72 2 0 15 7", "0x71 0 2 15 0", exit], true),
        (&["0x7a 10 0 0xfe10 7", zero, exit], true),
        (&["0x7a 10 0 0xfe08 7", zero, exit], false),
        (&["0x7a 10 0 0xfff9 7", zero, exit], false),
        (&["0xb7 2 0 0 4096", "0x79 0 2 0 0", exit], false),
        // Divisions and shifts.
        (&["0xb7 0 0 0 1", "0x37 0 0 0 0", exit], false),
        (&["0xb7 0 0 0 1", "0x94 0 0 0 0", exit], false),
        (&["0xb7 0 0 0 1", "0x37 0 0 0 3", exit], true),
        (&["0xb7 0 0 0 1", "0x67 0 0 0 64", exit], false),
        (&["0xb7 0 0 0 1", "0x64 0 0 0 32", exit], false),
        (&["0xb7 0 0 0 1", "0x67 0 0 0 32", exit], true),
        // Operations of later instruction sets, which would mean another one here.
        (&["0xb7 0 0 0 1", "0x37 0 0 1 3", exit], false),
    ] {
        assert_eq!(filter(&lines.join("\n")).is_ok(), accepted, "{lines:?}");
    }
}

#[test]
fn a_loop_with_an_end_is_run_and_one_without_is_refused_or_takes_no_packet() {
    // Adds up the first ten bytes.
    let sum = "0xbf 6 1 0 0\n0xb7 7 0 0 0\n0xb7 8 0 0 0\n\
               0x50 0 8 0 0\n0x0f 7 0 0 0\n0x07 8 0 0 1\n0xa5 8 0 0xfffc 10\n\
               0xbf 0 7 0 0\n0x95 0 0 0 0";
    let mut sum = filter(sum).unwrap();
    assert_eq!(sum.wanted(&[2; 30]), 20);
    assert_eq!(sum.wanted(&[2; 9]), 0, "a load past the end");
    // It may end in the jump back, and the count does not see the filter's own stack.
    let filled = "0xb7 1 0 0 0\n0x15 1 0 3 5\n0x7a 10 0 0xfe10 0xffffffff\n0x07 1 0 0 1\n\
                  5 0 0 0xfffc 0\n0xbf 0 1 0 0\n0x95 0 0 0 0";
    assert_eq!(filter(filled).unwrap().wanted(&[0; 9]), 5);
    let last = "5 0 0 2 0\n0xb7 0 0 0 3\n0x95 0 0 0 0\n5 0 0 0xfffd 0";
    assert_eq!(filter(last).unwrap().wanted(&[0; 9]), 3);
    // Nothing changes in this one.
    let endless = "0xb7 0 0 0 0\n0x15 0 0 0xfffe 0\n0x95 0 0 0 0";
    assert_eq!(filter(endless).err(), Some(BadFilter));
    // This one goes in circles as long as the first byte is no zero.
    let circling = "0xbf 6 1 0 0\n0x30 0 0 0 0\n0x55 0 0 0xfffe 0\n0xb7 0 0 0 9\n0x95 0 0 0 0";
    let mut circling = filter(circling).unwrap();
    assert_eq!(circling.wanted(&[0; 9]), 9);
    assert_eq!(circling.wanted_len(&[1; 9]), Err(OverBudget));
}

/// As in the kernel: the constant's sign fills the upper 32 bits. An address compared so is never equal.
#[test]
fn negative_constants_have_64_bits_in_comparisons() {
    // r7 = 64 bits; r0 and r1 are kept; 1 + 2 + 4 if the jump is taken, 1 + 2 if not.
    let text = |jump: &str, low: &str, high: &str| {
        format!(
            "0xb7 0 0 0 1\n0xb7 1 0 0 2\n0x18 7 0 0 {low}\n0 0 0 0 {high}\n{jump}\n5 0 0 1 0\n\
             0x07 0 0 0 4\n0x0f 0 1 0 0\n0x95 0 0 0 0"
        )
    };
    for (jump, low, high, taken) in [
        ("0x15 7 0 1 0xc0000201", "0xc0000201", "0", false),
        ("0x15 7 0 1 0xc0000201", "0xc0000201", "0xffffffff", true),
        ("0x55 7 0 1 0xc0000201", "0xc0000201", "0", true),
        ("0x25 7 0 1 0xfffffffe", "0", "1", false),
        ("0x25 7 0 1 0xfffffffe", "0xffffffff", "0xffffffff", true),
        ("0x35 7 0 1 0xffffffff", "0", "1", false),
        ("0xa5 7 0 1 0xffffffff", "0", "1", true),
        ("0xb5 7 0 1 0xffffffff", "0", "1", true),
        // 32 bits are compared with 32.
        ("0x16 7 0 1 0xc0000201", "0xc0000201", "7", true),
        ("0x15 7 0 1 0x40000201", "0x40000201", "0", true),
    ] {
        let wanted = filter(&text(jump, low, high)).unwrap().wanted(&[0; 30]);
        assert_eq!(wanted, if taken { 7 } else { 3 }, "{jump} of {high} {low}");
    }
    // Of r0 itself, and backward.
    let r0 = "0xb7 0 0 0 0xffffffff\n0x15 0 0 1 0xffffffff\n0xb7 0 0 0 1\n0x95 0 0 0 0";
    assert_eq!(filter(r0).unwrap().wanted(&[0; 9]), 9);
    let back = "0xb7 0 0 0 3\n0xb7 7 0 0 0xfffffffd\n0x07 7 0 0 1\n0xa5 7 0 0xfffe 0xffffffff\n\
                0x95 0 0 0 0";
    assert_eq!(filter(back).unwrap().wanted(&[0; 9]), 3);
}

#[test]
fn a_result_has_32_bits_and_the_length_of_the_packet_can_be_read() {
    let mut all = filter("0xb7 0 0 0 0xffffffff\n0x95 0 0 0 0").unwrap();
    assert_eq!(all.wanted(&[0; 9]), 9);
    let mut none = filter("0x18 0 0 0 0\n0 0 0 0 1\n0x95 0 0 0 0").unwrap();
    assert_eq!(none.wanted(&[0; 9]), 0);
    let mut half = filter("0x61 0 1 0 0\n0x77 0 0 0 1\n0x95 0 0 0 0").unwrap();
    assert_eq!(half.wanted(&[0; 8]), 4);
}

/// A packet load by register becomes five instructions or six, and each of them costs time.
#[test]
fn what_a_packet_costs_is_counted_in_instructions_after_translation() {
    let loads = "0x50 0 7 0 1\n".repeat(10);
    // If the first byte is no zero, 10,000 times: 120,000 instructions, some 600,000 after translation.
    let text = format!(
        "0xbf 6 1 0 0\n0xb7 7 0 0 0\n0xb7 8 0 0 0\n0x30 0 0 0 0\n0x15 0 0 12 0\n{loads}\
         0x07 8 0 0 1\n0xa5 8 0 0xfff4 10000\n0xb7 0 0 0 9\n0x95 0 0 0 0"
    );
    let mut reading = filter(&text).unwrap();
    assert_eq!(reading.wanted_len(&[0; 9]), Ok(9));
    assert_eq!(reading.wanted_len(&[1; 9]), Err(OverBudget));
    let mut shorter = filter(&text.replace(" 10000\n", " 1000\n")).unwrap();
    assert_eq!(shorter.wanted_len(&[1; 9]), Ok(9));
}
