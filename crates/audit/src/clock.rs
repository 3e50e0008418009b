//! Times, as lines have them.
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, in UTC, to the microsecond: always as many characters, so that text sorts as time does.
#[must_use]
pub fn now() -> String {
    write(OffsetDateTime::now_utc())
}

fn write(time: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    )
}

/// A time that is written in RFC 3339.
#[must_use]
pub fn parse(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        let text = "2026-03-04T05:06:07.000089Z";
        assert_eq!(write(parse(text).unwrap()), text);
        assert_eq!(
            write(OffsetDateTime::UNIX_EPOCH),
            "1970-01-01T00:00:00.000000Z"
        );
        let now = now();
        assert_eq!(write(parse(&now).unwrap()), now);
        assert_eq!(parse("yesterday"), None);
    }
}
