//! How many connections one key may have that is known and may not enter now, a login user's or a
//! terminal's: each is told why and lives on for a while (DESIGN.md section 6), and proving a key takes it off the budget of those that
//! have not. Touches nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tidegate_policy::model::KeyBlob;

use crate::lock::lock;

/// A person who tries again at another terminal has them; the next is told why and closed at once.
pub const MOST: u32 = 4;

/// The barred connections of one replica, by their keys.
#[derive(Clone, Debug, Default)]
pub struct Barred(Arc<Mutex<HashMap<KeyBlob, u32>>>);

/// One of them; given back when dropped.
#[derive(Debug)]
pub struct Place {
    barred: Barred,
    key: KeyBlob,
}

impl Barred {
    /// A place for one more connection of `key`; `None`: it has [`MOST`].
    pub fn enter(&self, key: &KeyBlob) -> Option<Place> {
        let mut table = lock(&self.0);
        let count = table.get(key).copied().unwrap_or(0);
        if count >= MOST {
            return None;
        }
        table.insert(key.clone(), count.saturating_add(1));
        Some(Place { barred: self.clone(), key: key.clone() })
    }

    /// Connections that have a place.
    pub fn len(&self) -> usize {
        let table = lock(&self.0);
        table.values().map(|count| usize::try_from(*count).unwrap_or(usize::MAX)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.barred.0);
        if let Some(count) = table.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_a_key_and_nothing_is_kept_of_those_that_went() {
        let barred = Barred::default();
        let (one, other) = (KeyBlob::new(b"one".to_vec()), KeyBlob::new(b"other".to_vec()));
        let mut places: Vec<_> = (0..MOST).map(|_| barred.enter(&one).unwrap()).collect();
        assert!(barred.enter(&one).is_none());
        let place = barred.enter(&other).unwrap();
        places.pop();
        places.push(barred.enter(&one).unwrap());
        drop((places, place));
        assert!(barred.is_empty() && lock(&barred.0).is_empty());
    }
}
