//! What containerd publishes, by `ctr events`.
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::command::{DEADLINE, poll, until};
use crate::ctr::{Ctr, unique};

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its topic, such as `/tasks/start`.
    pub topic: String,
    /// What it says.
    pub body: Value,
}

/// A subscription to all events of the containerd namespace of this run.
#[derive(Debug)]
pub struct Events {
    child: Child,
    seen: Arc<Mutex<Vec<Event>>>,
}

impl Events {
    /// Subscribes; events from now on are seen.
    ///
    /// # Panics
    /// If containerd publishes nothing.
    #[must_use]
    pub fn subscribe(ctr: &Ctr<'_>) -> Self {
        let mut command = ctr.command();
        let mut child = command
            .arg("events")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let events = Self {
            child,
            seen: Arc::clone(&seen),
        };
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(event) = parse(&line) {
                    seen.lock().unwrap().push(event);
                }
            }
        });
        // ctr does not say when it is subscribed: make events until one arrives.
        let mark = unique("mark");
        until("containerd publishes events", || {
            ctr.run(&[
                "namespaces",
                "label",
                ctr.namespace(),
                &format!("mark={mark}"),
            ]);
            !events.seen.lock().unwrap().is_empty()
        });
        events
    }

    /// The task events that name this container so far.
    #[must_use]
    pub fn of(&self, container: &str) -> Vec<Event> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|event| event.topic.starts_with("/tasks/"))
            .filter(|event| event.body["container_id"] == container)
            .cloned()
            .collect()
    }

    /// The topics of this container's task events, without `/tasks/`, once the last one is there.
    ///
    /// # Panics
    /// If it never is.
    #[must_use]
    #[track_caller]
    pub fn topics_until(&self, container: &str, last: &str) -> Vec<String> {
        let topics = || -> Vec<String> {
            let events = self.of(container);
            let topics = events
                .iter()
                .map(|event| event.topic.replace("/tasks/", ""));
            topics.collect()
        };
        let published = poll(DEADLINE, || {
            let topics = topics();
            topics.iter().any(|topic| topic == last).then_some(topics)
        });
        published.unwrap_or_else(|| panic!("{container} published {:?}, not {last}", topics()))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `DATE TIME ZONE NAMESPACE TOPIC JSON`.
fn parse(line: &str) -> Option<Event> {
    let (head, body) = line.split_once(" {")?;
    Some(Event {
        topic: head.split(' ').next_back()?.to_owned(),
        body: serde_json::from_str(&format!("{{{body}")).ok()?,
    })
}
