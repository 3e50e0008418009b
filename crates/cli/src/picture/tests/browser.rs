//! What a browser makes of pictures: measured where Chromium is installed (Debian: `chromium`).
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::super::layout::Layout;
use super::super::model::Picture;
use super::super::{arrange, page, svg};
use super::pods::{hostile, mixed, pod, usual};

/// How long the browser may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures every text and box and writes what is wrong, or `all is well`.
const MEASURE: &str = r#"
const wrong = [];
const svg = document.querySelector("svg");
const canvas = svg.viewBox.baseVal;
const boxes = list => [...list].map(node => ({node, box: node.getBBox()}));
const name = ({node}) => node.getAttribute("class") + " " + JSON.stringify(node.firstChild?.data ?? node.textContent);
const overlap = (a, b) => a.x < b.x + b.width - .5 && b.x < a.x + a.width - .5 && a.y < b.y + b.height - .5 && b.y < a.y + a.height - .5;
const inside = (a, b) => a.x >= b.x - .5 && a.y >= b.y - .5 && a.x + a.width <= b.x + b.width + .5 && a.y + a.height <= b.y + b.height + .5;
const texts = boxes(svg.querySelectorAll("text"));
if (texts.length !== rooms.length) wrong.push(`${texts.length} texts, ${rooms.length} rooms`);
texts.forEach((text, index) => {
  const [x, , w] = rooms[index];
  if (!inside(text.box, canvas)) wrong.push(name(text) + " leaves the canvas");
  if (text.box.x < x - .5 || text.box.x + text.box.width > x + w + .5) wrong.push(name(text) + " leaves its room");
  // A line of text is higher than its letters: two thirds of it is what one sees.
  text.seen = {x: text.box.x, width: text.box.width, y: text.box.y + text.box.height / 6, height: text.box.height * 2 / 3};
});
texts.forEach((one, index) => texts.slice(index + 1).forEach(other => {
  if (overlap(one.seen, other.seen)) wrong.push(name(one) + " overlaps " + name(other));
}));
for (const kind of [".card", ".band", ".chip", ".badge", ".dot"]) {
  const all = boxes(svg.querySelectorAll(kind));
  all.forEach((one, index) => {
    if (!inside(one.box, canvas)) wrong.push(name(one) + " leaves the canvas");
    all.slice(index + 1).forEach(other => {
      if (overlap(one.box, other.box)) wrong.push(name(one) + " overlaps " + name(other));
    });
  });
  if (kind === ".band" || kind === ".chip") for (const text of texts) for (const one of all)
    if (overlap(text.seen, one.box) && !inside(text.seen, one.box)) wrong.push(name(text) + " is half in " + name(one));
}
const parsed = new DOMParser().parseFromString(source, "image/svg+xml");
if (parsed.querySelector("parsererror")) wrong.push("it is no XML: " + parsed.querySelector("parsererror").textContent);
const known = ["svg", "title", "desc", "style", "rect", "text", "polyline", "polygon"];
for (const node of parsed.querySelectorAll("*")) if (!known.includes(node.localName)) wrong.push("an element " + node.localName);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const light = colour => colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + +part, 0) / 765;
const paper = light(getComputedStyle(svg.querySelector(".paper")).fill);
if (dark !== paper < .5) wrong.push("the paper is of the other scheme");
for (const node of svg.querySelectorAll("text.name, text.title, text.kind, text.dim"))
  if (Math.abs(light(getComputedStyle(node).fill) - paper) < .3) wrong.push(node.textContent + " can hardly be read");
document.body.textContent = "RESULT " + (dark ? "dark" : "light") + ": " + (wrong.length ? wrong.join("\n") : "all is well");
"#;

fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let is_there = |name: &&str| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    let found = names.into_iter().find(is_there);
    if found.is_none() {
        eprintln!("SKIPPED: no browser has measured the pictures; apt-get install chromium");
    }
    found
}

/// What is there after the scripts of a page have run.
fn dom(chromium: &str, file: &Path, dark: bool) -> String {
    let profile = tempfile::tempdir().unwrap();
    let out = profile.path().join("dom");
    let mut child = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            profile.path().join("profile").display()
        ))
        .args(dark.then_some("--blink-settings=preferredColorScheme=0"))
        .arg(format!("file://{}", file.display()))
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "{chromium} has not shown {} in {PATIENCE:?}",
                file.display()
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    fs::read_to_string(out).unwrap()
}

fn rooms(layout: &Layout) -> String {
    let mut rooms = String::from("[");
    for text in &layout.texts {
        let _ = write!(rooms, "[{},{},{}],", text.room.x, text.room.y, text.room.w);
    }
    rooms + "]"
}

fn measured(chromium: &str, picture: &Picture, dark: bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    let document = svg(picture);
    let rooms = rooms(&arrange(picture));
    // `</` would end the script.
    let source = serde_json::to_string(&document)
        .unwrap()
        .replace("</", "<\\/");
    let file = dir.path().join("picture.html");
    let test = format!(
        "<!DOCTYPE html><meta charset=utf-8><body>{document}<script>const rooms = {rooms};\n\
         const source = {source};\n{MEASURE}</script>"
    );
    fs::write(&file, test).unwrap();
    let dom = dom(chromium, &file, dark);
    let result = dom.split("RESULT ").nth(1).unwrap_or(&dom);
    result
        .split("</body>")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_browser_finds_nothing_overlapping_or_cut() {
    let Some(chromium) = chromium() else { return };
    let shared = |count| ("shared", count, pod(&usual(count), &[]));
    let linked = |count| ("mixed", count, mixed(count));
    for (what, count, picture) in [shared(1), shared(3), linked(3), linked(8), linked(20)] {
        for (dark, scheme) in [(false, "light"), (true, "dark")] {
            let found = measured(chromium, &picture, dark);
            assert_eq!(
                found.trim(),
                format!("{scheme}: all is well"),
                "{what}, {count} containers"
            );
        }
    }
}

#[test]
fn a_browser_takes_hostile_words_for_words() {
    let Some(chromium) = chromium() else { return };
    let picture = hostile();
    assert_eq!(
        measured(chromium, &picture, false).trim(),
        "light: all is well"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.html");
    fs::write(&file, page(&picture, &[])).unwrap();
    let dom = dom(chromium, &file, false);
    assert!(
        !dom.contains("<title>out</title>"),
        "a script of the container's has run"
    );
    assert!(!dom.contains("<script"), "{dom}");
}
