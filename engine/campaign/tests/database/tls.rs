//! Who is trusted over the network: a database that proves its name, and whoever has a password or a certificate.

use campaign::administration::{Administration, AdministrationError};
use campaign::{
    Access, ClientCertificate, ClientCertificateError, DatabaseError, JoinError, Roots, join,
};

use crate::authority::Authority;
use crate::postgres::{Postgres, ServerCertificate};
use crate::support::{Member, create, new_campaign, settings};

fn roots_of(authority: &Authority) -> Option<Roots> {
    Some(Roots::from_pem(&authority.read("ca.pem")).expect("a certificate"))
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
    let access = |host: &str, roots: Option<Roots>| {
        let address = postgres.tcp_address(host, "tls").parse().expect("a good address");
        Access { address, password: None, roots, certificate: None }
    };
    let mut trusted = settings(&postgres.tcp_address("db.example", "tls"));
    trusted.access = access("db.example", roots_of(&ours));
    let member = Member::with(trusted);
    assert_eq!(member.taken(1, [1; 32]), Ok(1));
    let tls = "SELECT DISTINCT s.version FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
               WHERE a.application_name = 'pktxpmgr tls'";
    assert_eq!(postgres.sql(tls), "TLSv1.3");
    member.client.leave();
    for (access, why) in [
        (access("other.example", roots_of(&ours)), "other.example"),
        (
            access("db.example", roots_of(&others)),
            "UnknownIssuer; none of the roots that were given",
        ),
        (access("db.example", None), "roots are needed"),
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
    let roots = roots_of(&ours);
    let error = refused(Access { address, password: None, roots, certificate: None });
    assert!(
        matches!(&error, DatabaseError::Trust(told) if told.contains("does not support TLS")),
        "{error}"
    );
}

/// A database that believes each user by what its rule says, and an access to it as this user.
fn who_must_prove(rules: &str, authority: &Authority) -> (Postgres, impl Fn(&str) -> Access) {
    let (certificate, key) = authority.certify("db.example");
    let mut postgres = Postgres::over_tcp(Some(&ServerCertificate { certificate, key }));
    create(&postgres, "users", &new_campaign());
    postgres.sql(
        "CREATE USER by_password PASSWORD 'right' IN ROLE pktlab_manager; \
         CREATE USER by_certificate IN ROLE pktlab_manager, pktlab_reader; \
         CREATE USER by_both PASSWORD 'right' IN ROLE pktlab_manager",
    );
    postgres.kill();
    let roots = authority.read("ca.pem");
    postgres.demand(&format!("local all all trust\n{rules}"), &roots);
    postgres.start();
    let address = postgres.tcp_address("db.example", "users");
    let access = move |user: &str| Access {
        address: address.replace("postgres@", &format!("{user}@")).parse().expect("an address"),
        password: None,
        roots: Some(Roots::from_pem(&roots).expect("roots")),
        certificate: None,
    };
    (postgres, access)
}

fn password(password: &str) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    Some(password.as_bytes().to_vec().into())
}

fn certificate(authority: &Authority, user: &str) -> Option<ClientCertificate> {
    let (chain, key) = authority.certify_user(user);
    Some(ClientCertificate::from_pem(&chain, &key).expect("a certificate"))
}

fn assert_is_let_in(access: Access) {
    let mut settings = settings(&access.address.to_string());
    settings.access = access;
    Member::with(settings).client.leave();
}

/// Whoever is not let in is told why.
fn assert_is_refused(access: Access, why: &str) {
    let error = refused(access);
    assert!(matches!(&error, DatabaseError::Refused(told) if told.contains(why)), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[test]
#[ignore = "needs postgresql, openssl"]
fn a_password_tells_who_asks() {
    let ours = Authority::new("passwords");
    let rules = "hostssl all by_password 127.0.0.1/32 scram-sha-256\n";
    let (_postgres, access) = who_must_prove(rules, &ours);
    assert_is_let_in(Access { password: password("right"), ..access("by_password") });
    let wrong = Access { password: password("wrong"), ..access("by_password") };
    assert_is_refused(wrong, "password authentication failed");
    assert_eq!(refused(access("by_password")), DatabaseError::NoPassword);
}

#[test]
#[ignore = "needs postgresql, openssl"]
fn the_certificate_of_a_user_tells_who_asks_and_no_other_does() {
    let (ours, others) = (Authority::new("users"), Authority::new("other-users"));
    let rules = "hostssl all by_certificate 127.0.0.1/32 cert clientcert=verify-full\n\
                 hostssl all by_both 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n";
    let (_postgres, access) = who_must_prove(rules, &ours);
    let with = |user: &str, certificate| Access { certificate, ..access(user) };
    assert_is_let_in(with("by_certificate", certificate(&ours, "by_certificate")));
    let somebody = with("by_certificate", certificate(&ours, "somebody"));
    assert_is_refused(somebody, "certificate authentication failed");
    let strange = with("by_certificate", certificate(&others, "by_certificate"));
    assert_is_refused(strange, "UnknownCA");
    assert_is_refused(access("by_certificate"), "a valid client certificate");

    let both = with("by_both", certificate(&ours, "by_both"));
    assert_is_let_in(Access { password: password("right"), ..both.clone() });
    assert_is_refused(Access { password: password("wrong"), ..both }, "authentication failed");
    let right = Access { password: password("right"), ..access("by_both") };
    assert_is_refused(right, "a valid client certificate");

    // What an operator asks as well.
    let status = |access: Access| {
        let opened = Administration::open(&access);
        opened.and_then(|mut administration| administration.status()).map(drop)
    };
    assert_eq!(status(with("by_certificate", certificate(&ours, "by_certificate"))), Ok(()));
    let unproved = status(access("by_certificate"));
    let is_refused =
        matches!(unproved, Err(AdministrationError::Database(DatabaseError::Refused(_))));
    assert!(is_refused, "{unproved:?}");
}

#[test]
#[ignore = "needs openssl"]
fn a_certificate_without_its_key_is_not_shown() {
    let ours = Authority::new("keys");
    let ((chain, key), (_, others_key)) = (ours.certify_user("a"), ours.certify("b"));
    let host = ours.certify("c").0;
    let error = |chain: &[u8], key: &[u8]| ClientCertificate::from_pem(chain, key).err();
    assert_eq!(error(&chain, &key), None);
    assert_eq!(error(&host, &others_key), Some(ClientCertificateError::Mismatch));
    for chain in [&b""[..], b"no PEM", &key] {
        let error = error(chain, &key);
        assert!(matches!(error, Some(ClientCertificateError::Certificate(_))), "{error:?}");
    }
    ours.openssl(&["pkey", "-in", "a.key", "-aes256", "-passout", "pass:x", "-out", "locked.key"]);
    for key in [b"no PEM".to_vec(), chain.clone(), ours.read("locked.key")] {
        let error = error(&chain, &key);
        assert!(matches!(error, Some(ClientCertificateError::Key(_))), "{error:?}");
    }
}
