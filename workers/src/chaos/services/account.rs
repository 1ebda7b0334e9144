//! Whom PostgreSQL runs as: it refuses to be root.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use crate::chaos::error::ChaosError;

/// A system's account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// `postgres`, else `nobody`, if we are root; else whoever we are (`None`).
    pub(super) fn for_postgres() -> Result<Option<Self>, ChaosError> {
        let own = fs::metadata("/proc/self").map_err(ChaosError::io("/proc/self"))?;
        if own.uid() != 0 {
            return Ok(None);
        }
        let known = fs::read_to_string("/etc/passwd").map_err(ChaosError::io("/etc/passwd"))?;
        let found = ["postgres", "nobody"].iter().find_map(|name| find(&known, name));
        let lacking = || {
            let words = "PostgreSQL does not run as root, and there is no user `postgres`";
            ChaosError::Missing(words.into())
        };
        found.map(Some).ok_or_else(lacking)
    }

    /// Gives it a file or directory.
    pub(super) fn give(self, path: &Path) -> Result<(), ChaosError> {
        let given = chown(path, Some(self.user), Some(self.group));
        given.map_err(ChaosError::io(format!("{} cannot be given away", path.display())))
    }

    /// The command will run as this account.
    pub(super) fn runs(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }
}

/// From the lines `name:password:user:group:…`.
fn find(known: &str, name: &str) -> Option<Account> {
    known.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Account { user, group })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_name() {
        let known = "root:x:0:0:root:/root:/bin/bash\npostgres:x:104:111::/:/bin/bash\n";
        let account = find(known, "postgres").unwrap();
        assert_eq!((account.user, account.group), (104, 111));
        assert!(find(known, "nobody").is_none());
    }
}
