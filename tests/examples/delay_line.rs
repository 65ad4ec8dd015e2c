//! A long line on one machine, for a try by hand: `delay_line --to 127.0.0.1:5938 --round-trip 200`
//! listens on a loopback port and hands on each byte 100 ms after it came, both ways.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use tidegate_tests::delay::DelayLine;

#[derive(Parser)]
struct Args {
    /// Where the bytes go
    #[arg(long)]
    to: SocketAddr,
    /// Milliseconds there and back
    #[arg(long)]
    round_trip: u64,
    /// Where to listen; port 0 is any
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

fn main() {
    let args = Args::parse();
    let line = DelayLine::listen(args.listen, args.to, Duration::from_millis(args.round_trip));
    println!("127.0.0.1:{} leads to {}; end with Ctrl-C", line.port(), args.to);
    loop {
        std::thread::park();
    }
}
