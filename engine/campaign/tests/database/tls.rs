//! Who is trusted over the network: a database that proves its name, and whoever has a password or a certificate.

use std::path::{Path, PathBuf};
use std::process::Command;

use campaign::{Access, ClientCertificate, DatabaseError, JoinError, join};

use crate::postgres::{Postgres, ServerCertificate};
use crate::support::{Member, create, new_campaign, settings};

/// Certificates of a test, made by openssl in a folder that goes with the value.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("campaign-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let authority = Self { folder };
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "2", "-subj", &subject,
        ]);
        authority
    }

    fn openssl(&self, arguments: &[&str]) {
        let ended = Command::new("openssl").args(arguments).current_dir(&self.folder).output();
        let ended = ended.expect("openssl runs");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(file)).expect("a file of openssl")
    }

    /// A certificate for a name, and its key.
    fn certify(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let (key, request, leaf) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let names = format!("subjectAltName=DNS:{name}");
        self.openssl(&[
            "req", "-new", "-newkey", "ed25519", "-nodes", "-keyout", &key, "-out", &request,
            "-subj", &subject, "-addext", &names,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-out",
            &leaf,
            "-days",
            "2",
            "-copy_extensions",
            "copy",
        ]);
        (self.read(&leaf), self.read(&key))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.folder));
    }
}

fn refused(access: Access) -> DatabaseError {
    let mut settings = settings(&access.address.to_string());
    settings.access = access;
    match join(settings, |_| {}).expect_err("no trust") {
        JoinError::Database(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "needs postgresql, openssl"]
fn over_the_network_only_a_database_that_proves_its_name_is_trusted() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let (certificate, key) = ours.certify("db.example");
    let postgres = Postgres::over_tcp(Some(&ServerCertificate { certificate, key }));
    create(&postgres, "tls", &new_campaign());
    let access = |host: &str, roots: Option<Vec<u8>>| {
        let address = postgres.tcp_address(host, "tls").parse().expect("a good address");
        Access { address, password: None, roots, certificate: None }
    };
    let mut trusted = settings(&postgres.tcp_address("db.example", "tls"));
    trusted.access = access("db.example", Some(ours.read("ca.pem")));
    let member = Member::with(trusted);
    assert_eq!(member.taken(1, [1; 32]), Ok(1));
    let tls = "SELECT DISTINCT s.version FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
               WHERE a.application_name = 'pktxpmgr tls'";
    assert_eq!(postgres.sql(tls), "TLSv1.3");
    member.client.leave();
    for (access, why) in [
        (access("other.example", Some(ours.read("ca.pem"))), "other.example"),
        (access("db.example", Some(others.read("ca.pem"))), "UnknownIssuer"),
        (access("db.example", None), "a file of roots is needed"),
        (access("db.example", Some(b"no PEM".to_vec())), "a file of roots is needed"),
    ] {
        let error = refused(access);
        assert!(matches!(&error, DatabaseError::Trust(told) if told.contains(why)), "{error}");
    }
}

#[test]
#[ignore = "needs postgresql, openssl"]
fn a_database_on_the_network_without_tls_is_not_spoken_to() {
    let ours = Authority::new("clear");
    let postgres = Postgres::over_tcp(None);
    create(&postgres, "clear", &new_campaign());
    let address = postgres.tcp_address("db.example", "clear").parse().expect("a good address");
    let roots = Some(ours.read("ca.pem"));
    let error = refused(Access { address, password: None, roots, certificate: None });
    assert!(
        matches!(&error, DatabaseError::Trust(told) if told.contains("does not support TLS")),
        "{error}"
    );
}

#[test]
#[ignore = "needs postgresql, openssl"]
fn a_password_or_a_certificate_tells_who_asks() {
    let ours = Authority::new("users");
    let (certificate, key) = ours.certify("db.example");
    let mut postgres = Postgres::over_tcp(Some(&ServerCertificate { certificate, key }));
    create(&postgres, "users", &new_campaign());
    postgres.sql(
        "CREATE USER by_password PASSWORD 'right' IN ROLE pktlab_manager; \
         CREATE USER by_certificate IN ROLE pktlab_manager",
    );
    postgres.kill();
    postgres.demand(
        "local all all trust\n\
         hostssl all by_password 127.0.0.1/32 scram-sha-256\n\
         hostssl all by_certificate 127.0.0.1/32 cert\n",
        &ours.read("ca.pem"),
    );
    postgres.start();
    let access = |user: &str| {
        let address =
            postgres.tcp_address("db.example", "users").replace("postgres@", &format!("{user}@"));
        let roots = Some(ours.read("ca.pem"));
        Access {
            address: address.parse().expect("a good address"),
            password: None,
            roots,
            certificate: None,
        }
    };
    let with_password = |password: &str| {
        let password = Some(password.as_bytes().to_vec().into());
        Access { password, ..access("by_password") }
    };
    let with_certificate = |name: &str| {
        let (chain, key) = ours.certify(name);
        let certificate = Some(ClientCertificate { chain, key: key.into() });
        Access { certificate, ..access("by_certificate") }
    };
    for access in [with_password("right"), with_certificate("by_certificate")] {
        let mut settings = settings(&access.address.to_string());
        settings.access = access;
        Member::with(settings).client.leave();
    }
    for access in [with_password("wrong"), with_certificate("somebody"), access("by_certificate")] {
        let error = refused(access);
        assert!(matches!(&error, DatabaseError::Refused(_)), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
}
