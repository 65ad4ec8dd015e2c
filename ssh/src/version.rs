//! The lines that both sides begin with (RFC 4253 section 4.2).

/// Ours, without its CR LF. No '-' in the software part, and not OpenSSH's name, by which peers would
/// assume its faults.
pub const OURS: &str = "SSH-2.0-Tidegate";
