//! JSON values that fit a JSON Schema (2020-12, as schemars derives it), for proptest. What a
//! schema says and this does not know (`multipleOf`, `not` …) is left to the rules, which drop
//! what they refuse.

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
    strategy::Union,
    string::string_regex,
};
use serde_json::{Map, Value, json};

/// How deep a schema that contains itself is followed.
const DEPTH: u32 = 5;

/// Values that fit `schema`.
pub(super) fn values(schema: &Value) -> BoxedStrategy<Value> {
    Schemas { root: schema }.of(schema, DEPTH)
}

struct Schemas<'a> {
    root: &'a Value,
}

impl Schemas<'_> {
    fn of(&self, schema: &Value, depth: u32) -> BoxedStrategy<Value> {
        let Some(fields) = schema.as_object().filter(|fields| !fields.is_empty()) else {
            return anything();
        };
        if let Some(value) = fields.get("const") {
            return Just(value.clone()).boxed();
        }
        if let Some(values) = fields.get("enum").and_then(Value::as_array) {
            return select(values.clone()).boxed();
        }
        if let Some(found) = self.referenced(fields) {
            // Deeper than this, `null` stands in: an alternative that ends takes its place.
            return if depth == 0 { Just(Value::Null).boxed() } else { self.of(found, depth - 1) };
        }
        let mut parts = Vec::new();
        if fields.contains_key("type") || fields.contains_key("properties") {
            parts.push(self.typed(fields, depth));
        }
        for word in ["oneOf", "anyOf"] {
            if let Some(choices) = fields.get(word).and_then(Value::as_array) {
                parts.push(self.one_of(choices, depth));
            }
        }
        let all = fields.get("allOf").and_then(Value::as_array).into_iter().flatten();
        parts.extend(all.map(|part| self.of(part, depth)));
        match parts.len() {
            0 => anything(),
            1 => parts.remove(0),
            _ => parts.prop_map(merged).boxed(),
        }
    }

    fn referenced(&self, fields: &Map<String, Value>) -> Option<&Value> {
        self.root.pointer(fields.get("$ref")?.as_str()?.strip_prefix('#')?)
    }

    fn one_of(&self, choices: &[Value], depth: u32) -> BoxedStrategy<Value> {
        // At the bottom, only what does not go deeper; if all do, they end with `null`.
        let flat: Vec<&Value> =
            choices.iter().filter(|choice| depth > 0 || choice.get("$ref").is_none()).collect();
        let choices: Vec<_> = flat.into_iter().map(|choice| self.of(choice, depth)).collect();
        if choices.is_empty() { Just(Value::Null).boxed() } else { Union::new(choices).boxed() }
    }

    fn typed(&self, fields: &Map<String, Value>, depth: u32) -> BoxedStrategy<Value> {
        let one = |name: &str| match name {
            "null" => Just(Value::Null).boxed(),
            "boolean" => any::<bool>().prop_map(Value::from).boxed(),
            "integer" => integer(fields),
            "number" => number(fields),
            "string" => text(fields),
            "array" => self.array(fields, depth),
            _ => self.object(fields, depth),
        };
        match fields.get("type") {
            Some(Value::String(name)) => one(name),
            Some(Value::Array(names)) if !names.is_empty() => {
                Union::new(names.iter().filter_map(Value::as_str).map(one)).boxed()
            }
            _ => one("object"),
        }
    }

    fn array(&self, fields: &Map<String, Value>, depth: u32) -> BoxedStrategy<Value> {
        if let Some(places) = fields.get("prefixItems").and_then(Value::as_array) {
            let places: Vec<_> = places.iter().map(|place| self.of(place, depth)).collect();
            return places.prop_map(Value::from).boxed();
        }
        let (min, max) = bounds(fields, "minItems", "maxItems", if depth == 0 { 0 } else { 4 });
        let items = fields.get("items").map_or_else(anything, |items| self.of(items, depth));
        let unique = fields.get("uniqueItems") == Some(&Value::Bool(true));
        vec(items, min..=max)
            .prop_map(move |mut items| {
                if unique {
                    let mut seen = std::collections::BTreeSet::new();
                    items.retain(|item| seen.insert(item.to_string()));
                }
                Value::from(items)
            })
            .boxed()
    }

    fn object(&self, fields: &Map<String, Value>, depth: u32) -> BoxedStrategy<Value> {
        let required: Vec<&str> = fields
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut names = Vec::new();
        let mut values: Vec<BoxedStrategy<Option<Value>>> = Vec::new();
        let properties = fields.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            let is_required = required.contains(&name.as_str());
            if depth == 0 && !is_required {
                continue;
            }
            let value = self.of(schema, depth);
            names.push(name.clone());
            values.push(if is_required {
                value.prop_map(Some).boxed()
            } else {
                option::of(value).boxed()
            });
        }
        let more = match fields.get("additionalProperties") {
            Some(schema @ Value::Object(_)) if depth > 0 => {
                btree_map("[a-z]{1,4}", self.of(schema, depth - 1), 0..4).boxed()
            }
            _ => Just(std::collections::BTreeMap::new()).boxed(),
        };
        (values, more)
            .prop_map(move |(values, more)| {
                let declared = names.iter().cloned().zip(values);
                let declared = declared.filter_map(|(name, value)| Some((name, value?)));
                more.into_iter().chain(declared).collect()
            })
            .boxed()
    }
}

/// Parts of one object; of anything else, the first part.
fn merged(parts: Vec<Value>) -> Value {
    let mut parts = parts.into_iter();
    let mut first = parts.next().unwrap_or_default();
    for part in parts {
        if let (Value::Object(fields), Value::Object(more)) = (&mut first, part) {
            fields.extend(more);
        }
    }
    first
}

fn anything() -> BoxedStrategy<Value> {
    select(vec![
        json!(null),
        json!(true),
        json!(7),
        json!("text"),
        json!([1, "a"]),
        json!({"a": 1}),
    ])
    .boxed()
}

fn bounds(fields: &Map<String, Value>, min: &str, max: &str, more: usize) -> (usize, usize) {
    let bound = |name| fields.get(name).and_then(Value::as_u64);
    let min = usize::try_from(bound(min).unwrap_or(0)).unwrap_or(0);
    let most = bound(max).and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
    (min, most.min(min.saturating_add(more)).max(min))
}

/// Small numbers, so that they meet; the ends, where mistakes are; and any.
fn integer(fields: &Map<String, Value>) -> BoxedStrategy<Value> {
    let (least, most) = match fields.get("format").and_then(Value::as_str) {
        Some("int8") => (i8::MIN.into(), i8::MAX.into()),
        Some("int16") => (i16::MIN.into(), i16::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint" | "uint64" | "uint128") => (0, u64::MAX.into()),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    let bound = |name, step: i128| {
        let value = fields.get(name)?;
        let whole = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
        Some(whole.unwrap_or(value.as_f64()? as i128).saturating_add(step))
    };
    let least = bound("minimum", 0).or_else(|| bound("exclusiveMinimum", 1)).unwrap_or(least);
    let most = bound("maximum", 0).or_else(|| bound("exclusiveMaximum", -1)).unwrap_or(most);
    let most = most.max(least);
    let near = if least < 0 && most > 0 { 0 } else { least };
    let small = (near - 10).max(least)..=(near + 100).min(most);
    prop_oneof![4 => small, 2 => least..=most, 1 => select(vec![least, most])]
        .prop_map(|number| {
            i64::try_from(number)
                .map(Value::from)
                .or_else(|_| u64::try_from(number).map(Value::from))
        })
        .prop_map(Result::unwrap_or_default)
        .boxed()
}

fn number(fields: &Map<String, Value>) -> BoxedStrategy<Value> {
    let bound = |name, exclusive, default| {
        let value = fields.get(name).or_else(|| fields.get(exclusive));
        value.and_then(Value::as_f64).unwrap_or(default)
    };
    let least = bound("minimum", "exclusiveMinimum", -1e9);
    let most = bound("maximum", "exclusiveMaximum", 1e9).max(least);
    // Quarters are exact in binary and short in decimal.
    let quarters = (0_u32..400).prop_map(move |n| (least + f64::from(n) / 4.0).min(most));
    prop_oneof![2 => quarters, 1 => least..=most].prop_map(Value::from).boxed()
}

fn text(fields: &Map<String, Value>) -> BoxedStrategy<Value> {
    if let Some(pattern) = fields.get("pattern").and_then(Value::as_str) {
        // proptest writes whole matches and knows no anchors.
        let inner = pattern.strip_prefix('^').unwrap_or(pattern);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        if let Ok(matches) = string_regex(inner) {
            return matches.prop_map(Value::from).boxed();
        }
    }
    let of = |pattern: &'static str| pattern.prop_map(Value::from).boxed();
    match fields.get("format").and_then(Value::as_str) {
        // Few, so that they meet; and any.
        Some("uuid") => of(
            "00000000-0000-4000-8000-00000000000[1-4]|[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}",
        ),
        Some("date-time") => {
            of("20[0-9]{2}-(0[1-9]|1[0-2])-[01][1-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z")
        }
        Some("date" | "partial-date") => of("20[0-9]{2}-(0[1-9]|1[0-2])-[01][1-9]"),
        Some("time" | "partial-time") => of("[01][0-9]:[0-5][0-9]:[0-5][0-9]"),
        Some("email") => of("[a-z]{1,8}@[a-z]{1,8}\\.example"),
        Some("uri" | "url") => of("https://[a-z]{1,8}\\.example/[a-z0-9]{0,8}"),
        Some("ip" | "ipv4") => of("10\\.[1-9]\\.[1-9]\\.[1-9]"),
        Some("ipv6") => of("fd00::[1-9a-f]{1,4}"),
        _ => {
            let (min, max) = bounds(fields, "minLength", "maxLength", 12);
            let character = prop_oneof![3 => proptest::char::range('a', 'c'), 1 => any::<char>()];
            let characters = vec(character, min..=max);
            characters.prop_map(|all| all.into_iter().collect::<String>().into()).boxed()
        }
    }
}
