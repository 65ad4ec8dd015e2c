//! Every way in: each transport on each port, as terminal and as staff, through the proxies that
//! customers and vendors have, with stock programs.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tidegate_tests::clients::Program;
use tidegate_tests::clock::{after, monotonic};
use tidegate_tests::http::metric;
use tidegate_tests::kiosk::{SERVICES, alice_everywhere};
use tidegate_tests::manifest::{DOMAIN, in_seconds};
use tidegate_tests::process::Stream;
use tidegate_tests::procfs::sockets_on;
use tidegate_tests::{Kiosk, Proc, SOON, Way, eventually, ports, proxies, wait_for};

/// The most that a cut may take (invariants 2 and 3).
const ON_TIME: Duration = Duration::from_secs(1);

/// Attaches the terminal by OpenSSH with these options, to a port.
fn attach(kiosk: &mut Kiosk, port: u16, options: &[String]) {
    kiosk.client = None;
    let mut all = vec!["-N"];
    all.extend(options.iter().map(String::as_str));
    let clients = kiosk.gate.clients_of("kiosk-17").via(port);
    let mut command = clients.command_with(Program::OpenSsh, &all, &kiosk.forwards());
    let client = Proc::start(format!("ssh -R {options:?}"), &mut command);
    for (service, _, _) in SERVICES {
        kiosk.gate.await_offer("kiosk-17", service);
    }
    kiosk.client = Some(client);
}

/// `ssh -W kiosk-17:PORT` of alice's with these options, to a port of the relay's or a proxy's.
fn session(kiosk: &Kiosk, port: u16, options: &[String], to: u16) -> Proc {
    let target = format!("kiosk-17.{DOMAIN}:{to}");
    let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
    all.extend(["-W", &target]);
    let mut command = kiosk.gate.staff("alice").via(port).relay(&all);
    Proc::start(format!("ssh -W {options:?}"), &mut command)
}

/// Some that are no multiple of any record's or frame's size.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| u8::try_from(n * n % 251).expect("less than 251")).collect()
}

/// What alice sends by this way comes back whole.
#[track_caller]
fn echoes(kiosk: &Kiosk, port: u16, options: &[String]) {
    let mut client = session(kiosk, port, options, 443);
    let sent = bytes(300_001);
    client.write(&sent).expect("a write");
    client.await_bytes(sent.len() as u64, SOON);
    let got = client.with_out(Stream::sha256);
    assert_eq!(got, <[u8; 32]>::from(Sha256::digest(&sent)), "{options:?}");
    client.close_stdin();
    client.exit(SOON);
}

#[test]
fn every_transport_serves_terminals_and_staff_on_every_port() {
    let second = ports::free();
    let mut kiosk = Kiosk::detached(|setup| {
        setup.window(alice_everywhere("berlin")).arg("--listen").arg(&format!("127.0.0.1:{second}"))
    });
    for port in [kiosk.gate.port, second] {
        for terminal in Way::ALL {
            attach(&mut kiosk, port, &terminal.options(port));
            for staff in Way::ALL {
                let begun = Instant::now();
                echoes(&kiosk, port, &staff.options(port));
                let took = begun.elapsed();
                println!("port {port}: terminal by {terminal:?}, staff by {staff:?}: {took:?}");
            }
        }
    }
}

#[test]
fn invariant_2_a_cut_is_on_time_by_every_transport() {
    let mut kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let port = kiosk.gate.port;
    attach(&mut kiosk, port, &Way::WebSocketTls.options(port));
    let sessions: Vec<_> = Way::ALL
        .into_iter()
        .map(|way| {
            let mut client = session(&kiosk, port, &way.options(port), 873);
            client.close_stdin();
            client.await_bytes(1 << 20, SOON);
            (way, client)
        })
        .collect();
    // One that takes nothing any more, with all that is between full.
    let stopped = session(&kiosk, port, &Way::WebSocketTls.options(port), 873);
    stopped.await_bytes(1 << 20, SOON);
    stopped.signal_group(Signal::STOP);
    // Only now: on a slow machine it takes long until all of them run.
    let closes = in_seconds(5);
    kiosk.gate.put(&alice_everywhere("berlin").closing_at(closes));
    let cut = monotonic(closes);
    for (way, client) in sessions {
        let exit = client.exit(SOON);
        let told = client.stderr();
        assert!(told.contains("support window default/berlin closed"), "{way:?}: {told}");
        assert!(exit.at >= cut, "{way:?} was cut before its deadline");
        let late = after(cut, exit.at);
        assert!(late <= ON_TIME, "{way:?} was cut {late:?} late");
        println!("cut over {way:?}: +{late:?}");
    }
    // With what the stopped one has not read.
    let gone = || {
        let sessions = metric(kiosk.gate.admin, "tidegate_sessions_current");
        // The terminal's is left.
        sessions == Some(0.0) && sockets_on(port).len() == 1
    };
    let until = cut + ON_TIME + Duration::from_secs(1);
    eventually("nothing of the sessions is left", until - Instant::now(), gone);
    eventually("the service's connections end", SOON, || kiosk.source.all_ended());
}

/// A certificate for this name with its key, at these places.
fn certificate(name: &str, chain: &Path, key: &Path) {
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", &format!("/CN={name}"), "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(chain);
    Proc::run("openssl req", &mut command, SOON).ok();
}

/// What the relay's certificate is made out to: its subject and names.
fn served(port: u16) -> String {
    let mut command = Command::new("sh");
    let line = format!(
        "openssl s_client -connect 127.0.0.1:{port} </dev/null 2>/dev/null | \
         openssl x509 -noout -subject -ext subjectAltName 2>&1"
    );
    Proc::run("openssl s_client", command.args(["-c", &line]), SOON).stdout
}

#[test]
fn the_relay_makes_a_certificate_and_keeps_it() {
    let mut kiosk = Kiosk::detached(|setup| setup);
    let names = served(kiosk.gate.port);
    assert!(names.contains(&format!("DNS:{DOMAIN}, DNS:*.{DOMAIN}")), "{names}");
    let path = kiosk.gate.state.join("tls/self-made.pem");
    let before = std::fs::read(&path).expect("the certificate");
    kiosk.gate.stop();
    kiosk.gate.start();
    served(kiosk.gate.port);
    assert_eq!(std::fs::read(&path).expect("the certificate"), before);
}

#[test]
fn a_certificate_of_files_is_followed_and_a_bad_one_is_not() {
    let mut kiosk = Kiosk::declared(|setup| setup);
    let [chain, key] = ["tls.crt", "tls.key"].map(|name| kiosk.gate.dir().join(name));
    for (flag, path) in [("--tls-cert", &chain), ("--tls-key", &key)] {
        kiosk.gate.args.extend([flag.to_owned(), path.display().to_string()]);
    }
    // Not there yet: the relay makes one, and says so.
    kiosk.gate.start();
    let port = kiosk.gate.port;
    kiosk.gate.await_log(&["ERROR", "tls.crt", "there is no such file"], SOON);
    assert!(served(port).contains(DOMAIN));
    certificate("one", &chain, &key);
    let hangup = || kiosk.gate.relay().signal(Signal::HUP);
    hangup();
    eventually("the first certificate", SOON, || served(port).contains("CN = one"));
    // Another's key.
    certificate("two", &chain, &kiosk.gate.dir().join("other.key"));
    hangup();
    kiosk.gate.await_log(&["ERROR", "tls.crt", "cannot be used for TLS"], SOON);
    assert!(served(port).contains("CN = one"));
    certificate("three", &chain, &key);
    // Without being told.
    eventually("the third certificate", SOON, || served(port).contains("CN = three"));
}

/// What one gets who sends this.
fn answer(port: u16, sent: &[u8]) -> String {
    answer_from(Ipv4Addr::LOCALHOST, port, sent)
}

/// The same from another address of this machine.
fn answer_from(source: Ipv4Addr, port: u16, sent: &[u8]) -> String {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut socket = connect_from(source, to).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket.write_all(sent).expect("a write");
    let mut got = Vec::new();
    let _ = socket.read_to_end(&mut got);
    String::from_utf8_lossy(&got).into_owned()
}

fn connect_from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

#[test]
fn what_is_no_way_in_is_told_what_this_is() {
    let kiosk = Kiosk::detached(|setup| setup);
    let port = kiosk.gate.port;
    for (sent, wanted) in [
        (&b"EHLO mail.example.com\r\n"[..], "This is a Tidegate relay; it speaks SSH"),
        (b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n", "<title>Tidegate relay</title>"),
        (b"GET /tidegate HTTP/1.1\r\nHost: relay\r\n\r\n", "HTTP/1.1 426 Upgrade Required"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nSSH-2.0-x\r\n", "outside of the declared source"),
    ] {
        let got = answer(port, sent);
        assert!(got.contains(wanted), "{got}");
    }
    // Silence: the banner, by each layer, and then what SSH says goes on.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    silent.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut banner = [0; 18];
    silent.read_exact(&mut banner).expect("the banner");
    assert_eq!(&banner, b"SSH-2.0-Tidegate\r\n");
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    silent.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("a write");
    let mut rest = String::new();
    let _ = silent.read_to_string(&mut rest);
    assert!(rest.contains("what you sent is not SSH"), "{rest}");
}

/// The relay's exposure with the range that load balancers of these tests connect from.
const BEHIND: &str = "  exposure: {type: NodePort, proxyProtocol: {from: [127.0.9.0/24]}}\n";

/// `ssh` from this address.
fn from(address: &str) -> Vec<String> {
    vec!["-o".to_owned(), format!("BindAddress={address}")]
}

/// Where the first connection of this kind came from, as the audit log has it behind so many lines.
fn source(kiosk: &Kiosk, behind: usize, what: &str) -> (String, String) {
    let line = wait_for(&format!("a line of an {what}"), SOON, || {
        kiosk.gate.audit().into_iter().skip(behind).find(|line| line["event"] == what)
    });
    let word = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    (word("sourceAddress"), word("transport"))
}

#[test]
fn load_balancers_say_who_is_behind_them() {
    let mut kiosk =
        Kiosk::declared(|setup| setup.window(alice_everywhere("berlin")).relay_spec(BEHIND));
    let alice = kiosk.gate.user("alice").from(&["127.0.44.0/24"]);
    kiosk.gate.put_user(alice);
    kiosk.gate.start();
    let (dir, relay) = (kiosk.gate.dir().to_owned(), kiosk.gate.port);
    let balancers = [
        ("haproxy, version 1", proxies::haproxy(&dir, relay, "send-proxy")),
        ("haproxy, version 2", proxies::haproxy(&dir, relay, "send-proxy-v2")),
        ("haproxy, version 2 with its TLVs", {
            let tlvs = "send-proxy-v2 proxy-v2-options crc32c,unique-id";
            proxies::haproxy(&dir, relay, tlvs)
        }),
        ("nginx", proxies::nginx_stream(&dir, relay)),
    ];
    for (name, balancer) in &balancers {
        println!("{name}");
        let before = kiosk.gate.audit().len();
        attach(&mut kiosk, balancer.port, &from("127.0.55.1"));
        let (address, transport) = source(&kiosk, before, "Attach");
        assert!(address.starts_with("127.0.55.1:"), "{name}: {address}");
        assert_eq!(transport, "SSH");
        echoes(&kiosk, balancer.port, &from("127.0.44.1"));
        let (address, _) = source(&kiosk, before, "Allow");
        assert!(address.starts_with("127.0.44.1:"), "{name}: {address}");
        // By TLS and a WebSocket through it, from an address that alice may not come from.
        for way in [Way::Tls, Way::WebSocket] {
            let client = session(&kiosk, balancer.port, &way.options(balancer.port), 443);
            let refused = client.finish(SOON);
            assert!(refused.stderr.contains("127.0.0.1"), "{name}, {way:?}: {}", refused.stderr);
            // A line of its own has the first of a minute by each transport; the others are counted.
            kiosk.gate.await_audit(&format!("{name}, {way:?}"), SOON, |line| {
                line["event"] == "Login" && line["transport"] == way.word()
            });
        }
    }
}

#[test]
fn a_proxy_header_is_mandatory_where_it_is_declared_and_refused_elsewhere() {
    let kiosk = Kiosk::detached(|setup| setup.relay_spec(BEHIND));
    let relay = kiosk.gate.port;
    let from = |source: [u8; 4], sent: &[u8]| answer_from(source.into(), relay, sent);
    let balancer = [127, 0, 9, 1];
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    let ssh = "SSH-2.0-x\r\n";
    let got = from(balancer, ssh.as_bytes());
    assert!(got.contains("does not begin with a PROXY protocol header"), "{got}");
    let got = from(balancer, format!("{header}{header}{ssh}").as_bytes());
    assert!(got.contains("a second PROXY protocol header"), "{got}");
    let got = from([127, 0, 0, 1], format!("{header}{ssh}").as_bytes());
    assert!(got.contains("outside of the declared source ranges"), "{got}");
    assert_eq!(from(balancer, b"PROXY UNKNOWN\r\n"), "");
    eventually("the health check is counted", SOON, || {
        metric(kiosk.gate.admin, "tidegate_connections_closed_total{outcome=\"health_check\"}")
            == Some(1.0)
    });
    // Another declaration comes into force without a restart.
    let (file, text) = relay_manifest(&kiosk);
    kiosk.gate.put_text(&file, &text.replace("127.0.9.0/24", "127.0.10.0/24"));
    eventually("the new range is in force", SOON, || {
        // Not SSH either way, so that the answer comes at once.
        from([127, 0, 10, 1], b"X\r\n").contains("does not begin with")
    });
    let got = from(balancer, format!("{header}{ssh}").as_bytes());
    assert!(got.contains("outside of the declared source ranges"), "{got}");
}

/// The Relay's manifest: its file's name and its text.
fn relay_manifest(kiosk: &Kiosk) -> (String, String) {
    let manifests = &kiosk.gate.manifests;
    let entries = std::fs::read_dir(manifests).expect("the manifests").filter_map(Result::ok);
    let found = entries.filter_map(|entry| {
        let text = std::fs::read_to_string(entry.path()).ok()?;
        let name = entry.file_name().into_string().ok()?;
        text.contains("kind: Relay").then_some((name, text))
    });
    found.into_iter().next().expect("a Relay")
}

#[test]
fn haproxy_looks_whether_the_relay_is_there() {
    let kiosk = Kiosk::detached(|setup| setup.relay_spec(BEHIND));
    let (dir, relay) = (kiosk.gate.dir(), kiosk.gate.port);
    let _balancer = proxies::haproxy(dir, relay, "send-proxy-v2 check inter 200ms");
    let closed = |outcome: &str| {
        let name = format!("tidegate_connections_closed_total{{outcome=\"{outcome}\"}}");
        metric(kiosk.gate.admin, &name).unwrap_or_default()
    };
    eventually("five looks", SOON, || closed("health_check") >= 5.0);
}

#[test]
fn web_proxies_pass_the_websocket_and_connect() {
    let mut kiosk = Kiosk::detached(|setup| setup.window(alice_everywhere("berlin")));
    let (dir, relay) = (kiosk.gate.dir().to_owned(), kiosk.gate.port);
    let web = proxies::nginx_websocket(&dir, relay);
    let by_web = Way::WebSocket.options(web.port);
    attach(&mut kiosk, web.port, &by_web);
    echoes(&kiosk, web.port, &by_web);
    assert_eq!(source(&kiosk, 0, "Allow").1, "WebSocket");

    let squid = proxies::squid(&dir, &[relay]);
    let connect = |to: u16| {
        let through = format!("socat - PROXY:127.0.0.1:127.0.0.1:{to},proxyport={}", squid.port);
        vec!["-o".to_owned(), format!("ProxyCommand={through}")]
    };
    attach(&mut kiosk, relay, &connect(relay));
    echoes(&kiosk, relay, &connect(relay));
    // A port that the proxy does not let out, as a stock Squid does with all but 443.
    let refused = session(&kiosk, relay, &connect(9), 443).finish(SOON);
    assert!(refused.stderr.contains("Forbidden"), "{}", refused.stderr);
}
