//! Which of a run's experiments, and a value for each of them.

use std::ops::Index;

/// Which of the experiments of a [`Config`](super::Config); to be had from a [`PerExperiment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExperimentId(usize);

/// A value for each experiment of a [`Config`](super::Config), in their order.
#[derive(Debug, Clone)]
pub struct PerExperiment<T>(Vec<T>);

impl<T> PerExperiment<T> {
    /// The first experiment whose value `is_it`.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<ExperimentId> {
        self.0.iter().position(is_it).map(ExperimentId)
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> FromIterator<T> for PerExperiment<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> Index<ExperimentId> for PerExperiment<T> {
    type Output = T;

    fn index(&self, ExperimentId(position): ExperimentId) -> &T {
        &self.0[position]
    }
}
