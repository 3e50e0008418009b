//! How often what was answered.
use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use husk_scope::audit::{Answer, Line};
use husk_terminal::page::{Page, Style, cell};
use serde::Serialize;

/// How many different rows there may be: reasons are the plugins' own words.
const ROWS: usize = 10_000;

/// The reason in the row for all that has no row of its own.
const FURTHER: &str = "(further reasons)";

#[derive(Default)]
pub(super) struct Summary {
    rows: BTreeMap<Key, Row>,
}

/// What makes a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Key {
    /// None: the handler's own refusals.
    plugin: Option<String>,
    answer: Answer,
    counted: bool,
    event: String,
    reason: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Row {
    lines: u64,
    #[serde(serialize_with = "count")]
    pods: HashSet<String>,
    last: String,
}

/// A row with what makes it.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    key: &'a Key,
    #[serde(flatten)]
    row: &'a Row,
}

fn count<S: serde::Serializer>(pods: &HashSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
    pods.len().serialize(serializer)
}

impl Summary {
    pub(super) fn add(&mut self, line: Line) {
        let mut key = Key {
            plugin: line.plugin,
            answer: line.answer,
            counted: line.counted,
            event: line.event,
            reason: line.reason,
        };
        if self.rows.len() >= ROWS && !self.rows.contains_key(&key) {
            key.reason = key.reason.map(|_| FURTHER.to_owned());
        }
        let row = self.rows.entry(key).or_default();
        row.lines = row.lines.saturating_add(1);
        row.pods.insert(line.pod.id);
        row.last = line.time.max(std::mem::take(&mut row.last));
    }

    /// The rows, the most frequent first.
    fn sorted(&self) -> Vec<Whole<'_>> {
        let rows = self.rows.iter();
        let mut rows: Vec<_> = rows.map(|(key, row)| Whole { key, row }).collect();
        rows.sort_by_key(|whole| std::cmp::Reverse(whole.row.lines));
        rows
    }

    pub(super) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.sorted())?)
    }

    pub(super) fn table(&self) -> String {
        let header = [
            "LINES", "PODS", "PLUGIN", "ANSWER", "EVENT", "LAST", "REASON",
        ];
        let mut rows = vec![header.map(cell).to_vec()];
        for Whole { key, row } in self.sorted() {
            let weight = if key.counted { "" } else { ", not counted" };
            let style = match (key.answer.refuses(), key.counted) {
                (true, true) => Style::Red,
                (true, false) => Style::Yellow,
                (false, _) => Style::Plain,
            };
            rows.push(vec![
                cell(row.lines.to_string()).right(),
                cell(row.pods.len().to_string()).right(),
                cell(key.plugin.as_deref().unwrap_or("the handler")),
                cell(format!("{}{weight}", key.answer)).style(style),
                cell(&key.event),
                cell(row.last.get(..19).unwrap_or(&row.last)),
                cell(key.reason.as_deref().unwrap_or_default()),
            ]);
        }
        let colours =
            husk_terminal::wants_colour(std::io::IsTerminal::is_terminal(&std::io::stdout()));
        let mut page = Page::new(colours);
        page.table(&rows);
        page.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pod: u64, reason: &str) -> Line {
        Line {
            time: format!("2026-03-04T05:06:0{}.000000Z", pod % 10),
            pod: husk_scope::audit::Pod {
                id: pod.to_string(),
                ..Default::default()
            },
            event: "scope-container".into(),
            plugin: Some("gate".into()),
            answer: Answer::Denied,
            reason: Some(reason.into()),
            counted: true,
            ..Line::default()
        }
    }

    #[test]
    fn lines_are_counted_by_plugin_and_reason() {
        let mut summary = Summary::default();
        for (pod, reason) in [(1, "hostPID"), (3, "hostPID"), (2, "hostPID"), (3, "root")] {
            summary.add(line(pod, reason));
        }
        summary.add(line(3, "hostPID"));
        let table = summary.table();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let time = "2026-03-04T05:06:03";
        assert_eq!(
            rows[1],
            [
                "4",
                "3",
                "gate",
                "denied",
                "scope-container",
                time,
                "hostPID"
            ]
        );
        assert_eq!(
            rows[2],
            ["1", "1", "gate", "denied", "scope-container", time, "root"]
        );
        let json: serde_json::Value = serde_json::from_str(&summary.json().unwrap()).unwrap();
        assert_eq!(json[0]["lines"], 4);
        assert_eq!(json[0]["pods"], 3);
        assert_eq!(json[0]["reason"], "hostPID");
    }

    #[test]
    fn reasons_without_end_have_one_row() {
        let mut summary = Summary::default();
        for pod in 0..ROWS as u64 + 10 {
            summary.add(line(pod, &format!("reason {pod}")));
        }
        assert_eq!(summary.rows.len(), ROWS + 1);
        assert_eq!(summary.sorted()[0].key.reason.as_deref(), Some(FURTHER));
        assert_eq!(summary.sorted()[0].row.lines, 10);
    }
}
