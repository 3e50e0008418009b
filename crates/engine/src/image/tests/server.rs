//! A registry on the loopback that can be told to misbehave.
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::build::Blobs;

/// How it misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Good,
    /// Blobs have one byte changed.
    Alters,
    /// Blobs end halfway, though their length was announced in full.
    Truncates,
    /// The first answer for each blob ends halfway.
    Stumbles,
    /// Blobs are longer than their descriptors say.
    Adds,
    /// Everything is answered with 500.
    Broken,
    /// Wants `user:password`.
    Basic,
    /// Wants a token, which `/token` gives to anybody.
    Bearer,
    /// Wants a login that nobody has.
    Closed,
    /// Takes its time for each blob.
    Slow,
}

struct State {
    blobs: Blobs,
    tags: BTreeMap<String, String>,
    mood: Mood,
    address: SocketAddr,
    log: Mutex<Vec<String>>,
}

/// A running registry; its threads end with the test's process.
pub(super) struct Server(Arc<State>);

impl Server {
    /// Serves blobs; each tag leads to a digest, whatever the repository.
    pub(super) fn start(blobs: &Blobs, tags: &[(&str, &serde_json::Value)], mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tags = tags
            .iter()
            .map(|(tag, to)| ((*tag).to_owned(), to["digest"].as_str().unwrap().to_owned()))
            .collect();
        let state = Arc::new(State {
            blobs: blobs.clone(),
            tags,
            mood,
            address: listener.local_addr().unwrap(),
            log: Mutex::default(),
        });
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                thread::spawn(move || state.serve(stream));
            }
        });
        Self(state)
    }

    /// A name for an image of this registry.
    pub(super) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.0.address)
    }

    /// The paths asked for since the last call.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.log.lock().unwrap())
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(request)) = lines.next() else {
            return;
        };
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let login = lines
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned));
        let again = {
            let mut log = self.log.lock().unwrap();
            log.push(path.clone());
            log.iter().filter(|asked| **asked == path).count() > 1
        };
        let (status, headers, body) = self.answer(&path, login.as_deref());
        let mut body = body;
        let mut length = body.len();
        if path.contains("/blobs/") && status.starts_with("200") {
            match self.mood {
                Mood::Alters => *body.last_mut().unwrap() ^= 1,
                Mood::Stumbles if again => {}
                Mood::Truncates | Mood::Stumbles => body.truncate(length / 2),
                Mood::Adds => {
                    body.push(b'!');
                    length += 1;
                }
                Mood::Slow => thread::sleep(Duration::from_millis(200)),
                _ => {}
            }
        }
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
        );
        // A client that has seen enough hangs up.
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&body));
    }

    fn answer(&self, path: &str, login: Option<&str>) -> (&'static str, String, Vec<u8>) {
        let address = self.address;
        let (wanted, challenge) = match self.mood {
            Mood::Broken => return ("500 Oops", String::new(), b"out of order".to_vec()),
            Mood::Basic | Mood::Closed => {
                let wanted = (self.mood == Mood::Basic).then_some("Basic dXNlcjpwYXNzd29yZA==");
                (Some(wanted), "Basic realm=\"here\"".to_owned())
            }
            Mood::Bearer => {
                let realm = format!("Bearer realm=\"http://{address}/token\",service=\"here\"");
                (Some(Some("Bearer sesame")), realm)
            }
            _ => (None, String::new()),
        };
        if path.starts_with("/token") {
            return ("200 OK", String::new(), br#"{"token": "sesame"}"#.to_vec());
        }
        if let Some(wanted) = wanted
            && (wanted.is_none() || login != wanted)
        {
            let header = format!("WWW-Authenticate: {challenge}\r\n");
            return ("401 Unauthorized", header, Vec::new());
        }
        if path == "/v2/" {
            return ("200 OK", String::new(), b"{}".to_vec());
        }
        let (name, manifest) = match (path.split_once("/manifests/"), path.split_once("/blobs/")) {
            (Some((_, name)), _) => (name, true),
            (_, Some((_, name))) => (name, false),
            _ => return ("404 Not Found", String::new(), Vec::new()),
        };
        let digest = self.tags.get(name).map_or(name, String::as_str);
        match self.blobs.by_digest.get(digest) {
            Some(bytes) => ("200 OK", String::new(), bytes.clone()),
            None if manifest => {
                let body =
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                ("404 Not Found", String::new(), body.into())
            }
            None => ("404 Not Found", String::new(), b"no such blob".to_vec()),
        }
    }
}
