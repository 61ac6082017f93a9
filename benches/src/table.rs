//! What was measured, as a table with ratios.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::measure::Sample;

/// Samples of several candidates, taken in turns.
#[derive(Debug, Default)]
pub struct Table {
    candidates: BTreeMap<usize, (String, Vec<Sample>)>,
}

/// A candidate's name and what takes one sample of it.
pub type Candidate<'a> = (String, Box<dyn FnMut() -> Result<Sample> + 'a>);

impl Table {
    /// Takes `rounds` samples of each candidate. They take turns, so that what disturbs one
    /// disturbs all; the first round is not counted.
    pub fn measure(rounds: usize, candidates: &mut [Candidate<'_>]) -> Result<Self> {
        let mut table = Self::default();
        for round in 0..=rounds {
            for (place, (name, sample)) in candidates.iter_mut().enumerate() {
                let sample = sample()?;
                if round > 0 {
                    table.add(place, name, sample);
                }
            }
        }
        Ok(table)
    }

    /// Adds one sample of the candidate at `place`.
    pub fn add(&mut self, place: usize, name: &str, sample: Sample) {
        let entry = self.candidates.entry(place);
        entry.or_insert_with(|| (name.to_owned(), Vec::new())).1.push(sample);
    }

    /// Prints the medians, and their ratios to the first candidate's.
    pub fn print(&self, title: &str) {
        println!("\n{title}");
        println!("{:<24} {:>10} {:>10} {:>8} {:>10}", "", "median", "least", "ratio", "peak");
        let mut first = None;
        for (name, samples) in self.candidates.values() {
            let times = sorted(samples.iter().map(|sample| sample.time.as_secs_f64() * 1e3));
            let (least, median) = (times[0], times[times.len() / 2]);
            let peak = samples.iter().map(|sample| sample.peak_kib).max().unwrap_or(0);
            let ratio = median / *first.get_or_insert(median);
            // A guest's memory isn't measured with its work.
            let peak = if peak == 0 { String::new() } else { format!(" {peak:>6} KiB") };
            println!("{name:<24} {median:>7.2} ms {least:>7.2} ms {ratio:>7.2}x{peak}");
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
