//! YAML documents, and the line on which each of their fields is.
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

/// A document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Located {
    /// What it says.
    pub(super) value: Value,
    /// The line of each field, from 1, by path: `spec.containers[0].name`.
    lines: BTreeMap<String, u64>,
}

/// Reads every document of a file; empty ones are left out.
///
/// # Errors
/// What the parser says, with the place.
pub(super) fn read(text: &str) -> Result<Vec<Located>, serde_saphyr::Error> {
    // kubectl reads YAML 1.1, where 0400 is a mode as chmod(1) has it.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(text, options)?;
    let documents = documents.into_iter().map(|node| {
        let mut located = Located::default();
        located.value = located.add(node, "");
        located
    });
    Ok(documents.filter(|it| !it.value.is_null()).collect())
}

impl Located {
    fn add(&mut self, node: Spanned<Node>, path: &str) -> Value {
        self.lines
            .entry(path.to_owned())
            .or_insert(node.referenced.line());
        match node.value {
            Node::Scalar(value) => value,
            Node::List(items) => {
                let items = items.into_iter().enumerate();
                Value::Array(
                    items
                        .map(|(index, item)| self.add(item, &format!("{path}[{index}]")))
                        .collect(),
                )
            }
            Node::Map(fields) => {
                let mut map = Map::new();
                for (key, field) in fields {
                    let path = joined(path, &key.value);
                    self.lines.insert(path.clone(), key.referenced.line());
                    map.insert(key.value, self.add(field, &path));
                }
                Value::Object(map)
            }
        }
    }

    /// The line of a field, or of what it would be in.
    pub(super) fn line(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return self.lines.get("").copied().unwrap_or(1),
            }
        }
    }

    /// What is at a path of names, as a document of its own.
    pub(super) fn part(&self, names: &[&str]) -> Option<Self> {
        let mut value = &self.value;
        for name in names {
            value = value.get(name)?;
        }
        Some(self.below(&names.join("."), value.clone()))
    }

    /// The items of a list, each as a document of its own.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.value.get("items").and_then(Value::as_array);
        let items = items.into_iter().flatten().enumerate();
        items
            .map(|(index, item)| self.below(&format!("items[{index}]"), item.clone()))
            .collect()
    }

    fn below(&self, path: &str, value: Value) -> Self {
        let lines = self.lines.iter().filter_map(|(at, line)| {
            let rest = at.strip_prefix(path)?;
            let rest = rest
                .strip_prefix('.')
                .or_else(|| rest.is_empty().then_some(""));
            Some((rest?.to_owned(), *line))
        });
        Self {
            value,
            lines: lines.collect(),
        }
    }
}

/// A path and a field below it.
pub(super) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = serde_json::Number::from_f64(value);
        let number = number.ok_or_else(|| E::custom("a number that is none"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields: Vec<(Spanned<String>, Spanned<Node>)> = Vec::new();
        while let Some((key, field)) = map.next_entry::<Spanned<String>, Spanned<Node>>()? {
            if fields.iter().any(|(known, _)| known.value == key.value) {
                return Err(A::Error::custom(format!("`{}` is set twice", key.value)));
            }
            fields.push((key, field));
        }
        Ok(Node::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_line() {
        let text = "# a comment\na:\n  b: [1, x]\n  c:\n  - d: 1.5\n    e: 'yes'\n---\n---\nz: ~\n";
        let documents = read(text).unwrap();
        assert_eq!(documents.len(), 2);
        let first = documents.first().unwrap();
        assert_eq!(
            first.value,
            serde_json::json!({"a": {"b": [1, "x"], "c": [{"d": 1.5, "e": "yes"}]}})
        );
        for (path, line) in [
            ("a", 2),
            ("a.b", 3),
            ("a.b[1]", 3),
            ("a.c", 4),
            ("a.c[0].e", 6),
            ("a.c[0].missing", 5),
            ("nowhere", 2),
        ] {
            assert_eq!(first.line(path), line, "{path}");
        }
        let part = first.part(&["a", "c"]).unwrap();
        assert!(part.value.is_array());
        assert!(read("a: 1\na: 2\n").is_err());
        let mode = read("mode: 0400\n").unwrap().remove(0).value;
        assert_eq!(mode, serde_json::json!({"mode": 256}));
    }
}
