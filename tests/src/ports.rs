//! Loopback ports for servers that have to be told one.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Mutex;

/// Below what the kernel gives to outgoing connections, so that none of those takes the port
/// between this look and the server's bind, nor while a server is down to be started again.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A port of 127.0.0.1 that nobody listens on. It is this process's until it ends: no other test
/// takes it, also while its server is away.
pub fn free() -> u16 {
    static TAKEN: Mutex<(u16, Vec<File>)> = Mutex::new((0, Vec::new()));
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Test programs that run side by side start far apart.
    let start = u16::try_from(std::process::id().wrapping_mul(997) % u32::from(COUNT))
        .expect("less than COUNT");
    while taken.0 < COUNT {
        let port = FIRST + (start + taken.0) % COUNT;
        taken.0 += 1;
        if let Some(lock) = reserve(port)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            taken.1.push(lock);
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}

/// The lock that says whose the port is; `None` where it is another process's.
fn reserve(port: u16) -> Option<File> {
    let directory = Path::new("/tmp/tidegate-test-ports");
    // Of whoever comes first; all users of the machine share the ports.
    if std::fs::create_dir(directory).is_ok() {
        let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o1777));
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o666);
    let path = directory.join(port.to_string());
    let file = match options.open(&path) {
        Ok(file) => file,
        // Another user's: it can be locked all the same.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            File::open(&path).ok()?
        }
        Err(error) => panic!("cannot reserve a port with {}: {error}", path.display()),
    };
    file.try_lock().is_ok().then_some(file)
}
