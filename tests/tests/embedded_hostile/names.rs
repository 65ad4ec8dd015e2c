//! Before a key is proven what is answered depends on the key alone: names that exist and names that do
//! not can't be told apart, by message or by time.

use std::time::{Duration, Instant};

use tidegate_ssh_client::hand::Hand;
use tidegate_ssh_client::{Key, Offer, number};
use tidegate_tests::Setup;
use tidegate_tests::manifest::{LoginUser, SupportWindow, Terminal};

use crate::arena::long;

/// Offers of each kind; a connection takes a few of them.
const EACH: usize = 18;

/// The answer to an offer of a key under this name, without its key, and what it took.
fn ask(hand: &mut Hand, user: &str, key: &Key) -> (u8, usize, Duration) {
    let request = key.request(user, None, None);
    let begun = Instant::now();
    hand.say(&request).expect("a write");
    let answer = hand.next(&[number::USERAUTH_FAILURE, number::USERAUTH_PK_OK]).expect("an answer");
    (answer[0], answer.len(), begun.elapsed())
}

fn quantile(times: &mut [Duration], of_hundred: usize) -> Duration {
    times.sort();
    times[times.len() * of_hundred / 100]
}

#[test]
fn names_that_exist_and_names_that_do_not_are_answered_alike() {
    let gate = Setup::new()
        .relay_spec("  limits: {handshakesPerSource: 1000}\n")
        .user(LoginUser::new("alice"))
        .user(LoginUser::new("suspended").suspended())
        .terminal(Terminal::new("kiosk-17").service("web", 443, Some(20_018)))
        .window(SupportWindow::open("berlin", "alice", "kiosk-17").services(&["web"]))
        .start();
    let alice = Key::read(&gate.key("alice").path);
    let names = ["alice", "nobody", "suspended", "kiosk-17", "terminal", "root", ""];
    let rounds = if long() { 400 } else { 60 };
    let mut times = vec![Vec::new(); names.len()];
    let mut next = 0;
    for round in 0..rounds {
        let socket = std::net::TcpStream::connect(gate.addr()).expect("a connection");
        let hand = Hand::new(socket, Offer::default()).and_then(Hand::exchange);
        let mut hand = hand.and_then(Hand::service).expect("keys");
        // One that is known to begin with, under any name.
        let (kind, length, _) = ask(&mut hand, names[round % names.len()], &alice);
        assert_eq!((kind, length), (number::USERAUTH_PK_OK, 1 + 4 + 11 + 4 + alice.blob.len()));
        for _ in 0..EACH {
            let which = next % names.len();
            next += 1;
            let unknown = Key::numbered(u32::try_from(next).expect("few"));
            let (kind, length, took) = ask(&mut hand, names[which], &unknown);
            // `publickey`, and no partial success.
            assert_eq!((kind, length), (number::USERAUTH_FAILURE, 1 + 4 + 9 + 1), "{which}");
            times[which].push(took);
        }
        // One address may offer 750 at once and 75 in a second.
        if next > 600 {
            std::thread::sleep(Duration::from_millis(270));
        }
    }
    let medians: Vec<Duration> = times.iter_mut().map(|times| quantile(times, 50)).collect();
    let quarters: Vec<Duration> = times.iter_mut().map(|times| quantile(times, 25)).collect();
    println!("{next} offers of unknown keys, by name: {names:?}");
    println!("medians {medians:?}\nfirst quartiles {quarters:?}");
    // The same work for each: other work of the machine hits all of them, since they take turns. A look
    // that a name decides on would show in both.
    for measured in [&medians, &quarters] {
        let (least, most) = (measured.iter().min(), measured.iter().max());
        let (least, most) = (least.expect("names"), most.expect("names"));
        assert!(*most <= *least * 3 / 2, "{least:?} to {most:?}: {measured:?}");
    }
}
