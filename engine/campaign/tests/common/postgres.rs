//! A PostgreSQL of a test's own: made by `initdb` in a folder of its own, reached over a unix socket in it, and with its
//! default settings, so that what it acknowledges is durable. It can be killed and started again. Not a service: it ends
//! with the value, and so does its folder.
//!
//! PostgreSQL does not run as root; from root it is started as `postgres`, or as `nobody` where there is no such user.

#![allow(dead_code, reason = "each suite that includes this file needs a part of it")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

/// So often a start is tried while processes of the one that was killed still hold its memory.
const STARTS_MAX: usize = 100;

pub(crate) struct Postgres {
    folder: PathBuf,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    options: Vec<String>,
    postmaster: Option<Child>,
    tcp_port: Option<u16>,
}

/// A certificate and its key, in PEM, for a server that listens on 127.0.0.1 as well.
pub(crate) struct ServerCertificate {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Postgres {
    /// Makes it and starts it.
    pub(crate) fn new() -> Self {
        let mut postgres = Self::initialised();
        postgres.start();
        postgres
    }

    /// In this folder, with this setting, which holds unless a client says otherwise.
    pub(crate) fn within(folder: &Path, setting: &str) -> Self {
        let mut postgres = Self::initialised_in(folder);
        postgres.options.push(setting.to_owned());
        postgres.start();
        postgres
    }

    /// One that answers on 127.0.0.1 with TLS, or, without a certificate, in the clear.
    pub(crate) fn over_tcp(certificate: Option<&ServerCertificate>) -> Self {
        let mut postgres = Self::initialised();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        postgres.tcp_port = Some(port);
        postgres.options.extend([format!("port={port}"), "listen_addresses=127.0.0.1".to_owned()]);
        if let Some(certificate) = certificate {
            postgres.have_certificate(certificate);
        }
        postgres.start();
        postgres
    }

    /// One that answers at this address, with TLS alone, whoever comes from anywhere. For a network of the test's own, in which
    /// nobody else has its port.
    pub(crate) fn over_network(address: Ipv4Addr, certificate: &ServerCertificate) -> Self {
        let mut postgres = Self::initialised();
        postgres.tcp_port = Some(5432);
        postgres.options.push(format!("listen_addresses={address}"));
        postgres.have_certificate(certificate);
        postgres.write("data/pg_hba.conf", b"local all all trust\nhostssl all all all trust\n");
        postgres.start();
        postgres
    }

    fn have_certificate(&mut self, certificate: &ServerCertificate) {
        for (name, bytes) in [("tls.crt", &certificate.certificate), ("tls.key", &certificate.key)]
        {
            self.write(name, bytes);
        }
        let folder = self.folder.display().to_string();
        self.options.extend([
            "ssl=on".to_owned(),
            format!("ssl_cert_file={folder}/tls.crt"),
            format!("ssl_key_file={folder}/tls.key"),
        ]);
    }

    /// A standby of another, which calls it `standby` and tells it all that is written from now on.
    pub(crate) fn standby_of(primary: &Self) -> Self {
        let mut standby = Self::without_data(&std::env::temp_dir());
        let data = standby.folder.join("data");
        let to =
            format!("host={} user=postgres application_name=standby", primary.folder.display());
        let mut copy = standby.command("pg_basebackup");
        let copy =
            copy.args(["-R", "-C", "-S", "standby", "--checkpoint=fast", "--no-sync", "-d", &to]);
        let made = copy.arg("-D").arg(data).output().expect("pg_basebackup runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        standby.start();
        standby
    }

    fn initialised() -> Self {
        Self::initialised_in(&std::env::temp_dir())
    }

    fn initialised_in(folder: &Path) -> Self {
        let postgres = Self::without_data(folder);
        let data = postgres.folder.join("data");
        let mut initdb = postgres.command("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]);
        let made = initdb.args(["--no-locale", "-D"]).arg(data).output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres
    }

    /// A folder of its own in this one, and who may use it.
    fn without_data(folder: &Path) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("campaign-test-{}-{number}", std::process::id());
        let folder = folder.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a new folder");
        let user = geteuid().is_root().then(|| {
            let known = ["postgres", "nobody"].into_iter();
            let user = known.filter_map(|name| User::from_name(name).ok().flatten()).next();
            let user = user.expect("a user postgres or nobody");
            (user.uid.as_raw(), user.gid.as_raw())
        });
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("the folder is ours");
        }
        Self {
            options: vec![
                format!("unix_socket_directories={}", folder.display()),
                "listen_addresses=".to_owned(),
                // Else each file is synced by itself before it starts again after a kill, which takes seconds.
                "recovery_init_sync_method=syncfs".to_owned(),
            ],
            folder,
            programs: programs(),
            user,
            postmaster: None,
            tcp_port: None,
        }
    }

    /// Who must prove what (the text of `pg_hba.conf`), and by which authority's certificates. Holds from the next start.
    pub(crate) fn demand(&mut self, rules: &str, authority: &[u8]) {
        self.write("data/pg_hba.conf", rules.as_bytes());
        self.write("clients.pem", authority);
        let folder = self.folder.display();
        self.options.push(format!("ssl_ca_file={folder}/clients.pem"));
    }

    /// A file in the folder that the server alone may read.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(name);
        fs::write(&path, bytes).expect("a file of the server");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        if let Some((uid, gid)) = self.user {
            chown(&path, Some(uid), Some(gid)).expect("its owner");
        }
    }

    /// A program of PostgreSQL, as the user it runs as.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Starts it, and waits until it takes connections.
    pub(crate) fn start(&mut self) {
        assert!(self.postmaster.is_none(), "it runs");
        for _ in 0..STARTS_MAX {
            let mut command = self.command("postgres");
            command.arg("-D").arg(self.folder.join("data"));
            for option in &self.options {
                command.args(["-c", option]);
            }
            let mut child = command.stderr(Stdio::piped()).spawn().expect("postgres starts");
            let mut log = BufReader::new(child.stderr.take().expect("its log"));
            let mut told = String::new();
            loop {
                let before = told.len();
                let is_over = log.read_line(&mut told).is_ok_and(|bytes| bytes == 0);
                if told[before..].contains("ready to accept ") {
                    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                    self.postmaster = Some(child);
                    return;
                }
                if is_over {
                    break;
                }
            }
            child.wait().expect("a child");
            assert!(told.contains("still in use") || told.contains("lock file"), "{told}");
        }
        panic!("the memory of the server that was killed is still in use");
    }

    /// Kills it and all its processes at once, as a fault of the machine would.
    pub(crate) fn kill(&mut self) {
        for process in self.processes() {
            let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL); // or it has just ended
        }
        self.postmaster.take().expect("it runs").wait().expect("a child");
    }

    /// Stops or continues the postmaster and all its processes, by SIGSTOP and SIGCONT.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for process in self.processes().into_iter().rev() {
            let _ = kill(Pid::from_raw(process.cast_signed()), signal); // or it has just ended
        }
    }

    /// Where it is reached on this machine.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// The postmaster and all its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let postmaster = self.postmaster.as_ref().expect("it runs").id();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.expect("its children");
        let children = children.split_whitespace().map(|child| child.parse().expect("a number"));
        std::iter::once(postmaster).chain(children).collect()
    }

    /// The address of a campaign in it, over its unix socket, as the owner.
    pub(crate) fn address(&self, campaign: &str) -> String {
        self.address_as("postgres", campaign)
    }

    /// The address of a campaign in whichever of the two is no standby.
    pub(crate) fn address_with(&self, standby: &Self, campaign: &str) -> String {
        let [one, other] = [self, standby].map(|server| server.folder.display());
        let hosts = format!("host={one}&host={other}");
        format!("postgres://postgres@/postgres?{hosts}&target_session_attrs=read-write#{campaign}")
    }

    /// The same as another user, who is trusted without a password.
    pub(crate) fn address_as(&self, user: &str, campaign: &str) -> String {
        let port = self.tcp_port.unwrap_or(5432);
        format!("postgres://{user}@/postgres?host={}&port={port}#{campaign}", self.folder.display())
    }

    /// The address over the network, by a name that leads to 127.0.0.1.
    pub(crate) fn tcp_address(&self, host: &str, campaign: &str) -> String {
        let port = self.tcp_port.expect("it listens");
        format!("postgres://postgres@{host}:{port}/postgres?hostaddr=127.0.0.1#{campaign}")
    }

    /// Runs statements and returns what they tell: a line for each row, columns with `|` between them.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"]);
        psql.arg(&self.folder).args(["-p", &self.tcp_port.unwrap_or(5432).to_string()]);
        let ended = psql.args(["-c", statements]).output().expect("psql runs");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{statements}: {errors}");
        String::from_utf8_lossy(&ended.stdout).trim_end().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.postmaster.is_some() {
            self.kill();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where Debian has the programs of the newest version that is installed.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    let newest = folders.filter(|folder| folder.join("initdb").exists()).max_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|version| version.parse::<u32>().ok())
    });
    newest.expect("PostgreSQL is installed (Debian's package postgresql)")
}
