//! The driver against the core on a socket.
#![cfg(feature = "driver")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_ssh::random::System;
use tidegate_ssh::{Config, Core, Door, Event, HostKey, Inbound, Next};
use tidegate_ssh_client::driver::{Connection, Serve};
use tidegate_ssh_client::{Key, Offer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Lets in the keys with even numbers below 10.
struct Even;

impl Door for Even {
    fn offered(&mut self, _: &str, key: &[u8]) -> bool {
        (0..5).any(|n| Key::numbered(2 * n).blob == key)
    }

    fn proven(&mut self, user: &str, _: &[u8]) -> bool {
        user == "terminal"
    }
}

/// Grants port 4022, greets on channels to "here" and refuses others.
async fn serve(mut stream: TcpStream, config: Arc<Config>) {
    let start = Instant::now();
    let mut inbound = Inbound::new(config.rekey);
    let mut core = Core::new(config, Box::new(System), Duration::ZERO);
    let (mut buffer, mut bytes) = (Vec::new(), vec![0; 4096]);
    loop {
        core.pump(&mut Vec::new(), &mut |_| true);
        let output = core.output();
        if stream.write_all(output.as_slice()).await.is_err() {
            return;
        }
        output.consume(usize::MAX);
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => buffer.extend_from_slice(&bytes[..count]),
        }
        let mut at = 0;
        loop {
            let now = start.elapsed();
            match inbound.next(&mut buffer, at).expect("a client that does nothing wrong") {
                Next::Incomplete { .. } => break,
                Next::Version { line, next } => {
                    core.version(&buffer[line]);
                    at = next;
                }
                Next::Message { message, next, sequence, .. } => {
                    at = next;
                    let told = core.handle(&buffer[message], sequence, &mut Even, now);
                    match told.expect("a client that does nothing wrong") {
                        Some(Event::Keys { opener, reset_sequence, .. }) => {
                            inbound.install(opener, reset_sequence);
                        }
                        Some(Event::Forward { token, .. }) => {
                            core.answer_forward(token, Some(4022));
                        }
                        Some(Event::Open { channel, host, .. }) if host == "here" => {
                            core.confirm(channel);
                            core.send(channel, b"hello").expect("it is open");
                        }
                        Some(Event::Open { channel, .. }) => core.close(channel),
                        _ => {}
                    }
                }
                Next::Exhausted => core.rekey(now),
            }
        }
        buffer.drain(..at);
    }
}

#[tokio::test]
async fn clients_log_in_forward_and_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let host_key = HostKey::from_private_key(&Key::private([1; 32])).expect("a host key");
    let config = Arc::new(Config::new(vec![host_key]));
    let accept = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            tokio::spawn(serve(stream, Arc::clone(&config)));
        }
    });
    let offer = Arc::new(Offer::default());
    let login = |n| {
        Connection::login(port, Arc::clone(&offer), "terminal", Key::numbered(n), Serve::Nothing)
    };
    for n in 0..5 {
        let connection = login(2 * n).await.expect("a login");
        assert_eq!(connection.forward(0).await.expect("a forward"), 4022);
        for _ in 0..3 {
            assert_eq!(connection.open("here", 22).await.expect("a channel"), b"hello");
        }
        assert!(connection.open("elsewhere", 22).await.is_err());
        assert_eq!(connection.hold("here", 22, b"ping").await.expect("a channel"), b"hello");
        assert_eq!(connection.ended(), None);
    }
    let refused = login(1).await.err().expect("the key is not known");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    accept.abort();
}

/// 10,000 of them are to fit beside what is measured.
#[test]
fn an_idle_client_is_small() {
    let bytes = size_of::<tidegate_ssh_client::Session>();
    println!("{bytes} bytes");
    assert!(bytes < 4096, "{bytes}");
}
