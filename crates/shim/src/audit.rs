//! Puts what plugins answer, and what the handler refuses, on the node's audit record.
use husk_audit::{Questions, Writer};
use husk_plugin_host::recorded::{Came, Recorded};
use husk_plugin_host::subject::{self, Question};
use husk_plugin_host::{Decision, Denied, Outcome};
use husk_scope::audit::{Answer, Line, Pod};
use husk_scope::config::{self, OnError, Record};
use log::warn;

use crate::failure::Failure;

/// The record, as one pod's shim writes to it.
pub(crate) struct Audit {
    writer: Writer,
    questions: Option<Questions>,
}

impl Audit {
    /// The record of these settings; it is opened at the first line.
    pub(crate) fn new(settings: &config::Audit) -> Self {
        let keeps = settings.record == Record::Questions;
        Self {
            writer: Writer::new(settings),
            questions: keeps.then(|| Questions::new(&settings.dir, settings.max_questions)),
        }
    }

    /// Whether questions are kept, and if so, whether with the values of environments.
    pub(crate) fn keeps(&self) -> Option<bool> {
        let env = self.writer.settings().record_env;
        self.questions.as_ref().map(|_| env)
    }

    /// Keeps a question; with `anew` in the place of what was answered to it before. Blocks. That it is
    /// not kept is logged, and changes nothing else.
    fn keep(&self, question: Option<&Recorded>, anew: bool) {
        let (Some(questions), Some(question)) = (&self.questions, question) else {
            return;
        };
        let kept = serde_json::to_vec(question)
            .map_err(|error| error.to_string())
            .and_then(|json| {
                let kept = questions.keep(&question.input, &json, anew);
                kept.map_err(|error| error.to_string())
            });
        if let Err(error) = kept {
            warn!("{error}");
        }
    }

    /// Records what plugins answered. Blocks.
    ///
    /// # Errors
    /// It could not be recorded, and the handler says that this refuses what was asked about.
    pub(crate) fn record<T>(
        &self,
        pod: &subject::Pod,
        outcome: &Outcome<T>,
    ) -> Result<(), Failure> {
        let answers = outcome.decisions.iter();
        let mut lines: Vec<Line> = answers.map(|said| line_of(pod, said)).collect();
        lines.extend(together(pod, outcome));
        self.keep(outcome.recorded.as_deref(), false);
        self.write(&mut lines)
    }

    /// Records a refusal that is the handler's: its ceiling's, say. Blocks.
    pub(crate) fn refused(
        &self,
        pod: &subject::Pod,
        event: &str,
        container: Option<String>,
        question: Option<&Question<'_>>,
        reason: &str,
    ) {
        if let (Some(question), Some(env)) = (question, self.keeps()) {
            let kept = Recorded::of(pod, question, env, Came::refused(reason));
            self.keep(kept.ok().as_ref(), true);
        }
        let line = Line {
            pod: identity(pod),
            container,
            event: event.to_owned(),
            answer: Answer::Denied,
            reason: Some(reason.to_owned()),
            counted: true,
            ..Line::default()
        };
        // It is refused anyway.
        let _ = self.write(&mut [line]);
    }

    fn write(&self, lines: &mut [Line]) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.writer.append(lines);
        if let Err(error) = self.writer.to_journal(lines) {
            warn!("the journal has not all lines of the audit record: {error}");
        }
        let Err(error) = written else {
            return Ok(());
        };
        warn!("{error}");
        match self.writer.settings().on_error {
            OnError::Ignore => Ok(()),
            OnError::Deny => Err(Failure::denied(format!(
                "what the policies answer cannot be recorded, and [audit] says on-error = \"deny\": \
                 {error}"
            ))),
        }
    }
}

fn identity(pod: &subject::Pod) -> Pod {
    Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        id: pod.id.clone(),
    }
}

fn line_of(pod: &subject::Pod, said: &Decision) -> Line {
    let words = Some(said.answer.clone());
    let (reason, decided) = match said.verdict {
        Answer::Denied | Answer::Failed => (words, None),
        Answer::Scopes | Answer::Links | Answer::Edited => (None, words),
        Answer::Admitted => (None, None),
    };
    Line {
        time: String::new(),
        pod: identity(pod),
        container: said.container.clone(),
        event: said.question.to_owned(),
        plugin: Some(said.plugin.clone()),
        digest: said.digest.clone(),
        answer: said.verdict,
        reason,
        decided,
        counted: said.counted,
        micros: said.micros,
        input: said.input.clone(),
        exec: said.exec.clone(),
        lost: 0,
    }
}

/// What the plugins' answers came to, where each alone would do and all together do not.
fn together<T>(pod: &subject::Pod, outcome: &Outcome<T>) -> Option<Line> {
    let reason = match &outcome.result {
        Err(denied @ (Denied::Conflict { .. } | Denied::Links(_))) => denied.to_string(),
        _ => return None,
    };
    let last = outcome.decisions.last()?;
    Some(Line {
        pod: identity(pod),
        container: last.container.clone(),
        event: last.question.to_owned(),
        answer: Answer::Denied,
        reason: Some(reason),
        counted: true,
        input: last.input.clone(),
        ..Line::default()
    })
}
