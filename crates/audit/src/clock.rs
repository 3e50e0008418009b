//! Times, as lines have them.
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Now, as lines have it.
pub(crate) fn now() -> String {
    text(OffsetDateTime::now_utc())
}

/// A time as lines have it, in UTC to the microsecond: always as many characters, so that text sorts
/// as time does.
#[must_use]
pub fn text(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
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
        let written = "2026-03-04T05:06:07.000089Z";
        assert_eq!(text(parse(written).unwrap()), written);
        assert_eq!(
            text(OffsetDateTime::UNIX_EPOCH),
            "1970-01-01T00:00:00.000000Z"
        );
        let elsewhere = parse("2026-03-04T06:06:07.000089+01:00");
        assert_eq!(text(elsewhere.unwrap()), written);
        let now = now();
        assert_eq!(text(parse(&now).unwrap()), now);
        assert_eq!(parse("yesterday"), None);
    }
}
