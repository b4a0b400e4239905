//! Files that can and cannot be executed, judged here and by the kernel.

use std::fs::Permissions;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitStatus, Stdio};

use super::*;

/// A folder that is gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let number = RandomState::new().hash_one(0);
        let path = std::env::temp_dir().join(format!("mlet-file-test-{number:016x}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// An executable file, in whose bytes `DIR` stands for the folder.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        let text = String::from_utf8(bytes.to_vec());
        let text = text.map(|text| text.replace("DIR", self.0.to_str().unwrap()).into_bytes());
        fs::write(&path, text.unwrap_or_else(|error| error.into_bytes())).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether the kernel executes it.
fn starts(path: &Path) -> bool {
    let mut command = Command::new(path);
    run(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())).is_ok()
}

/// Another test that forks just then may hold a file open that was just written.
fn run(command: &mut Command) -> io::Result<ExitStatus> {
    let is_busy = |error: &io::Error| error.kind() == io::ErrorKind::ExecutableFileBusy;
    let mut tries = (0..1000).map(|_| command.status());
    tries.find(|ended| !ended.as_ref().is_err_and(is_busy)).unwrap()
}

#[test]
fn scripts_that_are_refused_the_kernel_refuses_too() {
    let scratch = Scratch::new();
    scratch.file("plain", b"#!/bin/sh\n");
    scratch.file("text", b"no program\n");
    fs::set_permissions(scratch.0.join("text"), Permissions::from_mode(0o600)).unwrap();
    scratch.file("broken", b"#!/no/such/interpreter\n");
    let long = |len: usize, behind: &str| format!("#!/{}{behind}", "x".repeat(len)).into_bytes();
    let cases: [(&[u8], &str); 21] = [
        (b"#!/bin/sh\nexit 0\n", ""),
        (b"#!/bin/sh", ""),
        (b"#! \t /bin/sh \t -e \nexit 0\n", ""),
        (b"#!/bin/sh\0\r\n", ""),
        (b"#!DIR/plain\n", ""),
        (&[&b"#!/bin/sh "[..], &[b'#'; 300]].concat(), ""),
        (b"", "it is empty"),
        (b"\n#!/bin/sh\n", "no script with a first line"),
        (b"echo hello\n", "it is no ELF program"),
        (b"\xef\xbb\xbf#!/bin/sh\nexit 0\n", "a byte order mark (BOM) stands before its #!"),
        (b"#!", "names no interpreter"),
        (b"#!\n/bin/sh\n", "names no interpreter"),
        (b"#! \t \n", "names no interpreter"),
        (b"#!/bin/sh\r\n", "ends in a carriage return"),
        (b"#!/bin/sh -e\r\nexit 0\r\n", "ends in a carriage return"),
        (b"#!/no/such/interpreter -x\n", "the interpreter /no/such/interpreter of its first line"),
        (b"#!/tmp\n", "the interpreter /tmp of its first line cannot be used: it is not a regular"),
        (b"#!DIR/text\n", "/text of its first line cannot be used: it is not executable"),
        (b"#!DIR/broken\n", "/broken of its first line cannot be used: the interpreter /no/such/"),
        (&long(300, "\n"), "does not end within 256 bytes"),
        (&long(253, ""), "does not end within 256 bytes"),
    ];
    for (bytes, expected) in cases {
        let path = scratch.file("mlet", bytes);
        let shown = bytes.escape_ascii();
        match check(&path) {
            Ok(()) => assert_eq!(expected, "", "{shown} is accepted"),
            Err(flaw) => {
                let said = flaw.to_string();
                assert!(!expected.is_empty() && said.contains(expected), "{shown}: {said}");
                // The kernel knows nothing of what the arguments of an interpreter mean.
                assert!(!starts(&path) || bytes.starts_with(b"#!/bin/sh -e\r"), "{shown}: {said}");
            }
        }
    }
    // To the last byte that counts.
    let path = scratch.file("mlet", &long(252, "\n"));
    assert!(matches!(check(&path), Err(Flaw::Interpreter { .. })));
    let path = scratch.file("mlet", &long(252, " x"));
    assert!(matches!(check(&path), Err(Flaw::Interpreter { .. })));
}

/// In the environment of a mlet, which has no PATH.
#[test]
fn what_env_does_not_find_is_refused_as_env_refuses_it() {
    let scratch = Scratch::new();
    for (line, is_found) in [
        ("#!/usr/bin/env sh\n", true),
        ("#!/usr/bin/env /bin/sh\n", true),
        ("#!/usr/bin/env no-such-interpreter\n", false),
        ("#!/usr/bin/env sh -e\n", false),
    ] {
        let path = scratch.file("mlet", line.as_bytes());
        let refused = matches!(check(&path), Err(Flaw::NotFoundByEnv { .. }));
        assert_eq!(!refused, is_found, "{line}");
        let mut command = Command::new(&path);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // env(1) says that it has not found it.
        let code = run(&mut command).unwrap().code();
        assert_eq!(code == Some(127), refused, "{line}: {code:?}");
    }
    // With these env would execute the script itself, again and again.
    for line in ["#!/usr/bin/env A=b\n", "#!/usr/bin/env -i\n", "#!/usr/bin/env\n"] {
        assert!(check(&scratch.file("mlet", line.as_bytes())).is_ok(), "{line}");
    }
}

#[test]
fn an_interpreter_of_itself_is_not_followed_for_ever() {
    let scratch = Scratch::new();
    let path = scratch.file("mlet", b"#!DIR/mlet\n");
    assert!(check(&path).is_ok() && !starts(&path), "left to the kernel");
}

/// The start of this program, which the C library's loader loads, changed at some places.
fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
    bytes.truncate(START_LEN);
    for (place, byte) in changes {
        bytes[*place] = *byte;
    }
    bytes
}

/// Headers of 64 bits, as on every machine that these tests run on.
#[test]
fn elf_files_that_are_refused_the_kernel_refuses_too() {
    let scratch = Scratch::new();
    assert!(check(&std::env::current_exe().unwrap()).is_ok());
    let other_data = 3 - elf::OUR_DATA;
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("cut", b"\x7fELF".to_vec(), "headers are damaged or cut"),
        ("cut", changed(&[])[..40].to_vec(), "headers are damaged or cut"),
        ("cut", changed(&[])[..70].to_vec(), "headers are damaged or cut"),
        ("machine", changed(&[(18, 243), (19, 0)]), "a program for RISC-V (64-bit, "),
        ("unknown", changed(&[(18, 1), (19, 1)]), "the machine of number 257 "),
        ("order", changed(&[(5, other_data), (18, 0), (19, 22)]), "for S/390 (64-bit, "),
        ("bits", changed(&[(4, 1), (18, 8), (19, 0)]), "for MIPS (32-bit, "),
        ("object", changed(&[(16, 1)]), "no program; link it to one"),
        ("segments", changed(&[(56, 0), (57, 0)]), "headers are damaged or cut"),
        ("segment", changed(&[(54, 7)]), "headers are damaged or cut"),
    ];
    for (name, bytes, expected) in cases {
        let path = scratch.file("mlet", &bytes);
        let said = check(&path).expect_err(name).to_string();
        assert!(said.contains(expected), "{name}: {said}");
        assert!(!starts(&path), "{name}: {said}");
    }
}

#[test]
fn a_missing_loader_is_named() {
    let scratch = Scratch::new();
    let whole = changed(&[]);
    let path = scratch.file("mlet", &whole);
    let file = File::open(&path).unwrap();
    let loader = Elf::read(&whole).unwrap().loader(&file).unwrap().expect("a loader");
    let name = loader.as_os_str().as_bytes();
    let place = whole.windows(name.len()).position(|window| window == name).unwrap();
    // The loader's name, with another first letter behind the slash.
    let path = scratch.file("mlet", &changed(&[(place + 1, b'_')]));
    let said = check(&path).unwrap_err().to_string();
    assert!(said.contains("the loader /_"), "{said}");
    assert!(said.contains("that it was linked for cannot be used: No such file"), "{said}");
    assert!(!starts(&path));
    // A name without its end.
    let path = scratch.file("mlet", &changed(&[(place + name.len(), b'x')]));
    assert!(matches!(check(&path), Err(Flaw::Damaged)) && !starts(&path));
}

#[test]
fn what_cannot_be_reached_or_executed_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.file("mlet", b"#!/bin/sh\n");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    for (path, expected) in [
        (path.as_path(), "it is not executable; chmod +x it"),
        (&scratch.0, "it is not a regular file"),
        (&scratch.0.join("nowhere"), "No such file"),
        (Path::new(""), "No such file"),
    ] {
        let said = check(path).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn handlers_of_binfmt_misc_are_understood() {
    let elf = "interpreter /usr/bin/qemu-aarch64\nflags: OCF\noffset 0\n\
               magic 7f454c460201010000000000000000000200b700\n";
    let masked = format!("enabled\n{elf}mask ffffffffffffff00fffffffffffffffffeffffff\n");
    let mut start = b"\x7fELF\x02\x01\x01\x00\0\0\0\0\0\0\0\0\x02\x00\xb7\x00 more".to_vec();
    let takes = |handler: &str, start: &[u8]| takes(handler, Path::new("./a.b/m.exe"), start);
    assert!(takes(&masked, &start));
    assert!(!takes(&masked.replace("enabled", "disabled"), &start));
    // Where the mask has no bits.
    (start[7], start[16]) = (9, 3);
    assert!(takes(&masked, &start));
    assert!(!takes(&format!("enabled\n{elf}"), &start), "without a mask all bits count");
    start[18] = 62;
    assert!(!takes(&masked, &start));
    assert!(!takes(&masked, &start[..10]));
    assert!(takes("enabled\ninterpreter /x\nflags: \noffset 2\nmagic 4142\n", b"xxAB"));
    assert!(takes("enabled\ninterpreter /x\nflags: \nextension .exe\n", b"MZ"));
    assert!(!takes("enabled\ninterpreter /x\nflags: \nextension .b\n", b"MZ"));
    for other in ["", "enabled\n", "disabled\n", "enabled\noffset 0\nmagic xy\n"] {
        assert!(!takes(other, b"MZ"), "{other}");
    }
}
