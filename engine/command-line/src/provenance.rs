//! From what a program was built, and what the kernel says of the machine it runs on: beside results both are told.
//!
//! Not here: what is told beside them.

use std::fs;

/// The commit that this was built from; none where the sources were in no repository.
pub const COMMIT: Option<&str> = option_env!("SOURCE_COMMIT");

/// A value below `/proc/sys`, such as `kernel/hostname`; `None` where it cannot be read.
#[must_use]
pub fn kernel_value(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_its_release_without_an_end_of_line_and_nothing_of_what_it_does_not_know() {
        let release = kernel_value("kernel/osrelease").unwrap();
        assert!(release.contains('.') && !release.contains(char::is_whitespace), "{release:?}");
        assert_eq!(kernel_value("kernel/no-such-value"), None);
    }
}
