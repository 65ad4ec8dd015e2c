//! The soak in the little time that CI has: each byte, each cut, and the way back to the start. Growth
//! takes `just soak`.

use tidegate_tests::soak::{self, Plan};

#[test]
fn a_short_soak_loses_no_byte_cuts_on_time_and_leaves_nothing() {
    let plan = Plan::short(tidegate_draw::seed());
    let outcome = soak::run(&plan);
    println!("{}", outcome.report(&plan));
    assert_eq!(outcome.verdict.broken, Vec::<String>::new());
}
