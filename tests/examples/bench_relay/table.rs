//! What was measured, as a table for people and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::compare::{Row, SPREAD, median, spread};
use crate::floor::Floor;
use crate::metric::Metric;

/// All of one run.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    pub floors: Vec<Floor>,
    /// The machine and the options, as they are to be known later.
    pub about: Vec<(&'static str, String)>,
    /// Parts that did not come to an end, and why.
    pub failed: Vec<String>,
}

impl Report {
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (what, value) in &self.about {
            let _ = writeln!(text, "- {what}: {value}");
        }
        text.push('\n');
        if !self.rows.is_empty() {
            text.push_str(
                "| part | what | figure | tidegate | sshd | ratio | sshd's spread | wanted | |\n\
                 |---|---|---|---:|---:|---:|---:|---|---|\n",
            );
        }
        for row in &self.rows {
            text.push_str(&line(row));
        }
        if !self.floors.is_empty() {
            text.push_str(&self.floor_table());
        }
        for failed in &self.failed {
            let _ = writeln!(text, "\nFAILED: {failed}");
        }
        text
    }

    /// The floor of each cipher, and how many times it each relay took.
    fn floor_table(&self) -> String {
        let mut text = "\nThe floor, in CPU-s/GB, and each relay's figure by it.\n\n\
             | cipher | open and seal 32 KiB | TCP copy by 256 KiB (by 32 KiB) | floor | tidegate up | down | sshd up | down |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|\n"
            .to_owned();
        for floor in &self.floors {
            let _ = write!(
                text,
                "| {} | {:.3} | {:.3} ({:.3}) | {:.3} |",
                floor.cipher,
                floor.sealing,
                floor.copy,
                floor.small_copy,
                floor.sum()
            );
            for times in self.distances(floor).iter().flatten() {
                let _ = match times {
                    Some(times) => write!(text, " {times:.2} x |"),
                    None => write!(text, " - |"),
                };
            }
            text.push('\n');
        }
        text
    }

    /// By the floor: this relay's figures up and down, then sshd's.
    fn distances(&self, floor: &Floor) -> [[Option<f64>; 2]; 2] {
        let of = |direction: &str, sshd: bool| {
            let setting = format!("{} {direction}", floor.cipher);
            let row = self.rows.iter().find(|row| {
                row.part == "transfer" && row.metric == Metric::Cpu && row.setting == setting
            })?;
            let values = if sshd { &row.sshd } else { &row.relay };
            Some(median(values.clone()) / floor.sum())
        };
        [[of("up", false), of("down", false)], [of("up", true), of("down", true)]]
    }

    pub fn json(&self) -> Value {
        let about: serde_json::Map<String, Value> =
            self.about.iter().map(|(what, value)| ((*what).to_owned(), json!(value))).collect();
        let floors = self.floors.iter().map(|floor| {
            let [relay, sshd] = self.distances(floor);
            json!({
                "cipher": floor.cipher, "unit": Metric::Cpu.unit(), "openAndSeal": floor.sealing,
                "copy256KiB": floor.copy, "copy32KiB": floor.small_copy, "floor": floor.sum(),
                "tidegateByFloor": {"up": relay[0], "down": relay[1]},
                "sshdByFloor": {"up": sshd[0], "down": sshd[1]},
            })
        });
        json!({
            "about": about,
            "rows": self.rows.iter().map(object).collect::<Vec<_>>(),
            "floors": floors.collect::<Vec<_>>(),
            "failed": self.failed,
        })
    }
}

fn object(row: &Row) -> Value {
    let sshd = (!row.sshd.is_empty()).then(|| median(row.sshd.clone()));
    json!({
        "part": row.part, "setting": row.setting, "figure": row.metric.name(),
        "unit": row.metric.unit(), "tidegate": median(row.relay.clone()), "sshd": sshd,
        "ratio": row.ratio(), "conclusive": row.conclusive(),
        "sshdSpread": sshd.map(|_| spread(&row.sshd)), "attempts": row.attempts,
        "wanted": row.wanted.map(|wanted| wanted.to_string()), "verdict": row.verdict(),
        "note": row.note, "samples": {"tidegate": row.relay, "sshd": row.sshd},
    })
}

fn line(row: &Row) -> String {
    let show = |values: &[f64]| {
        let shown = digits(median(values.to_vec()));
        if values.is_empty() { "-".to_owned() } else { format!("{shown} {}", row.metric.unit()) }
    };
    let ratio = match row.ratio() {
        None => "-".to_owned(),
        Some(ratio) if row.conclusive() => format!("{ratio:.2}"),
        Some(ratio) => format!("({ratio:.2}) inconclusive"),
    };
    let scatter = if row.sshd.is_empty() {
        "-".to_owned()
    } else {
        let again =
            if row.attempts > 1 { format!(", run {} times", row.attempts) } else { String::new() };
        format!("{:.0} %{again}", spread(&row.sshd) * 100.0)
    };
    let wanted = row.wanted.map_or_else(String::new, |wanted| wanted.to_string());
    let said: Vec<&str> = [row.verdict().unwrap_or_default(), &row.note]
        .into_iter()
        .filter(|it| !it.is_empty())
        .collect();
    format!(
        "| {} | {} | {} | {} | {} | {ratio} | {scatter} | {wanted} | {} |\n",
        row.part,
        row.setting,
        row.metric.name(),
        show(&row.relay),
        show(&row.sshd),
        said.join("; ")
    )
}

/// Three digits, as long as they say something.
fn digits(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// The processor, how many, the kernel, the load and the programs.
pub fn machine() -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find(|line| line.starts_with("model name"));
    let model =
        model.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name.trim());
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let ssh = std::process::Command::new("ssh").arg("-V").output();
    let ssh = ssh.map(|told| String::from_utf8_lossy(&told.stderr).trim().to_owned());
    vec![
        (
            "machine",
            format!("{count} x {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        ),
        ("load before", read("/proc/loadavg").trim().to_owned()),
        ("OpenSSH", ssh.unwrap_or_default()),
        ("sshd's spread", format!("above {:.0} % it is inconclusive", SPREAD * 100.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Wanted;

    fn report() -> Report {
        let row = |metric, relay: &[f64], sshd: &[f64], wanted| Row {
            sshd: sshd.to_vec(),
            wanted,
            ..Row::alone("transfer", "aes128-gcm up", metric, relay.to_vec())
        };
        let quiet = [2.0, 2.1, 2.0];
        Report {
            rows: vec![
                row(Metric::Cpu, &[0.8], &quiet, Some(Wanted::ratio_at_most(0.4, 0.25))),
                row(Metric::Throughput, &[600.0], &[300.0, 500.0], None),
                row(Metric::CutWorst, &[80.0], &[], Some(Wanted::at_most(1000.0, 1000.0))),
            ],
            floors: vec![Floor {
                cipher: "aes128-gcm".to_owned(),
                sealing: 0.1,
                copy: 0.3,
                small_copy: 0.4,
            }],
            ..Report::default()
        }
    }

    #[test]
    fn the_table_says_what_is_met_missed_and_unknown() {
        let text = report().markdown();
        for wanted in [
            "| 0.80 CPU-s/GB | 2.00 CPU-s/GB | 0.40 | 5 % | ratio <= 0.4 (goal 0.25) | met |",
            "| 600 MB/s | 400 MB/s | (1.50) inconclusive | 50 % |",
            "| 80.0 ms | - | - | - | <= 1000 | goal met |",
            "| aes128-gcm | 0.100 | 0.300 (0.400) | 0.400 | 2.00 x | - | 5.00 x | - |",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
    }

    #[test]
    fn the_json_has_every_sample() {
        let json = report().json();
        assert_eq!(json["rows"][0]["ratio"], 0.4);
        assert_eq!(json["rows"][0]["verdict"], "met");
        assert_eq!(json["rows"][1]["conclusive"], false);
        assert_eq!(json["rows"][1]["samples"]["sshd"], json!([300.0, 500.0]));
        assert_eq!(json["rows"][2]["sshd"], Value::Null);
        assert_eq!(json["floors"][0]["tidegateByFloor"], json!({"up": 2.0, "down": null}));
    }
}
