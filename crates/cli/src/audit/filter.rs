//! Which lines are asked for.
use std::time::Duration;

use husk_audit::{parse, text};
use husk_scope::Offset;
use husk_scope::audit::{Answer, Line};
use time::OffsetDateTime;

#[derive(clap::Args)]
pub(super) struct Filter {
    /// About this pod: its name, NAMESPACE/NAME, uid, or the beginning of its id
    #[arg(long)]
    pod: Vec<String>,
    /// About the container of this name
    #[arg(long)]
    container: Vec<String>,
    /// Answers of this plugin
    #[arg(long)]
    plugin: Vec<String>,
    /// Such answers: admitted, scopes, links, edited, denied or failed
    #[arg(long)]
    answer: Vec<Answer>,
    /// Answers to this question or hook, such as exec-starting
    #[arg(long)]
    event: Vec<String>,
    /// From this time on: 2026-03-04T05:06:07Z, 2026-03-04, or 90m, 12h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<OffsetDateTime>,
    /// Until before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<OffsetDateTime>,
}

impl Filter {
    pub(super) fn since(&self) -> Option<OffsetDateTime> {
        self.since
    }

    pub(super) fn admits(&self, line: &Line) -> bool {
        // Times on record are equally long: their text sorts as they do.
        any(&self.pod, |pod| is_about(line, pod))
            && any(&self.container, |name| {
                line.container.as_ref() == Some(name)
            })
            && any(&self.plugin, |name| line.plugin.as_ref() == Some(name))
            && any(&self.answer, |answer| line.answer == *answer)
            && any(&self.event, |event| line.event == *event)
            && self.since.is_none_or(|since| line.time >= text(since))
            && self.until.is_none_or(|until| line.time < text(until))
    }
}

/// Whether one of those that are wanted is there; nothing wanted is everything.
fn any<T>(wanted: &[T], is_there: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is_there)
}

fn is_about(line: &Line, wanted: &str) -> bool {
    let pod = &line.pod;
    let full = wanted.split_once('/');
    let is_full =
        full.is_some_and(|(namespace, name)| pod.namespace == namespace && pod.name == name);
    is_full || pod.name == wanted || pod.uid == wanted || pod.id.starts_with(wanted)
}

/// A time, a date, or how long ago.
pub(crate) fn time(word: &str) -> Result<OffsetDateTime, String> {
    let date = || parse(&format!("{word}T00:00:00Z"));
    if let Some(time) = parse(word).or_else(date) {
        return Ok(time);
    }
    let ago = word.parse::<Offset>().ok();
    let ago = ago.and_then(|ago| Some(Duration::new(u64::try_from(ago.secs).ok()?, ago.nanosecs)));
    let then = ago.and_then(|ago| OffsetDateTime::now_utc().checked_sub(ago.try_into().ok()?));
    then.ok_or_else(|| {
        String::from("it is a time such as 2026-03-04T05:06:07Z, a date, or how long ago: 90m, 7d")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use husk_scope::audit::Pod;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(args: &[&str]) -> Filter {
        Alone::parse_from([&["audit"], args].concat()).filter
    }

    fn line() -> Line {
        Line {
            time: "2026-03-04T05:06:07.000000Z".into(),
            pod: Pod {
                namespace: "prod".into(),
                name: "web".into(),
                uid: "u-1".into(),
                id: "abcdef".into(),
            },
            container: Some("app".into()),
            event: "exec-starting".into(),
            plugin: Some("gate".into()),
            answer: Answer::Denied,
            ..Line::default()
        }
    }

    #[test]
    fn each_option_narrows_and_each_of_its_values_widens() {
        for (args, admitted) in [
            (&[][..], true),
            (&["--pod=web"], true),
            (&["--pod=prod/web"], true),
            (&["--pod=test/web"], false),
            (&["--pod=u-1"], true),
            (&["--pod=abc"], true),
            (&["--pod=bcd"], false),
            (&["--pod=other", "--pod=web"], true),
            (&["--pod=web", "--container=other"], false),
            (&["--container=app", "--plugin=gate"], true),
            (&["--answer=failed", "--answer=denied"], true),
            (&["--answer=admitted"], false),
            (&["--event=exec-starting"], true),
            (&["--event=container-creating"], false),
            (&["--since=2026-03-04T05:06:07Z"], true),
            (&["--since=2026-03-04T06:06:07.5+01:00"], false),
            (&["--until=2026-03-04T05:06:07Z"], false),
            (&["--since=2026-03-04", "--until=2026-03-05"], true),
            (&["--since=1h"], false),
        ] {
            assert_eq!(filter(args).admits(&line()), admitted, "{args:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for word in ["yesterday", "-1h", "2026-13-01", "", "99999999999999d"] {
            assert!(time(word).is_err(), "{word}");
        }
    }
}
