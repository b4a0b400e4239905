//! The two directions of a relay, and something for each.
//!
//! Not here: what that is.

use std::ops::{Index, IndexMut};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the mlet to the endpoint.
    ToEndpoint,
    /// From the endpoint to the mlet.
    FromEndpoint,
}

/// One for each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BothWays<T> {
    /// Of what goes from the mlet to the endpoint.
    pub to_endpoint: T,
    /// Of what goes from the endpoint to the mlet.
    pub from_endpoint: T,
}

impl<T> BothWays<T> {
    /// What `make` makes of each.
    pub(crate) fn map<U>(&self, make: impl Fn(&T) -> U) -> BothWays<U> {
        let (to_endpoint, from_endpoint) = (make(&self.to_endpoint), make(&self.from_endpoint));
        BothWays { to_endpoint, from_endpoint }
    }
}

impl<T> Index<Direction> for BothWays<T> {
    type Output = T;

    fn index(&self, direction: Direction) -> &T {
        match direction {
            Direction::ToEndpoint => &self.to_endpoint,
            Direction::FromEndpoint => &self.from_endpoint,
        }
    }
}

impl<T> IndexMut<Direction> for BothWays<T> {
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::ToEndpoint => &mut self.to_endpoint,
            Direction::FromEndpoint => &mut self.from_endpoint,
        }
    }
}
