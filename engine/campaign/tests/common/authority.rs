//! An authority of a test's own, which certifies databases and their users with openssl. Not PacketLab's certificates.

#![allow(dead_code, reason = "each suite that includes this file needs a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Certificates of a test, made by openssl in a folder that goes with the value.
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
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

    pub(crate) fn openssl(&self, arguments: &[&str]) {
        let ended = Command::new("openssl").args(arguments).current_dir(&self.folder).output();
        let ended = ended.expect("openssl runs");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(file)).expect("a file of openssl")
    }

    /// A certificate of a host of this name, and its key.
    pub(crate) fn certify(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let names = format!("subjectAltName=DNS:{name}");
        self.issue(name, &["-addext", &names])
    }

    /// A certificate of a user of this name, of version 1 where openssl makes such, and its key.
    pub(crate) fn certify_user(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        self.issue(name, &[])
    }

    fn issue(&self, name: &str, extensions: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let [key, request, leaf] = ["key", "csr", "pem"].map(|kind| format!("{name}.{kind}"));
        let subject = format!("/CN={name}");
        let words = ["req", "-new", "-newkey", "ed25519", "-nodes", "-subj", &subject];
        let files = ["-keyout", &key, "-out", &request];
        self.openssl(&[&words[..], &files, extensions].concat());
        let words = ["x509", "-req", "-days", "2", "-copy_extensions", "copy"];
        let files = ["-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-out", &leaf];
        self.openssl(&[&words[..], &files].concat());
        (self.read(&leaf), self.read(&key))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.folder));
    }
}
