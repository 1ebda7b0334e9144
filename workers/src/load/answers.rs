//! A record of what was answered, for `bank verify --answers`.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

use super::LoadError;

/// An NDJSON file of `{"id", "code"}`.
#[derive(Debug)]
pub struct AnswersFile {
    path: PathBuf,
    /// The file, and the first error; what follows an error is not written.
    inner: Mutex<(BufWriter<File>, Option<std::io::Error>)>,
}

impl AnswersFile {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::File { path: path.display().to_string(), source };
        let file = BufWriter::new(File::create(path).map_err(failed)?);
        Ok(Self { path: path.to_owned(), inner: Mutex::new((file, None)) })
    }

    pub(super) fn record(&self, id: Uuid, code: u16) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.1.is_none()
            && let Err(error) = writeln!(inner.0, "{{\"id\":\"{id}\",\"code\":{code}}}")
        {
            inner.1 = Some(error);
        }
    }

    /// Writes out what is buffered; tells the first error there was.
    pub fn finish(&self) -> Result<(), LoadError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = inner.0.flush();
        let failed = |source| LoadError::File { path: self.path.display().to_string(), source };
        inner.1.take().map_or(flushed, Err).map_err(failed)
    }
}
