//! "Did you mean …": the known field that an unknown one was probably meant to be.

use super::schema::Schema;

/// The longest name that is compared; longer ones are no typos.
const NAME_BYTES: usize = 64;

/// A field close to the last part of `path`: a sibling that is spelt almost the same, as its name, else the only
/// field of that very name elsewhere in the schema, as its path.
pub(super) fn for_unknown(path: &str, root: &Schema) -> Option<String> {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    if name.len() > NAME_BYTES {
        return None;
    }
    let siblings = steps(parent).try_fold(root, |schema, step| match step {
        Step::Field(field) => schema.field(field),
        Step::Item => schema.items.as_deref(),
    });
    let close = siblings.and_then(|schema| nearest(name, schema.properties.keys()));
    close.map(ToOwned::to_owned).or_else(|| {
        let mut found = Vec::new();
        elsewhere(root, name, &mut String::new(), &mut found);
        match found.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }
    })
}

/// The candidate nearest to `name`, if it is near enough for a typo.
pub(super) fn nearest<'c>(
    name: &str,
    candidates: impl Iterator<Item = &'c String>,
) -> Option<&'c str> {
    let lower = name.to_lowercase();
    let allowed = if name.chars().count() < 4 { 1 } else { 2 };
    candidates
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.as_str())
}

enum Step<'p> {
    Field(&'p str),
    Item,
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split('.').filter(|part| !part.is_empty()).flat_map(|part| {
        let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
        let items = indexes.split('[').filter(|index| !index.is_empty()).map(|_| Step::Item);
        std::iter::once(Step::Field(name)).chain(items)
    })
}

fn elsewhere(schema: &Schema, name: &str, path: &mut String, found: &mut Vec<String>) {
    for (field, schema) in &schema.properties {
        // Status is the program's to write, metadata the server's.
        if path.is_empty() && field != "spec" {
            continue;
        }
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(field);
        if field == name {
            found.push(path.clone());
        }
        elsewhere(schema, name, path, found);
        path.truncate(length);
    }
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut last_a = None;
    for (row, a) in a.chars().enumerate() {
        let mut now = vec![row + 1];
        let mut last_b = None;
        for (column, b) in b.iter().copied().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, column) + usize::from(a != b))
                .min(at(&last, column + 1) + 1)
                .min(at(&now, column) + 1);
            if let Some(two_back) = column.checked_sub(1)
                && last_a == Some(b)
                && last_b == Some(a)
            {
                best = best.min(at(&before, two_back) + 1);
            }
            now.push(best);
            last_b = Some(b);
        }
        last_a = Some(a);
        before = std::mem::replace(&mut last, now);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_counted() {
        for (a, b, edits) in [
            ("suspnd", "suspend", 1),
            ("scheduel", "schedule", 1),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
        let names = ["suspend".to_owned(), "schedule".to_owned()];
        assert_eq!(nearest("Suspend", names.iter()), Some("suspend"));
        assert_eq!(nearest("oneTime", names.iter()), None);
    }
}
