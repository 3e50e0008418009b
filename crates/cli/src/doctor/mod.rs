//! `husk doctor`: what a node has of what husk needs, and what to do about the rest.
mod kernel;
mod runtime;
mod space;

use std::borrow::Cow;
use std::fmt;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use husk_terminal::page::{Page, Style, cell};
use serde::{Deserialize, Serialize};

use crate::inspect::Color;

/// How wide what a check is about may be.
const SUBJECT: usize = 14;

/// Look at what this node has of what husk needs; each finding with what to do about it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// containerd's program
    #[arg(long, value_name = "PROGRAM", default_value = "containerd")]
    containerd: PathBuf,
    /// containerd's configuration
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/containerd/config.toml"
    )]
    containerd_config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ok,
    /// husk works, but for something that some pods may ask for.
    Warning,
    /// husk does not work.
    Error,
}

/// What was found out.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// What it is about.
    subject: Cow<'static, str>,
    pub(crate) state: State,
    found: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, _) = self.state.mark();
        write!(f, "{mark}: {}: {}", self.subject, self.found)?;
        self.fix.iter().try_for_each(|fix| write!(f, ": {fix}"))
    }
}

impl State {
    fn mark(self) -> (&'static str, Style) {
        match self {
            Self::Ok => ("ok", Style::Green),
            Self::Warning => ("warning", Style::Yellow),
            Self::Error => ("error", Style::Red),
        }
    }
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            state: State::Ok,
            found: found.into(),
            fix: None,
        }
    }

    fn warning(subject: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            state: State::Warning,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    fn error(subject: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            state: State::Error,
            ..Self::warning(subject, found, fix)
        }
    }
}

/// # Errors
/// Standard output is closed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut findings = kernel::findings();
    findings.extend(runtime::findings(&args.containerd, &args.containerd_config));
    findings.extend(space::findings());
    let text = if args.json {
        serde_json::to_string_pretty(&findings)? + "\n"
    } else {
        page(&findings, args.color.wanted())
    };
    stdout().lock().write_all(text.as_bytes())?;
    let failed = findings.iter().any(|it| it.state == State::Error);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn page(findings: &[Finding], colours: bool) -> String {
    let mut page = Page::new(colours);
    for finding in findings {
        let (mark, style) = finding.state.mark();
        let subject = format!("{:SUBJECT$}", finding.subject);
        page.table(&[vec![
            cell(format!("{mark:7}")).style(style),
            cell(subject),
            cell(finding.found.clone()),
        ]]);
        if let Some(fix) = &finding.fix {
            page.sentence("           ", Style::Plain, fix);
        }
    }
    page.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_but_the_good_ones_says_what_to_do() {
        let findings = [
            Finding::ok("kernel", "6.1"),
            Finding::warning("cgroups", "v1", "boot with v2"),
            Finding::error("containerd", "none", "install it"),
        ];
        assert_eq!(
            page(&findings, false),
            "  ok       kernel          6.1\n  warning  cgroups         v1\n             boot with v2\n  error    \
             containerd      none\n             install it\n"
        );
        let json = serde_json::to_value(&findings).unwrap();
        assert_eq!(json[0]["state"], "ok");
        assert_eq!(json[2]["fix"], "install it");
    }
}
