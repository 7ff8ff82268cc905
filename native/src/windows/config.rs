//! What a store is made with.

use super::message::LAST_MS;

/// Slices that a ring may hold; it has a place for each, also for those without posts.
const MAX_SLICES: i64 = 100_000;

/// Spans in milliseconds and limits; see `WindowStore` in `sentimesh/_native.pyi`.
#[derive(Clone, Debug)]
pub struct Config {
    pub window_ms: i64,
    pub slice_ms: i64,
    pub span_ms: i64,
    pub allowed_lateness_ms: i64,
    pub slide_ms: i64,
    pub spike_window_ms: i64,
    pub baseline_ms: i64,
    pub spike_min_mentions: i64,
    pub min_credibility: f64,
    pub start_ms: Option<i64>,
    pub history_start_ms: Option<i64>,
}

impl Config {
    /// What is wrong with the configuration, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.slice_ms < 1 {
            return Err(format!("slice_ms is {}, not at least 1", self.slice_ms));
        }
        for (name, value) in [
            ("window_ms", self.window_ms),
            ("span_ms", self.span_ms),
            ("slide_ms", self.slide_ms),
            ("spike_window_ms", self.spike_window_ms),
            ("baseline_ms", self.baseline_ms),
        ] {
            if !(1..=LAST_MS).contains(&value) || value % self.slice_ms != 0 {
                return Err(format!(
                    "{name} is {value}, not a multiple of slice_ms ({})",
                    self.slice_ms
                ));
            }
        }
        if self.allowed_lateness_ms < 0 {
            return Err(format!(
                "allowed_lateness_ms is {}, which is negative",
                self.allowed_lateness_ms
            ));
        }
        let needed =
            (self.window_ms.saturating_add(self.allowed_lateness_ms)).max(self.baseline_ms + self.spike_window_ms);
        if self.span_ms < needed {
            return Err(format!(
                "span_ms is {}, under the {needed} that window_ms + allowed_lateness_ms and baseline_ms + \
                 spike_window_ms need",
                self.span_ms
            ));
        }
        if self.span_ms / self.slice_ms > MAX_SLICES {
            return Err(format!(
                "span_ms is {}, more than {MAX_SLICES} slices of slice_ms ({})",
                self.span_ms, self.slice_ms
            ));
        }
        if self.spike_min_mentions < 1 {
            return Err(format!(
                "spike_min_mentions is {}, not at least 1",
                self.spike_min_mentions
            ));
        }
        if !(0.0..=1.0).contains(&self.min_credibility) {
            return Err(format!("min_credibility is {}, not from 0 to 1", self.min_credibility));
        }
        for (name, time_ms) in [("start_ms", self.start_ms), ("history_start_ms", self.history_start_ms)] {
            time_ms.map_or(Ok(()), |time_ms| check_time(name, time_ms))?;
        }
        Ok(())
    }
}

/// Refuses a time from which arithmetic could overflow.
pub fn check_time(name: &str, time_ms: i64) -> Result<(), String> {
    if (0..=LAST_MS).contains(&time_ms) {
        Ok(())
    } else {
        Err(format!("{name} is {time_ms}, not from 0 to {LAST_MS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let good = Config {
            window_ms: 300_000,
            slice_ms: 10_000,
            span_ms: 7_200_000,
            allowed_lateness_ms: 0,
            slide_ms: 10_000,
            spike_window_ms: 60_000,
            baseline_ms: 3_600_000,
            spike_min_mentions: 10,
            min_credibility: 0.0,
            start_ms: None,
            history_start_ms: None,
        };
        assert_eq!(good.check(), Ok(()));
        let refused = |name: &str, change: &dyn Fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            assert!(config.check().unwrap_err().starts_with(name), "{name}");
        };
        refused("window_ms", &|config| config.window_ms = 1);
        refused("slice_ms", &|config| config.slice_ms = 0);
        refused("span_ms", &|config| config.span_ms = 3_600_000);
        refused("span_ms", &|config| config.slice_ms = 1);
        refused("allowed_lateness_ms", &|config| config.allowed_lateness_ms = -1);
        refused("spike_min_mentions", &|config| config.spike_min_mentions = 0);
        refused("min_credibility", &|config| config.min_credibility = f64::NAN);
        refused("start_ms", &|config| config.start_ms = Some(-1));
        refused("history_start_ms", &|config| config.history_start_ms = Some(-1));
    }
}
