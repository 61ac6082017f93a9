//! How fast the host's time stamp counter runs.

use std::thread::sleep;
use std::time::Duration;

/// How long it is watched. The clock is read to some ten nanoseconds, so the result is good to a
/// few parts in a million, which NTP in a guest could correct and nobody notices without.
const WATCH: Duration = Duration::from_millis(10);

/// The counter's frequency in kHz; `None` if the processor has none that runs evenly.
#[cfg(target_arch = "x86_64")]
pub fn frequency_khz() -> Option<u64> {
    let (start_ticks, start) = sample();
    sleep(WATCH);
    let (end_ticks, end) = sample();
    let nanoseconds = u64::try_from(end.checked_sub(start)?.as_nanos()).ok()?;
    let ticks = end_ticks.checked_sub(start_ticks)?;
    u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(nanoseconds)).ok()
}

/// The counter's value and the time of the same moment: of several tries the quickest, as the
/// process may be interrupted between the two.
#[cfg(target_arch = "x86_64")]
fn sample() -> (u64, Duration) {
    use std::arch::x86_64::_rdtsc;

    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    };
    let mut best: Option<(u64, u64, Duration)> = None;
    for _ in 0..16 {
        // SAFETY: every x86-64 processor has the instruction, and Linux doesn't forbid it.
        let before = unsafe { _rdtsc() };
        let time = now();
        // SAFETY: as above.
        let after = unsafe { _rdtsc() };
        let took = after.wrapping_sub(before);
        if best.is_none_or(|(least, ..)| took < least) {
            best = Some((took, before.wrapping_add(took / 2), time));
        }
    }
    best.map_or((0, Duration::ZERO), |(_, ticks, time)| (ticks, time))
}

/// The counter's frequency in kHz; `None` because this processor has no such counter.
#[cfg(not(target_arch = "x86_64"))]
pub fn frequency_khz() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (first, second) = (frequency_khz().unwrap(), frequency_khz().unwrap());
        assert!(first > 100_000, "{first} kHz");
        assert!(first.abs_diff(second) < first / 1000, "{first} kHz, then {second} kHz");
    }
}
