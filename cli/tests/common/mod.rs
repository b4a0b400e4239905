//! A home for one test: a folder with keys, certificates, a mlet and config files, and `pktxpmgr`
//! running in it. Not every test file uses everything.

#![allow(dead_code, unreachable_pub, reason = "each test file compiles this module on its own")]

pub mod broker;
pub mod browser;
pub mod campaign;
pub mod cgroup;
pub mod churn;
pub mod crowd;
#[path = "../../../engine/tests/common/debug_forms.rs"]
pub mod debug_forms;
pub mod disk;
pub mod dump;
pub mod endpoint;
pub mod events;
pub mod http;
pub mod manager;
pub mod option_pairs;
pub mod proxy;
pub mod screen;
pub mod stalled;
pub mod tail;
pub mod terminal;
pub mod tls_peer;
pub mod told;
pub mod watching;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::program::Program;
use packetlab::time::Ticks;

use debug_forms::assert_no_debug_form;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the program says when everything is loaded.
const LOADED: &str = "configuration loaded";

/// The program under test.
pub const PKTXPMGR: &str = env!("CARGO_BIN_EXE_pktxpmgr");
/// The other program under test.
pub const PKTCRED: &str = env!("CARGO_BIN_EXE_pktcred");

/// A folder that disappears with the value, holding:
/// `xc` the controller key, `enc` the same encrypted with `hunter2`; `eop.pub`, `bop.pub`;
/// `exppriv.cert` eop -> exper, `pubcmd.cert` exper -> xc, `agent.cert` xc; `mlet`.
pub struct Home {
    folder: PathBuf,
    /// A user of whom nothing else runs.
    stranger: u32,
    pub keys: Keys,
}

/// Everybody's keys.
pub struct Keys {
    pub controller: PrivateKey,
    pub operator: PrivateKey,
    pub experimenter: PrivateKey,
    pub delegate: PrivateKey,
}

/// A folder that nobody has, and which of this process it is.
fn fresh_folder() -> (PathBuf, u32) {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pktxpmgr-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return (folder, number),
            // A process that had this number was killed and has left it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("{}: {error}", folder.display()),
        }
    }
}

impl Home {
    pub fn new() -> Self {
        let (folder, number) = fresh_folder();
        let keys = Keys {
            controller: PrivateKey::generate().unwrap(),
            operator: PrivateKey::generate().unwrap(),
            experimenter: PrivateKey::generate().unwrap(),
            delegate: PrivateKey::generate().unwrap(),
        };
        // Neither a user of this machine nor one of another home; containers often know no more than 65,536.
        let stranger = 20_000 + std::process::id() % 400 * 100 + number % 100;
        let home = Self { folder, stranger, keys };
        home.fill();
        home
    }

    fn fill(&self) {
        let keys = &self.keys;
        self.write("xc", keys.controller.to_pem().as_bytes());
        self.write("enc", keys.controller.to_encrypted_pem(b"hunter2").unwrap().as_bytes());
        self.write("eop.pub", keys.operator.public_key().to_pem().as_bytes());
        self.write("exper.pub", keys.experimenter.public_key().to_pem().as_bytes());
        let (controller, experimenter) =
            (keys.controller.public_key(), keys.experimenter.public_key());
        self.issue("exppriv.cert", CertificateType::Exppriv, &experimenter, &keys.operator);
        self.issue("pubcmd.cert", CertificateType::Pubcmd, &controller, &keys.experimenter);
        self.issue("agent.cert", CertificateType::Agent, &controller, &keys.controller);
        self.write("mlet", b"#!/bin/sh\n");
        self.chmod("mlet", 0o700);
        self.write("xpmgr.conf", self.least().as_bytes());
    }

    /// A home whose chain demands two programs that are there and one that is not, one of them twice.
    pub fn with_programs() -> (Self, [Program; 2]) {
        let home = Self::new();
        home.make_directory("progs");
        let ebpf = b"# accept everything\n0xb7 0 0 0 1\n0x95 0 0 0 0 exit\n";
        let wasm = b"\0asm\x01\0\0\0";
        home.write("progs/accept.ebpf", ebpf);
        home.write("progs/empty.wasm", wasm);
        home.write("progs/notes.txt", b"not a program");
        home.write("progs/.hidden", b"not a program");
        let programs = [Program::from_ebpf_text(ebpf).unwrap(), Program::from_wasm(wasm).unwrap()];
        let digests = programs.each_ref().map(|program| *program.digest());
        let monitor = vec![digests[0], [7; 32], digests[1], digests[0]];
        let limits = CertificateLimits { monitor, ..CertificateLimits::default() };
        let (experimenter, operator) = (&home.keys.experimenter, &home.keys.operator);
        let exppriv = endpoint::certificate_with(
            CertificateType::Exppriv,
            &experimenter.public_key(),
            operator,
            limits,
            Ticks::MAX,
        );
        home.write("exppriv.cert", exppriv.to_pem().as_bytes());
        let config = format!("ProgramDirPath progs\n{}", home.least());
        home.write("xpmgr.conf", config.as_bytes());
        (home, programs)
    }

    /// The least config that loads.
    pub fn least(&self) -> String {
        "EnableExpPublication 0\nControllerPrivkeyPath xc\n\
         ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\n"
            .to_owned()
    }

    /// The path of something in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file that only we may read.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.path(name)).unwrap().write_all(bytes).unwrap();
    }

    pub fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub fn make_directory(&self, name: &str) {
        fs::DirBuilder::new().mode(0o700).create(self.path(name)).unwrap();
    }

    /// Writes a certificate that is valid from 1970 on for ever.
    pub fn issue(
        &self,
        name: &str,
        kind: CertificateType,
        subject: &PublicKey,
        signer: &PrivateKey,
    ) {
        self.issue_until(name, kind, subject, signer, Ticks::MAX);
    }

    /// Writes a certificate that is valid from 1970 on.
    pub fn issue_until(
        &self,
        name: &str,
        certificate_type: CertificateType,
        subject: &PublicKey,
        signer: &PrivateKey,
        not_after: Ticks,
    ) {
        let is_delegation = certificate_type == CertificateType::Delpriv;
        let fields = CertificateFields {
            certificate_type,
            delegation: Delegation { exppriv: is_delegation, reppriv: false },
            path_len: None,
            not_before: Ticks(0),
            not_after,
            description: None,
            auxiliary: Vec::new(),
            limits: CertificateLimits::default(),
        };
        let der = issue(&fields, subject, signer).unwrap();
        self.write(name, Certificate::from_der(&der).unwrap().to_pem().as_bytes());
    }

    /// `pktxpmgr` in this folder with an empty environment, listening on a free port of loopback;
    /// options and mlet are still to be added.
    pub fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:"]);
        command
    }

    /// `pktxpmgr` in this folder with an empty environment and no option at all.
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(PKTXPMGR);
        command.current_dir(&self.folder).env_clear().envs(sabotage()).stdin(Stdio::null());
        command
    }

    /// Gives the folder, with programs in it that it can reach, to somebody without rights, and returns who that is: to
    /// root the kernel bars nothing. Whoever runs the tests without rights is somebody like that already.
    pub fn give_away(&self) -> Option<u32> {
        for program in [Path::new(PKTXPMGR), &manager::zoo(), &manager::example("barred")] {
            fs::copy(program, self.path(program.file_name()?.to_str()?)).unwrap();
        }
        if !geteuid().is_root() {
            return None;
        }
        for entry in fs::read_dir(&self.folder).unwrap() {
            chown(entry.unwrap().path(), Some(self.stranger), Some(self.stranger)).unwrap();
        }
        chown(&self.folder, Some(self.stranger), Some(self.stranger)).unwrap();
        Some(self.stranger)
    }

    /// A program of a folder that was given away, run in it with an empty environment by whom it was given to.
    pub fn command_of(&self, stranger: Option<u32>, program: &str) -> Command {
        // An absolute path stays what it is.
        let mut command = Command::new(self.path(program));
        command.current_dir(&self.folder).env_clear().envs(sabotage()).stdin(Stdio::null());
        if let Some(user) = stranger {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs with this config file.
    pub fn run_with(&self, config: &str) -> Ended {
        self.write("xpmgr.conf", config.as_bytes());
        run(self.command().arg("./mlet"))
    }

    /// Asserts that this config is refused with code 3 and returns what was said.
    pub fn refused(&self, config: &str) -> String {
        let ended = self.run_with(config);
        assert_eq!((ended.code, ended.loaded), (Some(3), false), "{}", ended.stderr);
        ended.stderr
    }

    /// Asserts that this config loads and returns what was said.
    pub fn loads(&self, config: &str) -> String {
        let ended = self.run_with(config);
        assert!(ended.loaded, "{}", ended.stderr);
        ended.stderr
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A moment in the past, after 1970.
pub fn an_hour_ago() -> Ticks {
    Ticks::from_system_time(SystemTime::now() - Duration::from_secs(3600))
}

/// A run that is over.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Whether everything was loaded.
    pub loaded: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program until it ends, or until everything is loaded: then SIGINT ends it.
pub fn run(command: &mut Command) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // Another test that forks just then may hold a program open that was just written.
    let is_busy = |error: &io::Error| error.kind() == ErrorKind::ExecutableFileBusy;
    let mut tries = (0..1000).map(|_| command.spawn());
    let mut child = tries.find(|child| !child.as_ref().is_err_and(is_busy)).unwrap().unwrap();
    let (loaded, code, stderr) = watch(&mut child);
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    assert_no_debug_form(&stdout);
    Ended { code, loaded, stdout, stderr }
}

/// Waits as [`run`] does for a child with piped stderr: whether it loaded, its exit code, its stderr.
pub fn watch(child: &mut Child) -> (bool, Option<i32>, String) {
    let (lines, received) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    thread::spawn(move || {
        stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let mut said = String::new();
    let mut loaded = false;
    loop {
        match received.recv_timeout(PATIENCE) {
            Ok(line) => {
                if line.contains(LOADED) {
                    loaded = true;
                    // It may be gone already, which is as good.
                    let _ = kill(pid(child), Signal::SIGINT);
                }
                said.push_str(&line);
                said.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("it hangs after saying\n{said}");
            }
        }
    }
    assert_no_debug_form(&said);
    (loaded, child.wait().unwrap().code(), said)
}

/// The guard that `.ci/sabotage` takes out, which programs that a test starts must lack as well.
pub fn sabotage() -> Option<(&'static str, OsString)> {
    const NAME: &str = "PKTXPMGR_SABOTAGE";
    Some((NAME, std::env::var_os(NAME)?))
}

pub fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Asserts that the text contains every one of these.
#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// An open `/dev/full`, which refuses every write.
pub fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// The bytes of a file.
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
