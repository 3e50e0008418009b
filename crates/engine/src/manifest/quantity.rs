//! Kubernetes quantities: `500m`, `1.5`, `256Mi`, `1e3`.

/// The value in thousandths, rounded up as Kubernetes rounds. It is never negative.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn milli(text: &str) -> Result<i64, String> {
    let bad = || format!("`{text}` is not a quantity such as 500m, 1.5, 256Mi or 1e3");
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !".+-".contains(c))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator) = scale(suffix).ok_or_else(bad)?;
    let number = match number.split_at_checked(1) {
        Some(("-", rest)) if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            return Err(format!("`{text}` cannot be negative"));
        }
        Some(("+", rest)) => rest,
        _ => number,
    };
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() && fraction.is_empty() || fraction.contains(['+', '-', '.']) {
        return Err(bad());
    }
    let digits: i128 = format!("{integer}{fraction}").parse().map_err(|_| bad())?;
    let places = 10_i128.checked_pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
    let denominator = places
        .and_then(|p| p.checked_mul(denominator))
        .ok_or_else(bad)?;
    let scaled = digits
        .checked_mul(numerator)
        .and_then(|n| n.checked_mul(1000))
        .ok_or_else(bad)?;
    let rounded = scaled.div_euclid(denominator) + i128::from(scaled.rem_euclid(denominator) != 0);
    i64::try_from(rounded).map_err(|_| bad())
}

/// The value in whole units (bytes, for memory), rounded up.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn units(text: &str) -> Result<i64, String> {
    milli(text).map(|milli| milli.div_euclid(1000) + i64::from(milli.rem_euclid(1000) != 0))
}

/// What a suffix multiplies by, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    const K: i128 = 1000;
    const KI: i128 = 1024;
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, K * K * K),
        "u" => (1, K * K),
        "m" => (1, K),
        "k" => (K, 1),
        "M" => (K * K, 1),
        "G" => (K * K * K, 1),
        "T" => (K.pow(4), 1),
        "P" => (K.pow(5), 1),
        "E" => (K.pow(6), 1),
        "Ki" => (KI, 1),
        "Mi" => (KI * KI, 1),
        "Gi" => (KI.pow(3), 1),
        "Ti" => (KI.pow(4), 1),
        "Pi" => (KI.pow(5), 1),
        "Ei" => (KI.pow(6), 1),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let exponent: i32 = digits.parse().ok().filter(|e: &i32| e.abs() <= 18)?;
            let power = 10_i128.pow(exponent.unsigned_abs());
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory() {
        assert_eq!(milli("500m"), Ok(500));
        assert_eq!(milli("1.5"), Ok(1500));
        assert_eq!(milli(".5"), Ok(500));
        assert_eq!(milli("100u"), Ok(1));
        assert_eq!(units("256Mi"), Ok(256 * 1024 * 1024));
        assert_eq!(units("128974848"), Ok(128_974_848));
        assert_eq!(units("129e6"), Ok(129_000_000));
        assert_eq!(units("129M"), Ok(129_000_000));
        assert_eq!(units("0.5Ki"), Ok(512));
        assert_eq!(units("1m"), Ok(1));
    }

    #[test]
    fn negative_ones_are_refused_as_such() {
        for text in ["-1", "-0.5", "-1Gi", "-.5"] {
            assert!(milli(text).unwrap_err().contains("negative"), "{text}");
        }
        assert_eq!(milli("+1"), Ok(1000));
        assert_eq!(milli("0"), Ok(0));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in [
            "",
            "Mi",
            "1 Gi",
            "1Gb",
            "one",
            "1e",
            "1e99",
            "1.2.3",
            "--1",
            "99999999999Ei",
        ] {
            assert!(milli(bad).is_err(), "{bad}");
        }
    }
}
