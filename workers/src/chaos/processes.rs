//! Processes that the run started. Signals go to their ids, never to a name; what is still there
//! when its owner is dropped is killed with everything below it, and reaped.

use std::{
    fs,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::time::Instant;

use super::error::ChaosError;

/// A process of ours.
#[derive(Debug)]
pub(super) struct Owned {
    name: String,
    child: Child,
}

impl Owned {
    /// Starts it.
    pub(super) fn start(
        name: impl Into<String>,
        command: &mut Command,
    ) -> Result<Self, ChaosError> {
        let name = name.into();
        let started = command.stdin(Stdio::null()).spawn();
        let child = started.map_err(ChaosError::io(format!("{name} does not start")))?;
        Ok(Self { name, child })
    }

    /// Its id; still its own, because only we reap it.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it a signal.
    pub(super) fn signal(&mut self, signal: &str) -> Result<(), ChaosError> {
        if self.ended().is_some() {
            return Ok(());
        }
        send(signal, &[self.pid()]).map_err(ChaosError::io(format!("SIG{signal} to {}", self.name)))
    }

    /// SIGKILL to it and everything below it; returns when it is gone.
    pub(super) fn kill(&mut self) {
        if self.ended().is_none() {
            // What cannot be sent, or has nobody to go to any more, changes nothing: the process
            // itself is killed below in any case.
            let _ = send("KILL", &tree(self.pid()));
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ends_within(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The shell's own `kill`, which every system has.
fn send(signal: &str, pids: &[u32]) -> std::io::Result<()> {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" \"$@\"", signal]).args(pids.iter().map(u32::to_string));
    let status = kill.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other("it could not be sent")) }
}

/// A process and everything below it, parents first.
fn tree(root: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = parents();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// Every process and its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let read = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The command's name, which may hold anything, stands in parentheses.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    entries.flatten().filter_map(read).collect()
}

/// Runs a program to its end; answers what it printed.
pub(super) async fn run(
    what: &str,
    command: Command,
    within: Duration,
) -> Result<String, ChaosError> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(within, command.output()).await;
    let output = output
        .map_err(|_| ChaosError::TooSlow { what: what.to_owned(), within })?
        .map_err(ChaosError::io(what))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = [output.stderr, output.stdout].concat();
    let words = String::from_utf8_lossy(&words).trim().chars().take(2_000).collect();
    Err(ChaosError::Program { what: what.to_owned(), words })
}

/// Waits until something is so; asks every 50 ms.
pub(super) async fn until(
    what: &str,
    within: Duration,
    mut is_so: impl AsyncFnMut() -> Result<bool, ChaosError>,
) -> Result<(), ChaosError> {
    let deadline = Instant::now() + within;
    while !is_so().await? {
        if Instant::now() >= deadline {
            return Err(ChaosError::TooSlow { what: what.to_owned(), within });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_killed_with_everything_below_it() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 600 & wait"]);
        let mut owned = Owned::start("shell", &mut shell).unwrap();
        let below = loop {
            let all = tree(owned.pid());
            if all.len() > 1 {
                break all;
            }
        };
        owned.kill();
        let left = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
        };
        while below.iter().any(left) {
            std::thread::yield_now();
        }
    }
}
