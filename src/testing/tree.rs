//! A snapshot as a tree in which order means nothing that a hash map or hash set would not keep,
//! so that two states can be compared without asking `PartialEq` of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::diff;

/// What MessagePack can hold. Lists and maps are sorted: the state of a hash set has no order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tree {
    Null,
    Bool(bool),
    Integer(i128),
    /// The bits, so that every value equals itself.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

/// Why two snapshots do not hold the same state: a diff. `None` if they do.
pub(super) fn difference(expected: &[u8], actual: &[u8]) -> Option<String> {
    if expected == actual {
        return None;
    }
    let read = |bytes| rmp_serde::from_slice::<Tree>(bytes);
    match (read(expected), read(actual)) {
        (Ok(expected), Ok(actual)) if expected == actual => None,
        (Ok(expected), Ok(actual)) => {
            Some(diff::lines(&diff::pretty(&expected.shown()), &diff::pretty(&actual.shown())))
        }
        (Err(error), _) | (_, Err(error)) => Some(format!("a snapshot is not readable: {error}")),
    }
}

impl Tree {
    fn shown(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Integer(value) => i64::try_from(*value)
                .map(Value::from)
                .or_else(|_| u64::try_from(*value).map(Value::from))
                .unwrap_or_else(|_| value.to_string().into()),
            Self::Float(bits) => f64::from_bits(*bits).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Bytes(bytes) => format!("{bytes:02x?}").into(),
            Self::List(items) => items.iter().map(Self::shown).collect(),
            Self::Map(fields) => {
                fields.iter().map(|(key, value)| (key.as_key(), value.shown())).collect()
            }
        }
    }

    fn as_key(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => other.shown().to_string(),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MessagePack value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value.to_bits()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }
    fn visit_bytes<E>(self, value: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Bytes(value.to_vec()))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Tree, S::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        list.sort_unstable();
        Ok(Tree::List(list))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Tree, M::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        map.sort_unstable();
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::difference;

    fn bytes(value: impl serde::Serialize) -> Vec<u8> {
        rmp_serde::to_vec_named(&value).unwrap()
    }

    #[test]
    fn the_order_of_a_hash_set_makes_no_difference_and_a_value_does() {
        let first: HashSet<u32> = (0..100).collect();
        let second: HashSet<u32> = (0..100).rev().collect();
        assert_eq!(difference(&bytes(&first), &bytes(&second)), None);
        let third: HashSet<u32> = (1..101).collect();
        assert!(difference(&bytes(&first), &bytes(&third)).unwrap().contains("+   100"));
    }

    #[test]
    fn keys_that_json_cannot_write_are_compared_all_the_same() {
        let one = BTreeMap::from([((1, 2), 3.5)]);
        let other = BTreeMap::from([((1, 2), 4.5)]);
        assert_eq!(difference(&bytes(&one), &bytes(&one)), None);
        let found = difference(&bytes(&one), &bytes(&other)).unwrap();
        assert!(found.contains("-   \"[1,2]\": 3.5\n+   \"[1,2]\": 4.5"), "{found}");
    }
}
