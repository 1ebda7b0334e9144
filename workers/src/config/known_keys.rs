//! Which keys exist: those of the default file. A key that does not exist is told with the nearest
//! one that does, instead of being ignored.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};

/// The full names (`server.listen`) of all values in a tree. Lists are values.
pub(super) fn names(tree: &Dict) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect("", tree, &mut found);
    found
}

fn collect(prefix: &str, tree: &Dict, found: &mut BTreeSet<String>) {
    for (key, value) in tree {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => collect(&name, inner, found),
            _ => {
                found.insert(name);
            }
        }
    }
}

/// The known name that is most like an unknown one, if any is.
pub(super) fn nearest<'a>(unknown: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let distance = |name: &&str| edit_distance(unknown, name);
    let nearest = known.iter().map(String::as_str).min_by_key(distance)?;
    (edit_distance(unknown, nearest) <= 1 + unknown.len() / 4).then_some(nearest)
}

/// How many letters must change (Levenshtein 1966).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        let known = ["server.listen", "admin.listen", "log.level"].map(str::to_owned).into();
        assert_eq!(nearest("server.lissen", &known), Some("server.listen"));
        assert_eq!(nearest("log.levels", &known), Some("log.level"));
        assert_eq!(nearest("database.colour", &known), None);
    }
}
