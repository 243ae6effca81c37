//! A file's date in the forms that other tools write.

use crate::error::{Error, Result};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// A moment in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Since 1970.
    pub seconds: u64,
    /// Of the second.
    pub micros: u32,
}

impl Moment {
    /// When a file was last written; 1970 of one that says it is older.
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let modified = path.metadata().and_then(|m| m.modified());
        let modified = modified.map_err(|e| Error::io(path, e))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Moment {
            seconds: since.as_secs(),
            micros: since.subsec_micros(),
        })
    }

    /// The next microsecond.
    pub(super) fn next(self) -> Self {
        match self.micros {
            999_999 => Moment {
                seconds: self.seconds + 1,
                micros: 0,
            },
            micros => Moment {
                micros: micros + 1,
                ..self
            },
        }
    }

    /// Seconds since 1970 with their fraction.
    pub(super) fn unix(self) -> f64 {
        self.seconds as f64 + f64::from(self.micros) / 1e6
    }

    /// `2026-11-27`
    pub(super) fn date(self) -> String {
        let (year, month, day) = civil(self.seconds / 86_400);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// `02:31:02`
    fn clock(self) -> String {
        let s = self.seconds % 86_400;
        format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }

    /// ISO 8601 to the second: `2026-11-27T02:31:02+00:00`
    pub(super) fn iso(self) -> String {
        format!("{}T{}+00:00", self.date(), self.clock())
    }

    /// As Python's `datetime.isoformat`, with the microseconds and no zone.
    pub(super) fn iso_micros(self) -> String {
        format!("{}T{}.{:06}", self.date(), self.clock(), self.micros)
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar: whole years off the front, then whole months.
fn civil(days: u64) -> (u64, u64, u64) {
    // Every 400 years have the same number of days.
    const CYCLE: u64 = 146_097;
    let (mut year, mut left) = (1970 + days / CYCLE * 400, days % CYCLE);
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    loop {
        let length = 365 + u64::from(leap(year));
        if left < length {
            break;
        }
        (year, left) = (year + 1, left - length);
    }
    let february = 28 + u64::from(leap(year));
    for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if left < length {
            return (year, month, left + 1);
        }
        left -= length;
    }
    (year, 12, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By GNU date.
    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, iso) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (951_782_399, "2000-02-28T23:59:59+00:00"),
            (951_782_400, "2000-02-29T00:00:00+00:00"),
            (951_868_800, "2000-03-01T00:00:00+00:00"),
            (1_735_689_599, "2024-12-31T23:59:59+00:00"),
            (1_795_746_662, "2026-11-27T02:31:02+00:00"),
            (4_107_542_400, "2100-03-01T00:00:00+00:00"),
            (13_574_563_200, "2400-02-29T00:00:00+00:00"),
        ] {
            assert_eq!(Moment { seconds, micros: 0 }.iso(), iso);
        }
        let last = Moment {
            seconds: 59,
            micros: 999_999,
        };
        assert_eq!(last.iso_micros(), "1970-01-01T00:00:59.999999");
        assert_eq!(last.next().iso_micros(), "1970-01-01T00:01:00.000000");
        assert_eq!(
            Moment {
                seconds: 2,
                micros: 500_000
            }
            .unix(),
            2.5
        );
    }
}
