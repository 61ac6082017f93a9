//! What was measured, as a table with ratios.

use std::fmt;

use anyhow::Result;

use crate::measure::Sample;

/// Who takes part in a comparison.
pub struct Candidate<'a> {
    name: String,
    sample: Box<dyn FnMut() -> Result<Sample> + 'a>,
    /// Of a peer: clears up when it has failed.
    clear: Option<Box<dyn Fn() + 'a>>,
}

impl<'a> Candidate<'a> {
    /// One of ours, without which nothing is compared. `sample` takes one sample.
    pub fn new(name: &str, sample: impl FnMut() -> Result<Sample> + 'a) -> Self {
        Self { name: name.to_owned(), sample: Box::new(sample), clear: None }
    }

    /// One that loses its row when it fails. `clear` takes away what it has left then.
    pub fn peer(
        name: &str,
        sample: impl FnMut() -> Result<Sample> + 'a,
        clear: impl Fn() + 'a,
    ) -> Self {
        Self { clear: Some(Box::new(clear)), ..Self::new(name, sample) }
    }
}

/// Samples of several candidates, taken in turns.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    /// Its samples, or why there are none.
    outcome: Result<Vec<Sample>, String>,
}

impl Table {
    /// Takes `rounds` samples of each candidate. They take turns, so that what disturbs one
    /// disturbs all; the first round is not counted.
    ///
    /// # Errors
    /// A candidate that is no peer fails.
    pub fn measure(rounds: usize, candidates: &mut [Candidate<'_>]) -> Result<Self> {
        let mut table = Self::default();
        for round in 0..=rounds {
            for (place, Candidate { name, sample, clear }) in candidates.iter_mut().enumerate() {
                let row = table.row(place, name);
                let Ok(samples) = &mut row.outcome else { continue };
                match (sample(), clear) {
                    (Ok(sample), _) if round > 0 => samples.push(sample),
                    (Ok(_), _) => {}
                    (Err(error), Some(clear)) => {
                        clear();
                        row.outcome = Err(first_line(&error));
                    }
                    (Err(error), None) => return Err(error),
                }
            }
        }
        Ok(table)
    }

    /// Adds one sample of the candidate at `place`, the next one if it has none so far.
    pub fn add(&mut self, place: usize, name: &str, sample: Sample) {
        if let Ok(samples) = &mut self.row(place, name).outcome {
            samples.push(sample);
        }
    }

    fn row(&mut self, place: usize, name: &str) -> &mut Row {
        if place == self.rows.len() {
            self.rows.push(Row { name: name.to_owned(), outcome: Ok(Vec::new()) });
        }
        &mut self.rows[place]
    }

    /// Prints the medians, and their ratios to the first candidate's.
    pub fn print(&self, title: &str) {
        print!("\n{title}\n{self}");
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<24} {:>10} {:>10} {:>8} {:>10}", "", "median", "least", "ratio", "peak")?;
        let mut first = None;
        for Row { name, outcome } in &self.rows {
            let Ok(samples) = outcome else {
                writeln!(f, "{name:<24} {:>10}", "failed")?;
                continue;
            };
            let times = sorted(samples.iter().map(|sample| sample.time.as_secs_f64() * 1e3));
            let (least, median) = (times[0], times[times.len() / 2]);
            let peak = samples.iter().map(|sample| sample.peak_kib).max().unwrap_or(0);
            let ratio = median / *first.get_or_insert(median);
            // A guest's memory isn't measured with its work.
            let peak = if peak == 0 { String::new() } else { format!(" {peak:>6} KiB") };
            writeln!(f, "{name:<24} {median:>7.2} ms {least:>7.2} ms {ratio:>7.2}x{peak}")?;
        }
        for Row { name, outcome } in &self.rows {
            if let Err(why) = outcome {
                writeln!(f, "{name} failed: {why}")?;
            }
        }
        Ok(())
    }
}

/// What a program that failed said first.
fn first_line(error: &anyhow::Error) -> String {
    let cause = error.root_cause().to_string();
    cause.lines().next().unwrap_or_default().to_owned()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use anyhow::{Context, bail};

    use super::*;

    fn sample(milliseconds: u64) -> Result<Sample> {
        Ok(Sample { time: Duration::from_millis(milliseconds), peak_kib: 7 })
    }

    #[test]
    fn a_peer_that_fails_loses_its_row() {
        let (turns, cleared) = (Cell::new(0), Cell::new(0));
        let mut failing = || {
            turns.set(turns.get() + 1);
            if turns.get() < 3 {
                return sample(1);
            }
            Err(anyhow::anyhow!("no room\nor so")).context("run the peer")
        };
        let table = Table::measure(
            4,
            &mut [
                Candidate::new("ours", || sample(2)),
                Candidate::peer("broken", &mut failing, || cleared.set(cleared.get() + 1)),
                Candidate::peer("sound", || sample(3), || panic!("it is sound")),
            ],
        );
        let text = table.unwrap().to_string();
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected: [&[&str]; 5] = [
            &["median", "least", "ratio", "peak"],
            &["ours", "2.00", "ms", "2.00", "ms", "1.00x", "7", "KiB"],
            &["broken", "failed"],
            &["sound", "3.00", "ms", "3.00", "ms", "1.50x", "7", "KiB"],
            &["broken", "failed:", "no", "room"],
        ];
        assert_eq!(lines as Vec<Vec<&str>>, expected);
        // It isn't tried again.
        assert_eq!((turns.get(), cleared.get()), (3, 1));
    }

    #[test]
    fn one_of_ours_that_fails_ends_the_comparison() {
        let ours = Candidate::new("ours", || bail!("no room"));
        assert_eq!(Table::measure(1, &mut [ours]).unwrap_err().to_string(), "no room");
    }
}
