//! What Linux says of processes (`proc(5)`). On other systems nothing is known, and figures that
//! rest on it are left out.

use std::{fs, path::PathBuf};

/// The kernel counts CPU time in hundredths of a second for user space (`USER_HZ`), on every
/// architecture that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// The part of `/proc/{pid}/stat` that is needed.
pub(super) struct Stat {
    pub(super) command: String,
    pub(super) parent: u32,
    /// CPU time of the process, in seconds.
    pub(super) own: f64,
    /// CPU time of its children that have ended and been waited for.
    pub(super) ended_children: f64,
}

pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command's name stands in parentheses and may itself contain some.
fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let command = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let seconds = |index: usize| -> Option<f64> {
        Some(fields.get(index)?.parse::<f64>().ok()? / TICKS_PER_SECOND)
    };
    Some(Stat {
        command,
        parent: fields.get(1)?.parse().ok()?,
        own: seconds(11)? + seconds(12)?,
        ended_children: seconds(13)? + seconds(14)?,
    })
}

/// Resident memory in bytes.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Every process id.
pub(super) fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The process that listens on a TCP port of this machine, as far as we may know.
pub(super) fn listener_on(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let text: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    let socket = PathBuf::from(format!("socket:[{}]", listening_inode(&text, port)?));
    all().into_iter().find(|pid| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| link == socket))
    })
}

/// Finds the socket in state 0A (listening) whose local address ends with the port.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    let port = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A";
        listens.then(|| fields.get(9).copied()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "42 (odd) name)) S 7 42 42 0 -1 4194304 1 2 3 4 150 50 10 15 20 0 1 0 99";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.command.as_str(), stat.parent), ("odd) name)", 7));
        assert_eq!((stat.own, stat.ended_children), (2.0, 0.25));
    }

    #[test]
    fn a_listening_socket_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n   0: 0100007F:1628 00000000:0000 01 0:0 00:0 0 0 0 111 1\n   1: 0100007F:1628 00000000:0000 0A 0:0 00:0 0 0 0 222 1";
        assert_eq!(listening_inode(table, 5672), Some("222"));
        assert_eq!(listening_inode(table, 5671), None);
    }
}
