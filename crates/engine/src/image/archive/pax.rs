//! PAX records: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record. The value may hold
//! anything, newlines and what looks like another record too.
use std::collections::BTreeMap;
use std::io;

use super::header::size;
use super::{Entry, broken};

/// Records by key.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// What extended attributes are called.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The map of a sparse file.
pub(super) const SPARSE_MAP: &[u8] = b"GNU.sparse.map";

const SPARSE_OFFSET: &[u8] = b"GNU.sparse.offset";
const SPARSE_LENGTH: &[u8] = b"GNU.sparse.numbytes";

/// Takes a PAX header apart; of records with the same key the last one counts.
pub(super) fn parse(mut bytes: &[u8]) -> io::Result<Records> {
    let mut records = Records::new();
    // GNU tar's oldest form has a record for every number: the same as one with all of them.
    let mut map: Vec<&[u8]> = Vec::new();
    while !bytes.is_empty() {
        let (key, value, rest) =
            record(bytes).ok_or_else(|| broken("a PAX record that is none"))?;
        bytes = rest;
        match key {
            SPARSE_OFFSET | SPARSE_LENGTH => {
                let turn = if map.len().is_multiple_of(2) {
                    SPARSE_OFFSET
                } else {
                    SPARSE_LENGTH
                };
                if key != turn || value.contains(&b',') {
                    return Err(broken("a map of a sparse file that makes no sense"));
                }
                map.push(value);
            }
            _ => {
                records.insert(key.to_vec(), value.to_vec());
            }
        }
    }
    if !map.is_empty() {
        records.insert(SPARSE_MAP.to_vec(), map.join(&b','));
    }
    Ok(records)
}

/// The key and the value of the first record, and what is behind it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length: usize = integer(bytes.get(..space)?)?.try_into().ok()?;
    // The shortest: `5 k=\n`.
    if length < 5 {
        return None;
    }
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
    if key.is_empty() {
        return None;
    }
    let checked = match key {
        b"path" | b"linkpath" | b"uname" | b"gname" => value,
        _ => key,
    };
    (!checked.contains(&0)).then_some((key, value, rest))
}

/// Lets records overrule the header. An empty value says nothing.
pub(super) fn apply(entry: &mut Entry, records: &Records) -> io::Result<()> {
    let wrong = || broken("a PAX record whose value is no number");
    for (key, value) in records {
        if let Some(name) = key.strip_prefix(XATTR) {
            entry.xattrs.push((name.to_vec(), value.clone()));
        }
        if value.is_empty() {
            continue;
        }
        let number = || integer(value).ok_or_else(wrong);
        match key.as_slice() {
            b"path" => entry.path.clone_from(value),
            b"linkpath" => entry.link.clone_from(value),
            b"uid" => entry.uid = number()?,
            b"gid" => entry.gid = number()?,
            b"size" => entry.size = size(number()?)?,
            b"mtime" => entry.mtime = time(value).ok_or_else(wrong)?,
            // Nobody needs them, but they must be times.
            b"atime" | b"ctime" => drop(time(value).ok_or_else(wrong)?),
            _ => {}
        }
    }
    Ok(())
}

/// A decimal number.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a fraction, maybe before 1970, as seconds and nanoseconds after.
fn time(text: &[u8]) -> Option<(i64, i64)> {
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (text.get(..point)?, text.get(point + 1..)?),
        None => (text, &b""[..]),
    };
    let seconds = integer(whole)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(b"000000000").take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some(if whole.starts_with(b"-") && nanoseconds > 0 {
        (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)
    } else {
        (seconds, nanoseconds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_it_says() {
        let records = parse(b"31 comment=x\n17 linkpath=other\n9 path=a\n").unwrap();
        let expected = [
            (b"comment".to_vec(), b"x\n17 linkpath=other".to_vec()),
            (b"path".to_vec(), b"a".to_vec()),
        ];
        assert_eq!(records, expected.into());
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in [
            &b"5 =a\n"[..],
            b"4 a=\n",
            b"5 k=v\n",
            b"6 k=ab\n",
            b"7 k=v",
            b"8 path\n\n",
            b"11 path=a\0\n",
            b"-6 k=v\n",
            b"99999999999999999999 k=v\n",
        ] {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert_eq!(parse(b"6 k=v\n").unwrap().len(), 1);
    }
}
