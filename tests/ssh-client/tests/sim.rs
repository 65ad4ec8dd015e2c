//! The simulation: a few seconds of it, or with TIDEGATE_LONG millions of steps (`just ssh-sim`).

use std::time::Instant;

use tidegate_ssh_client::sim::{Tally, run};

#[test]
fn a_server_and_a_client_get_along_whatever_happens() {
    let long = std::env::var_os("TIDEGATE_LONG").is_some();
    let usual = if long { 20_000_000 } else { 150_000 };
    let steps = std::env::var("TIDEGATE_SIM_STEPS");
    let steps = steps.map_or(usual, |text| text.parse().expect("a number"));
    let seed = tidegate_draw::seed();
    let begun = Instant::now();
    let tally = run(seed, steps);
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "some millions fit an f64")]
    let rate = tally.steps as f64 / seconds;
    println!("{tally:#?}\n{rate:.0} steps/s");
    let Tally { connections, rested, exchanges, channels, bytes, in_place, replies, .. } = tally;
    assert!(rested > 0 && exchanges > connections && channels > connections);
    assert!(bytes > 1 << 20 && in_place > 0 && replies > 0, "it did next to nothing");
}
