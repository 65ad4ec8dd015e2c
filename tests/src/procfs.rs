//! What the kernel knows of a process: descriptors and sockets.

use std::net::Ipv4Addr;

/// Descriptors that a process holds.
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Threads of a process.
pub fn threads(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Whether each thread of a process stands still, as after SIGSTOP.
pub fn is_stopped(pid: i32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.filter_map(Result::ok).all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // `1234 (name) T …`, where the name may hold anything.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// One IPv4 TCP socket of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub local: (Ipv4Addr, u16),
    pub remote: (Ipv4Addr, u16),
    /// As in the kernel's tcp_states.h: 1 established, 10 listening.
    pub state: u8,
}

/// The sockets whose local port is `port`, listening ones and TIME_WAIT left out: a socket in
/// TIME_WAIT is a note of the kernel's, not a socket that anybody holds.
pub fn sockets_on(port: u16) -> Vec<Socket> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(socket)
        .filter(|socket| socket.local.1 == port && socket.state != 10 && socket.state != 6)
        .collect()
}

fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    Some(Socket { local, remote, state })
}

/// `0100007F:1F90`: the address in the machine's byte order.
fn address(text: &str) -> Option<(Ipv4Addr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?;
    Some((Ipv4Addr::from(ip.to_ne_bytes()), u16::from_str_radix(port, 16).ok()?))
}

/// Processes whose environment holds `mark`, as `pid command line`.
pub fn marked(mark: &str) -> Vec<(i32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        })
        .map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}
