//! What an examination came to, for readers and as JSON.

use std::fmt::Write;

use minillm_infer::number::megabytes;
use serde_json::{Map, Value, json};

use super::check::{ALLOWED_BYTES, Finding, Form, Group, Outcome};
use super::limits::Described;
use super::memory::{Growth, STEPS};
use crate::error::Error;

/// All that doctor found out about a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What it was, and what it can do.
    pub device: Described,
    /// One for each form of each check.
    pub outcomes: Vec<Outcome>,
    /// What the check of memory found.
    pub growth: Growth,
    /// Wall time of all of it.
    pub seconds: f64,
}

impl Report {
    /// Whether nothing was found wrong.
    pub fn is_ok(&self) -> bool {
        self.wrong().next().is_none()
    }

    /// What was found wrong, in the order of the checks.
    pub fn wrong(&self) -> impl Iterator<Item = (&Outcome, &Finding)> {
        self.outcomes.iter().filter_map(|outcome| Some((outcome, outcome.finding.as_ref()?)))
    }

    /// The first finding as an error, with the number of all; `None` if there is none.
    pub fn error(&self) -> Option<Error> {
        let all = self.wrong().count();
        let (outcome, finding) = self.wrong().next()?;
        let more = if all > 1 { format!("; {all} results are wrong in all") } else { String::new() };
        Some(Error::Unsound {
            device: self.device.name.clone(),
            problem: format!("{}: {}{more}", subject(outcome), finding.problem),
            hint: finding.hint.clone(),
        })
    }

    /// One line for each group, then each finding with its hint.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<16} {value}"); // a String takes everything
        };
        for (name, value) in self.device.lines() {
            line(name, &value);
        }
        for group in Group::ALL {
            line(group.name(), &self.verdict(group));
        }
        for (outcome, Finding { problem, hint }) in self.wrong() {
            let _ = write!(text, "\nWRONG: {}: {problem}\n  hint: {hint}\n", subject(outcome));
        }
        let _ = writeln!(text, "\n{} in {:.1} s", if self.is_ok() { "all is well" } else { "not sound" }, self.seconds);
        text
    }

    fn verdict(&self, group: Group) -> String {
        let outcomes: Vec<_> = self.outcomes.iter().filter(|outcome| outcome.group == group).collect();
        let wrong = outcomes.iter().filter(|outcome| outcome.finding.is_some()).count();
        let seconds: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
        if wrong > 0 {
            return format!("WRONG  {seconds:>5.1} s  {wrong} of {}", outcomes.len());
        }
        if group == Group::Memory {
            return format!("ok     {seconds:>5.1} s  {}", self.growth.in_words());
        }
        let compared: Vec<_> = outcomes.iter().filter(|outcome| outcome.form == Form::Both).collect();
        let shares = outcomes.iter().map(|outcome| outcome.error.unwrap_or(f64::NAN) / outcome.tolerance);
        let alone = outcomes.len() - compared.len();
        format!(
            "ok     {seconds:>5.1} s  {alone} compared with stored values, {} with each other; at most {:.0} % of the tolerance",
            compared.len(),
            100.0 * shares.fold(0.0, f64::max)
        )
    }

    /// What `--json` prints.
    pub fn to_json(&self) -> Value {
        let checks: Vec<_> = self.outcomes.iter().map(outcome_to_json).collect();
        let mut losses = Map::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.group == Group::Training) {
            let values: Vec<_> = outcome.parts.iter().flat_map(|part| part.values.iter().copied()).collect();
            if outcome.form != Form::Both {
                losses.insert(format!("{}, {}", outcome.name, outcome.form.name()), json!(values));
            }
        }
        json!({
            "device": self.device.to_json(),
            "checks": checks,
            "losses": losses,
            "memory_bytes": {
                "steps": STEPS,
                "resident": self.growth.resident,
                "on_device": self.growth.on_device,
                "allowed_growth": ALLOWED_BYTES,
            },
            "seconds": self.seconds,
            "ok": self.is_ok(),
        })
    }
}

/// A check and its form in words.
pub fn subject(outcome: &Outcome) -> String {
    match (outcome.group, outcome.form) {
        (Group::Memory, _) => "memory".to_owned(),
        (_, Form::Both) => format!("{}, fast form beside the readable one", outcome.name),
        (_, form) => format!("{}, {} form", outcome.name, form.name()),
    }
}

fn outcome_to_json(outcome: &Outcome) -> Value {
    let mut entry = json!({
        "name": outcome.name,
        "form": outcome.form.name(),
        "ok": outcome.finding.is_none(),
        "error": outcome.error,
        "tolerance": outcome.tolerance,
        "seconds": outcome.seconds,
    });
    if let Some(Finding { problem, hint }) = &outcome.finding {
        entry["problem"] = json!(problem);
        entry["hint"] = json!(hint);
        entry["way_out"] = json!(hint); // its name up to 0.1
    }
    entry
}

impl Growth {
    fn in_words(&self) -> String {
        let span = format!("from step {} to step {}", STEPS[0], STEPS[1]);
        let grown = |[before, after]: [u64; 2]| format!("grew by {}", megabytes(after.saturating_sub(before) as usize));
        let on_device = self.on_device.map(|pair| format!(", on the device {}", grown(pair))).unwrap_or_default();
        match self.resident {
            Some(pair) => format!("{} {span}{on_device} (allowed {})", grown(pair), megabytes(ALLOWED_BYTES as usize)),
            None => format!("of the process not known on this system{on_device}"),
        }
    }
}
