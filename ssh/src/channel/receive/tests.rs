use super::*;
use crate::budget::Budget;

const KB: u32 = 1024;

fn share(total: u32) -> Arc<Share> {
    Share::new(&Budget::new(usize::try_from(total).unwrap()))
}

fn windows() -> Windows {
    Windows { least: 16 * KB, first: 64 * KB, usual: 256 * KB, most: 8192 * KB }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A sender and a reader with a path between: the sender knows of a WINDOW_ADJUST `journey` after
/// it was due, and sends a packet each `packet` as long as its window allows; the reader takes
/// `reading` for each of them.
fn run(
    window: &mut ReceiveWindow,
    (journey, packet, reading): (Duration, Duration, Duration),
    packets: usize,
) -> Duration {
    let mut now = ms(1000);
    let mut may = u64::from(window.left());
    let mut adjusts = std::collections::VecDeque::new();
    let mut read = std::collections::VecDeque::new();
    let (mut sent, mut next, mut busy) = (0, now, now);
    while sent < packets {
        let arrives = adjusts.front().map(|(at, _)| *at);
        let done = read.front().copied();
        let sends = (may >= u64::from(STOPPED)).then_some(next);
        now = [arrives, done, sends].into_iter().flatten().min().unwrap().max(now);
        if arrives.is_some_and(|at| at <= now) {
            may += u64::from(adjusts.pop_front().unwrap().1);
        } else if done.is_some_and(|at| at <= now) {
            read.pop_front();
            window.consumed(STOPPED);
        } else {
            may -= u64::from(STOPPED);
            sent += 1;
            next = now + packet;
            window.received(STOPPED, now).unwrap();
            busy = busy.max(now) + reading;
            read.push_back(busy);
        }
        if let Some(given) = window.due(now) {
            adjusts.push_back((now + journey, given));
        }
        assert!(window.is_sound());
    }
    window.consumed(u32::MAX);
    now.saturating_sub(ms(1000))
}

#[test]
fn a_long_path_grows_the_window_and_a_slow_reader_does_not() {
    let share = share(256 << 20);
    let us = Duration::from_micros;
    let grown = |path, packets| {
        let mut window = ReceiveWindow::new(windows(), &share).unwrap();
        run(&mut window, path, packets);
        window.size() / KB
    };
    // Journey, packet, reading. 100 MB/s at 200 ms would take 20 MB.
    assert_eq!(grown((ms(200), us(330), us(10)), 3000), 8192);
    // 10 MB/s at 50 ms take 500 KB, and half of the window is on its way back at any time.
    let grew = grown((ms(50), us(3300), us(10)), 3000);
    assert!([1024, 2048].contains(&grew), "{grew}");
    // A slow reader, near or far.
    assert_eq!(grown((us(300), us(330), ms(30)), 3000), 256);
    assert_eq!(grown((ms(20), us(330), ms(30)), 3000), 256);
    // Near and fast: 1 GB/s at 2 ms take 2 MB, at 0.2 ms less than there is.
    let grew = grown((ms(2), us(30), us(10)), 3000);
    assert!([2048, 4096].contains(&grew), "{grew}");
    assert_eq!(grown((us(200), us(30), us(10)), 3000), 256);
    // Near, or slow to send.
    assert_eq!(grown((us(300), us(330), us(10)), 3000), 256);
    assert_eq!(grown((ms(200), ms(150), us(10)), 3000), 128);
    assert_eq!(grown((ms(50), ms(30), us(10)), 3000), 256);
    assert_eq!(share.taken(), 0);
}

/// A sender that sends whatever its window allows, over a path of `journey` one way, and a reader
/// that says `rate` bytes a second are consumed, looking each 5 ms: bytes of the last 3 of 5 s, and
/// the most that came in within 100 ms of them.
fn paced(window: &mut ReceiveWindow, journey: u64, rate: u64) -> (u64, u64) {
    window.pace(rate);
    let (mut may, mut queue) = (u64::from(window.left()), std::collections::VecDeque::new());
    let mut adjusts = std::collections::VecDeque::new();
    let (mut held, mut taken, mut came) = (0_u64, 0_u64, vec![0_u64; 5000]);
    for now in 0..5000_u64 {
        while adjusts.front().is_some_and(|(at, _)| *at <= now) {
            may += u64::from(adjusts.pop_front().unwrap().1);
        }
        if may > 0 {
            queue.push_back((now + journey, std::mem::take(&mut may)));
        }
        while queue.front().is_some_and(|(at, _)| *at <= now) {
            let bytes: u64 = queue.pop_front().unwrap().1;
            window.received(u32::try_from(bytes).unwrap(), ms(now)).unwrap();
            held += bytes;
            came[usize::try_from(now).unwrap()] += bytes;
        }
        if now % 5 == 0 {
            // A rest saves nothing up but for what a timer needs.
            taken = taken.max(rate * now.saturating_sub(10) / 1000);
            let allowed = (rate * now / 1000).saturating_sub(taken).min(held);
            window.consumed(u32::try_from(allowed).unwrap());
            (held, taken) = (held - allowed, taken + allowed);
        }
        if let Some(given) = window.due(ms(now)) {
            adjusts.push_back((now + journey, given));
        }
        assert!(window.is_sound());
    }
    let most = came[2000..].windows(100).map(|it| it.iter().sum()).max().unwrap();
    (came[2000..].iter().sum(), most)
}

#[test]
fn a_channel_that_is_held_to_a_rate_has_it_smoothly_near_and_far() {
    let share = share(256 << 20);
    for rate in [200_000, 1_000_000, 10_000_000] {
        for journey in [0, 20, 100] {
            let mut window = ReceiveWindow::new(windows(), &share).unwrap();
            let (all, most) = paced(&mut window, journey, rate);
            let (all, most) = (all * 100 / rate / 3, most * 100 / (rate / 10));
            assert!((90..=105).contains(&all), "{rate} {journey}: {all} % of the rate");
            // A window that a long path wants comes in with its return.
            let may = if journey < 100 { 170 } else { 300 };
            assert!(most <= may, "{rate} {journey}: {most} % of the rate in 100 ms");
        }
    }
    // Of a rate so low the window that channels begin with goes with its first use.
    let mut window = ReceiveWindow::new(windows(), &share).unwrap();
    paced(&mut window, 0, 10_000);
    assert_eq!((window.size(), window.excess), (16 * KB, 0));
    drop(window);
    assert_eq!(share.taken(), 0);
}

#[test]
fn a_path_of_200_ms_fills() {
    let share = share(1 << 30);
    let mut window = ReceiveWindow::new(Windows::default(), &share).unwrap();
    assert_eq!(window.size(), 64 * KB);
    // 100 MB/s: 20 MB are on their way at any time.
    let path = (ms(200), Duration::from_micros(328), Duration::from_micros(10));
    let first = run(&mut window, path, 3000);
    assert_eq!(window.size(), 32 << 20);
    assert!(first < ms(3500), "100 MB and all of the growth took {first:?}");
    let second = run(&mut window, path, 3000);
    assert!(second < ms(1300), "the next 100 MB took {second:?}");
}

#[test]
fn a_near_sender_that_now_and_then_stands_still_gets_no_larger_window() {
    let share = share(256 << 20);
    let mut window = ReceiveWindow::new(windows(), &share).unwrap();
    let mut now = ms(1000);
    for packet in 0..10_000 {
        // Others have the processor.
        now += if packet % 7 == 0 { ms(10) } else { Duration::from_micros(100) };
        window.received(STOPPED, now).unwrap();
        window.consumed(STOPPED);
        window.due(now);
    }
    assert!(window.size() <= 512 * KB, "{}", window.size());
}

#[test]
fn an_idle_window_gives_back_what_it_has_grown() {
    let share = share(256 << 20);
    let mut window = ReceiveWindow::new(windows(), &share).unwrap();
    run(&mut window, (ms(200), Duration::from_micros(330), ms(0)), 3000);
    assert_eq!(window.size(), 8192 * KB);
    // Half of the window at least is the peer's then.
    let mut now = ms(100_000);
    window.due(now);
    now += IDLE;
    window.rest(now);
    let grown = window.size();
    assert_eq!((grown, share.taken()), (window.left(), grown.try_into().unwrap()));
    // Keys that are typed: what they use up of what has grown is not given again.
    let mut typed = 0;
    while window.size() > 64 * KB {
        assert_eq!(window.size(), grown - typed);
        window.received(KB, now).unwrap();
        window.consumed(KB);
        typed += KB;
        now += IDLE;
        assert_eq!(window.due(now), None);
        assert!(window.is_sound());
    }
    for _ in 0..64 {
        window.received(KB, now).unwrap();
        window.consumed(KB);
        window.rest(now);
        window.due(now);
        now += IDLE;
    }
    assert_eq!((window.size(), share.taken()), (64 * KB, 64 * 1024));
    // And it grows anew. `run` begins at an earlier instant.
    window.watch = None;
    run(&mut window, (ms(200), Duration::from_micros(330), ms(0)), 3000);
    assert_eq!(window.size(), 8192 * KB);
}

#[test]
fn a_window_that_is_used_after_a_rest_is_kept() {
    let share = share(256 << 20);
    let mut window = ReceiveWindow::new(windows(), &share).unwrap();
    let path = (ms(200), Duration::from_micros(330), ms(0));
    run(&mut window, path, 3000);
    let grown = window.size();
    // `run` begins at the same instant again, which is as a rest of any length before it.
    window.given = Some(Duration::ZERO);
    window.rest(ms(20_000));
    window.given = Some(ms(1000));
    run(&mut window, path, 1000);
    assert!(window.size() >= grown / 2, "{}", window.size());
}

#[test]
fn more_than_the_window_is_told() {
    let mut window = ReceiveWindow::new(windows(), &share(1 << 20)).unwrap();
    assert_eq!(window.received(64 * KB + 1, ms(0)), Err(Beyond));
    window.received(64 * KB, ms(0)).unwrap();
    assert_eq!(window.received(1, ms(0)), Err(Beyond));
    assert_eq!(window.due(ms(0)), None, "nothing was consumed");
    window.consumed(32 * KB - 1);
    assert_eq!(window.due(ms(0)), None);
    window.consumed(u32::MAX);
    assert_eq!(window.due(ms(100)), Some(64 * KB));
}

#[test]
fn what_moves_much_has_the_usual_window_soon() {
    let mut window = ReceiveWindow::new(windows(), &share(4 << 20)).unwrap();
    let mut moved = 0;
    for packet in 1_u32.. {
        window.received(32 * KB, ms(0)).unwrap();
        window.consumed(32 * KB);
        window.due(Duration::from_micros(60) * packet);
        moved += 32 * KB;
        if window.size() == 256 * KB {
            break;
        }
    }
    assert!(moved <= 256 * KB, "{moved}");
}

#[test]
fn a_tight_budget_gives_small_windows_then_none_and_grown_ones_shrink() {
    let total = 3 << 20;
    let budget = Budget::new(total);
    let far = Share::new(&budget);
    let mut grown = ReceiveWindow::new(windows(), &far).unwrap();
    run(&mut grown, (ms(200), ms(1), ms(0)), 1000);
    let size = grown.size();
    assert!(size > 256 * KB && far.taken() <= total / 8, "{size}");
    let mut others = Vec::new();
    while let Some(window) = ReceiveWindow::new(windows(), &Share::new(&budget)) {
        others.push(window);
    }
    let least = others.iter().filter(|it| it.size() == 16 * KB).count();
    assert!(least >= 20 && others.len() - least >= 20, "{least} of {}", others.len());
    assert!(budget.taken() <= budget.most() && budget.most() - budget.taken() < 16 * 1024);
    run(&mut grown, (ms(200), ms(1), ms(0)), 1000);
    assert!(grown.size() < size && grown.is_sound());
    drop((grown, others));
    assert_eq!(budget.taken(), 0);
}
