//! What a YAML scalar means to kubectl: the words and numbers of YAML 1.1, by go-yaml v2's own table.

use super::node::{Kind, number};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use granit_parser::Tag;
use std::borrow::Cow;

const NAMESPACE: &str = "tag:yaml.org,2002:";

/// The value of a scalar, or why it has none that JSON could say.
pub(super) fn resolve<'t>(word: Cow<'t, str>, plain: bool, tag: Option<&Tag>) -> Result<Kind<'t>, String> {
    let Some(tag) = tag else {
        return if plain { of_plain(word) } else { Ok(Kind::Text(word)) };
    };
    let name = tag.suffix_in_namespace(NAMESPACE);
    let kind = match name.as_deref() {
        Some("binary") => return binary(&word),
        Some("timestamp") if !is_timestamp(&word) => None,
        Some(wanted @ ("bool" | "int" | "float" | "null")) => {
            Some(of_plain(word.clone())?).filter(|kind| fits(kind, wanted, &word))
        }
        // `!!str`, and whatever go-yaml does not know.
        _ => Some(Kind::Text(word.clone())),
    };
    kind.ok_or_else(|| format!("`{word}` is not what its tag `{}` says", tag.original()))
}

fn fits(kind: &Kind<'_>, wanted: &str, word: &str) -> bool {
    match kind {
        Kind::Null => wanted == "null",
        Kind::Bool(..) => wanted == "bool",
        Kind::Int(..) | Kind::UInt(..) => wanted == "float" || wanted == "int" && !is_float(word),
        Kind::Float(..) => wanted == "float",
        Kind::Text(_) | Kind::List(_) | Kind::Map(_) => false,
    }
}

/// Whether a word that is a number is one of go-yaml's floats, which only JSON may turn into an integer.
fn is_float(word: &str) -> bool {
    word.starts_with('.') || integer(&without_underscores(word)).is_none()
}

fn of_plain(word: Cow<'_, str>) -> Result<Kind<'_>, String> {
    let kind = match word.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Kind::Bool(true, word)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Kind::Bool(false, word)
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf"
        | "-.Inf" | "-.INF" => return Err(format!("`{word}` is no number that JSON can say")),
        _ => match word.as_bytes()[0] {
            b'.' => match float(&word) {
                Some(value) => number(value, word),
                None => Kind::Text(word),
            },
            b'0'..=b'9' | b'+' | b'-' => of_digits(word),
            _ => Kind::Text(word),
        },
    };
    Ok(kind)
}

fn of_digits(word: Cow<'_, str>) -> Kind<'_> {
    let digits = without_underscores(&word).into_owned();
    match integer(&digits) {
        Some(value) => match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => Kind::Int(value, word),
            (_, Ok(value)) => Kind::UInt(value, word),
            _ => Kind::Text(word),
        },
        None => match float(&digits) {
            Some(value) => number(value, word),
            None => Kind::Text(word),
        },
    }
}

fn without_underscores(word: &str) -> Cow<'_, str> {
    if word.contains('_') { word.replace('_', "").into() } else { word.into() }
}

/// As Go's `ParseInt` and `ParseUint` with base 0: a sign, then `0x`, `0o`, `0b`, or `0` for octal. A word above `u64::MAX`
/// is none; one below `i64::MIN` neither; a sign only goes with what fits `i64`.
fn integer(word: &str) -> Option<i128> {
    let (sign, digits) = match word.as_bytes().first()? {
        b'-' => (Some(-1), &word[1..]),
        b'+' => (Some(1), &word[1..]),
        _ => (None, word),
    };
    let prefixed =
        |lower: &str, upper: &str| digits.strip_prefix(lower).or_else(|| digits.strip_prefix(upper));
    let (radix, digits) = if let Some(rest) = prefixed("0x", "0X") {
        (16, rest)
    } else if let Some(rest) = prefixed("0o", "0O") {
        (8, rest)
    } else if let Some(rest) = prefixed("0b", "0B") {
        (2, rest)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    // A sign here would be the second one.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?) * sign.unwrap_or(1);
    let range =
        if sign.is_some() { i128::from(i64::MIN)..=i128::from(i64::MAX) } else { 0..=i128::from(u64::MAX) };
    range.contains(&value).then_some(value)
}

/// A decimal float that a 64-bit one can hold: digits with a point or without, and an exponent.
fn float(word: &str) -> Option<f64> {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|it| {
        let digits = it.strip_prefix(['+', '-']).unwrap_or(it);
        !digits.is_empty() && all_digits(digits)
    });
    if whole.len() + part.len() == 0 || !all_digits(whole) || !all_digits(part) || !exponent_fits {
        return None;
    }
    word.parse().ok().filter(|value: &f64| value.is_finite())
}

/// `2001-12-14`, and longer forms that begin with a date.
fn is_timestamp(word: &str) -> bool {
    let date = word.split(['T', 't', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split('-').collect();
    let number = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(parts[..], [year, month, day] if number(year, 4..=4) && number(month, 1..=2) && number(day, 1..=2))
}

/// `!!binary` holds Base64; what is no UTF-8 in it becomes U+FFFD, as in Go's JSON.
fn binary<'t>(word: &str) -> Result<Kind<'t>, String> {
    let bytes = STANDARD
        .decode(word.replace(['\n', '\r'], ""))
        .map_err(|error| format!("a `!!binary` value is no valid Base64: {error}"))?;
    Ok(Kind::Text(String::from_utf8_lossy(&bytes).into_owned().into()))
}

/// The text that a key becomes: kubectl turns numbers and truth values into texts, and refuses the rest.
pub(super) fn key<'t>(kind: Kind<'t>) -> Result<Cow<'t, str>, String> {
    match kind {
        Kind::Text(text) => Ok(text),
        Kind::Bool(value, _) => Ok(if value { "true" } else { "false" }.into()),
        Kind::Int(value, word) if is_float(&word) => Ok(float_key(value as f64).into()),
        Kind::Int(value, _) => Ok(value.to_string().into()),
        Kind::UInt(_, word) if !is_float(&word) => Err(format!("the number `{word}` is too large for a key")),
        Kind::UInt(value, _) => Ok(float_key(value as f64).into()),
        Kind::Float(value, _) => Ok(float_key(value).into()),
        Kind::Null => Err("null stands as a key: write it in quotes".to_owned()),
        Kind::List(_) => Err("a list stands as a key".to_owned()),
        Kind::Map(_) => Err("a map stands as a key".to_owned()),
    }
}

/// As Go's `FormatFloat(value, 'g', -1, 32)`: the shortest digits of a 32-bit float, with an exponent from a
/// million on and below 0.0001.
fn float_key(value: f64) -> String {
    let scientific = format!("{:e}", value as f32);
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return (value as f32).to_string();
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}
