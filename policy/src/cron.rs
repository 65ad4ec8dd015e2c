//! Cron: exactly the five fields of crontab(5), as five bit sets matched on civil time.
//!
//! Pure: text in, sets out. Gaps and folds are `schedule`'s business.

/// A parsed cron expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cron {
    _private: (),
}

/// Why a text is not a cron expression: one clear sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCron(pub String);

impl Cron {
    /// Takes the five fields; anything outside crontab(5) is refused by name.
    pub fn parse(_text: &str) -> Result<Self, BadCron> {
        unimplemented!()
    }

    /// Whether any date in the 400-year cycle matches: `0 0 30 2 *` never does.
    pub fn can_fire(&self) -> bool {
        unimplemented!()
    }
}
