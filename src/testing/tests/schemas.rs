//! That values generated from derived schemas are values of the type.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, strategy::ValueTree as _};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};

use crate::testing::{generate::runner, schema::values};

/// How many of 200 generated values are values of the type.
fn fitting<T: JsonSchema + DeserializeOwned>() -> usize {
    let strategy = values(&schemars::schema_for!(T).to_value());
    let mut runner = runner(3, 1);
    let mut next = || strategy.new_tree(&mut runner).unwrap().current();
    (0..200).filter(|_| serde_json::from_value::<T>(next()).is_ok()).count()
}

#[allow(dead_code, reason = "only read from JSON")]
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    id: uuid::Text,
    lines: Vec<Line>,
    notes: BTreeMap<String, Option<f64>>,
    tags: BTreeSet<Tag>,
    pair: (u8, i16),
    payment: Payment,
    parent: Option<Box<Order>>,
    flag: bool,
    nothing: (),
}

/// `uuid::Uuid` derives no schema without a feature of schemars.
mod uuid {
    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    #[derive(serde::Deserialize)]
    #[allow(dead_code, reason = "only read from JSON")]
    pub(super) struct Text(::uuid::Uuid);

    impl JsonSchema for Text {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Text".into()
        }
        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": "string", "format": "uuid" })
        }
    }
}

#[allow(dead_code, reason = "only read from JSON")]
#[derive(Deserialize, JsonSchema)]
struct Line {
    #[schemars(range(min = 1, max = 3))]
    count: u64,
    #[schemars(regex(pattern = "^[A-Z]{3}-[0-9]{2}$"))]
    sku: String,
    #[serde(flatten)]
    price: Price,
}

#[allow(dead_code, reason = "only read from JSON")]
#[derive(Deserialize, JsonSchema)]
struct Price {
    cents: i32,
}

#[derive(Deserialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Gift,
    Urgent,
}

#[allow(dead_code, reason = "only read from JSON")]
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
enum Payment {
    Card { number: String },
    Invoice { days: u8 },
    Cash,
}

#[allow(dead_code, reason = "only read from JSON")]
#[derive(Deserialize, JsonSchema)]
enum Shape {
    Unit,
    Point(i8),
    Pair(u16, u32),
    Box { width: f32 },
}

#[test]
fn values_of_derived_schemas_are_values_of_the_type() {
    assert_eq!(fitting::<Order>(), 200);
    assert_eq!(fitting::<Shape>(), 200);
    assert_eq!(fitting::<Vec<Option<u64>>>(), 200);
    assert_eq!(fitting::<Payment>(), 200);
}

#[test]
fn a_pattern_is_matched_and_bounds_are_kept() {
    let strategy = values(&schemars::schema_for!(Line).to_value());
    let mut runner = runner(3, 1);
    for _ in 0..100 {
        let value = strategy.new_tree(&mut runner).unwrap().current();
        assert!((1..=3).contains(&value["count"].as_u64().unwrap()), "{value}");
        let sku = value["sku"].as_str().unwrap();
        assert!(sku.len() == 6 && sku.as_bytes()[3] == b'-', "{value}");
    }
}
