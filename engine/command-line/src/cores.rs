//! `--cores`: which CPUs are used, as typed and as chosen.
//!
//! Not here: which ones this process may use.

use std::fmt;

use nix::sched::CpuSet;

/// `--cores` as typed: `3` is a count, anything with a comma or a dash is a list of CPU numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cores {
    /// This many of the CPUs we may run on, lowest numbers first.
    Count(usize),
    /// Exactly these, in the order given, without duplicates.
    List(Vec<usize>),
}

impl Cores {
    /// Reads `N`, or a list such as `0,2-3` (`2-2` is CPU 2 alone).
    ///
    /// # Errors
    /// Anything else, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains([',', '-']) {
            return match text.parse() {
                Ok(0) | Err(_) => {
                    Err(format!("'{text}' is neither a count such as 3 nor a list such as 0,2-3"))
                }
                Ok(count) => Ok(Self::Count(count)),
            };
        }
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
                return Err(format!("'{part}' is no CPU number or range such as 2-3"));
            };
            // Checked before the range is walked: a range as typed may be absurdly long.
            if first > last || last >= CpuSet::count() {
                return Err(format!("'{part}' is no range of CPUs below {}", CpuSet::count()));
            }
            cpus.extend((first..=last).filter(|cpu| !cpus.contains(cpu)).collect::<Vec<_>>());
        }
        Ok(Self::List(cpus))
    }

    /// The CPUs to use among those `allowed` (ascending); all of them if nothing was typed.
    ///
    /// # Errors
    /// Some of them are not allowed.
    pub fn choose(wanted: Option<&Self>, allowed: &[usize]) -> Result<Vec<usize>, CoresError> {
        match wanted {
            None => Ok(allowed.to_vec()),
            Some(Self::Count(count)) => match allowed.get(..*count) {
                Some(cpus) => Ok(cpus.to_vec()),
                None => Err(CoresError::TooMany { wanted: *count, allowed: allowed.to_vec() }),
            },
            Some(Self::List(cpus)) => match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
                None => Ok(cpus.clone()),
                Some(cpu) => Err(CoresError::NotAllowed { cpu: *cpu, allowed: allowed.to_vec() }),
            },
        }
    }
}

/// `--cores` asks for what this process may not have.
#[derive(Debug, PartialEq, Eq)]
pub enum CoresError {
    /// More CPUs than there are.
    TooMany {
        /// As typed.
        wanted: usize,
        /// What there is.
        allowed: Vec<usize>,
    },
    /// One CPU of the list.
    NotAllowed {
        /// Its number.
        cpu: usize,
        /// What there is.
        allowed: Vec<usize>,
    },
}

impl fmt::Display for CoresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = match self {
            Self::TooMany { wanted, allowed } => {
                write!(f, "--cores {wanted}: this process may run on {} CPUs only", allowed.len())?;
                allowed
            }
            Self::NotAllowed { cpu, allowed } => {
                write!(f, "--cores: this process may not run on CPU {cpu}")?;
                allowed
            }
        };
        let list: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        write!(f, "; choose among {}", list.join(","))
    }
}

impl std::error::Error for CoresError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_counts_and_anything_else_lists() {
        assert_eq!(Cores::parse("3"), Ok(Cores::Count(3)));
        assert_eq!(Cores::parse("0,2-3"), Ok(Cores::List(vec![0, 2, 3])));
        assert_eq!(Cores::parse("2-2"), Ok(Cores::List(vec![2])));
        assert_eq!(Cores::parse("3,1-3"), Ok(Cores::List(vec![3, 1, 2])));
        for bad in ["", "0", "x", "-1", "1,", ",", "3-1", "1-2-3", "0-18446744073709551615", "1,x"]
        {
            assert!(Cores::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_allowed_cpus_are_chosen() {
        let allowed = [1, 2, 5];
        assert_eq!(Cores::choose(None, &allowed), Ok(vec![1, 2, 5]));
        assert_eq!(Cores::choose(Some(&Cores::Count(2)), &allowed), Ok(vec![1, 2]));
        assert_eq!(Cores::choose(Some(&Cores::List(vec![5, 1])), &allowed), Ok(vec![5, 1]));
        let too_many = Cores::choose(Some(&Cores::Count(4)), &allowed).unwrap_err();
        assert_eq!(
            too_many.to_string(),
            "--cores 4: this process may run on 3 CPUs only; choose among 1,2,5"
        );
        let barred = Cores::choose(Some(&Cores::List(vec![1, 3])), &allowed).unwrap_err();
        assert_eq!(
            barred.to_string(),
            "--cores: this process may not run on CPU 3; choose among 1,2,5"
        );
    }
}
