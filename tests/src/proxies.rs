//! What stands between a client and a relay: haproxy, nginx and Squid as Debian has them, each with a
//! configuration and a directory of its own, on loopback.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::ports;
use crate::process::Proc;
use crate::wait::{SOON, eventually};

/// From where load balancers connect to the relay: what a test declares as their range.
pub const BALANCER: &str = "127.0.9.1";

/// A running proxy. It ends when it is dropped.
pub struct Proxy {
    pub port: u16,
    _process: Proc,
}

fn start(name: &str, command: &mut Command, port: u16) -> Proxy {
    let process = Proc::start(name, command);
    eventually(name, SOON, || {
        assert!(process.is_running(), "{name} ended: {}{}", process.stdout(), process.stderr());
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Proxy { port, _process: process }
}

fn write(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
    std::fs::create_dir_all(dir).expect("a directory");
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// haproxy in front of a relay's port; `options` are those of its server line, such as `send-proxy-v2`.
pub fn haproxy(dir: &Path, relay: u16, options: &str) -> Proxy {
    let port = ports::free();
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen relay\n  bind 127.0.0.1:{port}\n  \
         server relay 127.0.0.1:{relay} source {BALANCER} {options}\n"
    );
    let config = write(dir, &format!("haproxy-{port}.cfg"), &text);
    let mut command = Command::new("/usr/sbin/haproxy");
    start("haproxy", command.arg("-db").arg("-f").arg(config), port)
}

/// nginx in front of a relay's port: `stream` or `http`, with these lines about the port's server.
fn nginx(dir: &Path, kind: &str, server: &str) -> Proxy {
    let port = ports::free();
    let dir = dir.join(format!("nginx-{port}"));
    let here = dir.display();
    // As the same user all the way: it has nothing to give up, and its directory is that user's.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let mut temporary = String::new();
    for what in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        if kind == "http" {
            let _ = writeln!(temporary, "{what}_temp_path {here}/{what};");
        }
    }
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n{user}daemon off;\n\
         worker_processes 1;\npid {here}/pid;\nerror_log stderr;\nevents {{}}\n\
         {kind} {{\n{temporary}access_log off;\nserver {{ listen 127.0.0.1:{port};\n{server} }} }}\n"
    );
    let config = write(&dir, "nginx.conf", &text);
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(&dir).args(["-e", "stderr", "-c"]).arg(config);
    start("nginx", &mut command, port)
}

/// nginx's `stream` with PROXY version 1.
pub fn nginx_stream(dir: &Path, relay: u16) -> Proxy {
    let server = format!("proxy_pass 127.0.0.1:{relay}; proxy_protocol on; proxy_bind {BALANCER};");
    nginx(dir, "stream", &server)
}

/// nginx as a web server that passes `/tidegate` on as a WebSocket.
pub fn nginx_websocket(dir: &Path, relay: u16) -> Proxy {
    let server = format!(
        "location /tidegate {{ proxy_pass http://127.0.0.1:{relay}; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
         proxy_read_timeout 1h; }}"
    );
    nginx(dir, "http", &server)
}

/// Squid that lets CONNECT through to these ports alone.
pub fn squid(dir: &Path, ports_let_out: &[u16]) -> Proxy {
    let port = ports::free();
    let list: Vec<String> = ports_let_out.iter().map(u16::to_string).collect();
    let text = format!(
        "http_port 127.0.0.1:{port}\nacl out port {}\nacl CONNECT method CONNECT\n\
         http_access deny CONNECT !out\nhttp_access allow all\naccess_log none\n\
         cache_log /dev/null\ncache_store_log none\npid_filename none\ncache deny all\n\
         shutdown_lifetime 0 seconds\nnetdb_filename none\ncoredump_dir /tmp\n\
         visible_hostname squid.example.com\n",
        list.join(" ")
    );
    let config = write(dir, &format!("squid-{port}.conf"), &text);
    let mut command = Command::new("/usr/sbin/squid");
    start("squid", command.arg("-N").arg("-f").arg(config), port)
}
