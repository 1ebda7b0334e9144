//! Where a database is.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::config::SecretUrl;

/// The file of a service that keeps its data in a directory.
const FILE: &str = "adjutant.sqlite";

/// Where a database is. Shown without its password.
#[derive(Clone, Debug)]
pub enum Source {
    /// A PostgreSQL, by URL.
    Postgres(SecretUrl),
    /// A SQLite file.
    Sqlite(PathBuf),
}

impl Source {
    /// A PostgreSQL.
    pub fn postgres(url: impl Into<String>) -> Self {
        Self::Postgres(SecretUrl::new(url))
    }

    /// A SQLite file; of a directory, the file `adjutant.sqlite` in it.
    pub fn sqlite(path: &Path) -> Self {
        Self::Sqlite(if path.is_dir() { path.join(FILE) } else { path.to_owned() })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => url.fmt(f),
            Self::Sqlite(file) => file.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let source = Source::postgres("postgres://me:secret@db/bank");
        assert_eq!(source.to_string(), "postgres://me:***@db/bank");
        assert!(!format!("{source:?}").contains("secret"));
    }

    #[test]
    fn a_directory_stands_for_the_file_in_it() {
        let directory = std::env::temp_dir();
        let of = |path: &Path| Source::sqlite(path).to_string();
        assert_eq!(of(&directory), directory.join("adjutant.sqlite").display().to_string());
        let file = directory.join("no-such-file.sqlite");
        assert_eq!(of(&file), file.display().to_string());
    }
}
