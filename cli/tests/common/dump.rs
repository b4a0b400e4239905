//! What a mlet found when it was started.

use std::collections::BTreeMap;

use super::endpoint::Dial;

/// What the zoo's `dump` reports: values by name, several of them for some.
pub struct Dump(BTreeMap<String, Vec<String>>);

impl Dump {
    pub fn of(dial: &Dial) -> Self {
        let mut endpoint = dial.session();
        let text = endpoint.text();
        endpoint.close();
        let mut dump = BTreeMap::<String, Vec<String>>::new();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').unwrap();
            dump.entry(name.into()).or_default().push(value.into());
        }
        Self(dump)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], |values| values)
    }

    pub fn one(&self, name: &str) -> &str {
        let [value] = self.all(name) else { panic!("{name}: {:?}", self.all(name)) };
        value
    }

    /// Descriptor numbers, in order.
    pub fn fds(&self) -> Vec<&str> {
        let mut fds: Vec<&str> =
            self.all("fd").iter().map(|fd| fd.split_once(' ').unwrap().0).collect();
        fds.sort_unstable();
        fds
    }
}
