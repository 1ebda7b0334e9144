//! The directory of a run: the services' data, logs of the processes, the clients' log.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::error::ChaosError;

/// Removed when dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    kept: bool,
}

impl Directory {
    /// Makes it here, or in the system's folder for temporary files.
    pub(super) fn create(parent: Option<&Path>) -> Result<Self, ChaosError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("bank-chaos-{}", uuid::Uuid::new_v4().simple()));
        let refused = || ChaosError::io(path.display().to_string());
        fs::create_dir_all(&path).map_err(refused())?;
        // PostgreSQL may run as another user, who must get through.
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(&path, open).map_err(refused())?;
        let path = fs::canonicalize(&path).map_err(refused())?;
        Ok(Self { path, kept: false })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It stays, for people to look into.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}
