//! The soak: `just soak`, or `just soak 120s`. See docs/soak.md.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidegate_tests::soak::{self, Plan, Sample, plot};

/// A relay under a thousand terminals, staff that come and go, and hostile peers, for long
#[derive(Debug, Parser)]
struct Args {
    /// How long the load lasts: 30m, 120s
    #[arg(default_value = "30m", value_parser = duration)]
    lasting: Duration,
    /// Terminals that stay
    #[arg(long)]
    terminals: Option<usize>,
    /// Sessions of staff at once
    #[arg(long)]
    staff: Option<usize>,
    /// Hostile peers of each kind at once
    #[arg(long)]
    hostile: Option<usize>,
    /// Where samples.csv, verdict.txt and soak.svg go
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is no duration; write 30m or 120s");
    let split =
        text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(wrong()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut plan = Plan::long(tidegate_draw::seed(), args.lasting);
    plan.terminals = args.terminals.unwrap_or(plan.terminals);
    plan.staff = args.staff.unwrap_or(plan.staff);
    plan.hostile = args.hostile.unwrap_or(plan.hostile);
    let outcome = soak::run(&plan);

    let mut csv = Sample::COLUMNS.to_owned() + "\n";
    for sample in &outcome.samples {
        csv += &(sample.row() + "\n");
    }
    std::fs::create_dir_all(&args.out).expect("the folder for what is written");
    let write = |name: &str, text: &str| {
        let path = args.out.join(name);
        std::fs::write(&path, text).expect("a file of the soak");
        println!("{}", path.display());
    };
    let report = outcome.report(&plan);
    print!("{report}");
    write("samples.csv", &csv);
    write("soak.svg", &plot::svg(&plan, &outcome));
    write("verdict.txt", &report);
    if outcome.verdict.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
