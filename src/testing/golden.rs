//! Golden files: one event of every type and schema version as JSON, which every later release
//! must still read. `{directory}/{wire name}/v{schema version}.json`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{diff, generate::sample_event};
use crate::{
    domain::{Aggregate, EncodedEvent, MessageKind, MessageSet},
    message::RawJson,
};

/// Set to `1`, missing golden files of the newest schema versions are written.
const WRITE: &str = "ADJUTANT_WRITE_GOLDEN";

/// Whether [`WRITE`] says so.
pub(super) fn to_be_written() -> bool {
    std::env::var(WRITE).is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
}

/// An event of each type that happened, by the name after the dot: the shortest.
#[derive(Default)]
pub(super) struct Samples(BTreeMap<String, RawJson>);

impl Samples {
    pub(super) fn add(&mut self, events: Vec<EncodedEvent>) {
        for event in events {
            let name = event.event_type.split_once('.').map_or("", |(_, name)| name).to_owned();
            let kept = self.0.entry(name).or_insert_with(|| event.data.clone());
            let order = |data: &RawJson| (data.as_str().len(), data.as_str().to_owned());
            if order(&event.data) < order(kept) {
                *kept = event.data;
            }
        }
    }
}

/// Reads every golden file of the aggregate's events. An error names all that is wrong.
/// `write` those that are missing and can be.
pub(super) fn check<A: Aggregate>(
    directory: &Path,
    samples: &Samples,
    write: bool,
) -> Result<(), String> {
    let mut wrong = Vec::new();
    for kind in A::Event::KINDS {
        let folder = directory.join(format!("{}.{}", A::TYPE, kind.name));
        for version in 1..=kind.schema_version {
            let file = folder.join(format!("v{version}.json"));
            match fs::read_to_string(&file) {
                Ok(text) => wrong.extend(check_file::<A::Event>(&file, kind, version, &text).err()),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    wrong.push(format!("{}: {error}", file.display()));
                }
                Err(_) if version == kind.schema_version && write => {
                    wrong.extend(write_file::<A>(&file, kind, samples).err());
                }
                Err(_) => wrong.push(missing(&file, version == kind.schema_version)),
            }
        }
    }
    match forgotten::<A>(directory) {
        Ok(forgotten) => wrong.extend(forgotten),
        Err(error) => wrong.push(format!("{}: {error}", directory.display())),
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn missing(file: &Path, newest: bool) -> String {
    let file = file.display();
    if newest {
        format!("{file} is missing: run the test once with {WRITE}=1 and commit what it writes")
    } else {
        format!(
            "{file} is missing: bring it back from version control, or write by hand an event as \
             releases of that schema version stored it"
        )
    }
}

fn check_file<E: MessageSet>(
    file: &Path,
    kind: &MessageKind,
    version: i16,
    text: &str,
) -> Result<(), String> {
    let file = file.display();
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("{file} is no JSON: {error}"))?;
    let event = E::decode(kind.name, version, &RawJson::from_trusted(text.to_owned()));
    let event = event.map_err(|error| {
        format!("{file} cannot be read any more, and so no such event in a store: {error}")
    })?;
    let again = event.encode().map_err(|error| format!("{file}: {error}"))?.to_value();
    if version == kind.schema_version && again != value {
        return Err(format!(
            "{file} is written differently now; a new shape is a new schema version:\n{}",
            diff::json(&value, &again)
        ));
    }
    Ok(())
}

fn write_file<A: Aggregate>(
    file: &Path,
    kind: &MessageKind,
    samples: &Samples,
) -> Result<(), String> {
    let data = samples.0.get(kind.name).map(RawJson::to_value).or_else(|| sample_event::<A>(kind));
    let data = data.ok_or_else(|| {
        format!(
            "{}: no generated history has such an event, and its JSON Schema gives none that can \
             be read: write it by hand",
            file.display()
        )
    })?;
    let written = || -> io::Result<()> {
        fs::create_dir_all(file.parent().unwrap_or(file))?;
        fs::write(file, diff::pretty(&data) + "\n")
    };
    written().map_err(|error| format!("{} cannot be written: {error}", file.display()))
}

/// Golden files of events that are not declared any more: stores may hold some.
fn forgotten<A: Aggregate>(directory: &Path) -> io::Result<Vec<String>> {
    let prefix = format!("{}.", A::TYPE);
    let mut wrong = Vec::new();
    for folder in entries(directory)? {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.as_deref().and_then(|name| name.strip_prefix(&prefix)) else {
            continue;
        };
        let declared = A::Event::KINDS.iter().find(|kind| kind.name == name);
        let newest = declared.map(|kind| kind.schema_version);
        for file in entries(&folder)? {
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let version = stem.and_then(|stem| stem.strip_prefix('v')?.parse::<i16>().ok());
            let reason = match (newest, version) {
                (_, None) => "is no golden file: `v1.json` would be one".to_owned(),
                (None, _) => {
                    "is an event that is not declared any more; stores may hold some".into()
                }
                (Some(newest), Some(version)) if version > newest => {
                    format!("is of a schema version above the declared v{newest}")
                }
                _ => continue,
            };
            wrong.push(format!("{} {reason}", file.display()));
        }
    }
    wrong.sort_unstable();
    Ok(wrong)
}

/// What a directory holds; nothing if it is not there.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
