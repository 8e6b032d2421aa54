//! Annotation values: how each kind of text becomes a value, with the problems that this can have (contract 1.1).

use super::findings::{At, Findings};
use crate::problem::Effect;
use k8s_openapi::api::core::v1::Service;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The prefix of the AWS controller's annotations.
pub(super) const AWS: &str = "service.beta.kubernetes.io/aws-load-balancer-";

/// The annotations of one Service. Short keys stand behind the AWS prefix.
pub(super) struct Annotations<'a> {
    all: BTreeMap<&'a str, &'a str>,
}

/// A setting as found: its field path and its text, trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// `metadata.annotations[KEY]`.
    pub(super) field: String,
    /// As written, blanks around it removed.
    pub(super) text: String,
    /// What problems call its value: the text, or `key=value` inside a map.
    pub(super) value: String,
}

impl Setting {
    pub(super) fn at(&self) -> At<'_> {
        At { field: &self.field, value: Some(&self.value) }
    }

    /// What messages say has or has no effect: the annotation, or the one item of its map.
    pub(super) fn subject(&self) -> String {
        if self.value.trim() == self.text {
            self.field.clone()
        } else {
            format!("{} in {}", super::shown(&self.value), self.field)
        }
    }
}

impl<'a> Annotations<'a> {
    pub(super) fn of(service: &'a Service) -> Self {
        let all = service.metadata.annotations.iter().flatten();
        Self { all: all.map(|(key, value)| (key.as_str(), value.as_str())).collect() }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.all.keys().copied()
    }

    /// The annotation under its full key, also where it is empty.
    pub(super) fn full(&self, key: &str) -> Option<Setting> {
        let text = self.all.get(key)?.trim().to_owned();
        Some(Setting { field: field(key), value: (*self.all.get(key)?).to_owned(), text })
    }

    /// The annotation behind the AWS prefix, also where it is empty.
    pub(super) fn short(&self, key: &str) -> Option<Setting> {
        self.full(&format!("{AWS}{key}"))
    }

    /// The same for a scalar: an empty one is none, with a Normal problem.
    pub(super) fn scalar(&self, key: &str, findings: &mut Findings) -> Option<Setting> {
        self.short(key).filter(|it| is_given(it, findings))
    }

    pub(super) fn boolean(&self, key: &str, findings: &mut Findings) -> Option<bool> {
        boolean(&self.scalar(key, findings)?, findings)
    }

    pub(super) fn integer(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        findings: &mut Findings,
    ) -> Option<u32> {
        integer(&self.scalar(key, findings)?, range, findings)
    }

    pub(super) fn list(&self, key: &str) -> Option<(Setting, Vec<String>)> {
        self.short(key).map(|it| {
            let items = list(&it.text);
            (it, items)
        })
    }

    /// The same where a list of nothing is no value: there is none then, with a Normal problem.
    pub(super) fn given_list(&self, key: &str, findings: &mut Findings) -> Option<(Setting, Vec<String>)> {
        let (setting, items) = self.list(key).filter(|(it, _)| is_given(it, findings))?;
        if items.is_empty() {
            let message = format!("{} names nothing, so the default is used.", setting.field);
            findings.note(setting.at(), "EmptyValue", message, Effect::DefaultUsed);
            return None;
        }
        Some((setting, items))
    }

    /// The map under a short key, each item as a setting of its own.
    pub(super) fn map(&self, key: &str, findings: &mut Findings) -> Option<BTreeMap<String, Setting>> {
        let whole = self.short(key)?;
        match map(&whole.text) {
            Ok(items) => {
                let item = |(key, text): (String, String)| {
                    let value = format!("{key}={text}");
                    (key, Setting { field: whole.field.clone(), text, value })
                };
                Some(items.into_iter().map(item).collect())
            }
            Err(item) => {
                let item = if item.trim().is_empty() { "one is empty" } else { &format!("see `{item}`") };
                findings.bad(whole.at(), &format!("`key=value` pairs with commas between them ({item})"));
                None
            }
        }
    }
}

/// The path of an annotation, as problems name it.
pub(super) fn field(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

/// False, and a Normal problem, if the text is empty.
pub(super) fn is_given(setting: &Setting, findings: &mut Findings) -> bool {
    if setting.text.is_empty() {
        let message = if setting.value.trim().is_empty() {
            format!("{} is empty, so the default is used.", setting.field)
        } else {
            let item = super::shown(&setting.value);
            format!("{}: {item} has no value, so the default is used.", setting.field)
        };
        findings.note(setting.at(), "EmptyValue", message, Effect::DefaultUsed);
    }
    !setting.text.is_empty()
}

/// Go's words for true and false.
pub(super) fn read_boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub(super) fn boolean(setting: &Setting, findings: &mut Findings) -> Option<bool> {
    let value = read_boolean(&setting.text);
    if value.is_none() {
        findings.bad(setting.at(), "true, false");
    }
    value
}

/// A decimal number, clamped into its range with a Warning, however long it is.
pub(super) fn integer(setting: &Setting, range: RangeInclusive<u32>, findings: &mut Findings) -> Option<u32> {
    let allowed = format!("{} to {}", range.start(), range.end());
    within(setting, range, &allowed, findings)
}

/// The same, with words of one's own for what is allowed.
pub(super) fn within(
    setting: &Setting,
    range: RangeInclusive<u32>,
    allowed: &str,
    findings: &mut Findings,
) -> Option<u32> {
    let Some(value) = read_integer(&setting.text) else {
        findings.bad(setting.at(), &format!("a number, {allowed}"));
        return None;
    };
    let used = value.clamp((*range.start()).into(), (*range.end()).into());
    if used != value {
        findings.clamped(setting.at(), allowed, used);
    }
    u32::try_from(used).ok()
}

/// Digits with or without a sign; what does not fit stops at the ends of `i64`.
fn read_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let end = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    Some(text.parse().unwrap_or(end))
}

/// Items between commas, trimmed, empty ones dropped.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// True if [`Annotations::map`] can read it.
pub(super) fn is_map(text: &str) -> bool {
    map(text).is_ok()
}

/// `k=v` pairs between commas, `\,` a literal one; the last of two equal keys wins. The error is the bad item.
fn map(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut items = vec![String::new()];
    let mut rest = text;
    while let Some(at) = rest.find(',') {
        let last = items.last_mut().expect("never empty");
        if let Some(before) = rest[..at].strip_suffix('\\') {
            last.push_str(before);
            last.push(',');
        } else {
            last.push_str(&rest[..at]);
            items.push(String::new());
        }
        rest = &rest[at + 1..];
    }
    items.last_mut().expect("never empty").push_str(rest);
    let count = items.len();
    let mut pairs = BTreeMap::new();
    for (index, item) in items.into_iter().enumerate() {
        // A trailing comma is no item.
        if item.trim().is_empty() && index + 1 == count {
            continue;
        }
        match item.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, value)) if !key.is_empty() => drop(pairs.insert(key.to_owned(), value.to_owned())),
            Some(_) | None => return Err(item),
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn setting(text: &str) -> Setting {
        Setting { field: field("k"), text: text.into(), value: text.into() }
    }

    #[test]
    fn maps_are_read_as_the_contract_says() {
        let pairs = |text: &str| map(text).map(|it| it.into_iter().collect::<Vec<_>>());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs(" a = b=c , d=,a=2,"), Ok(vec![pair("a", "2"), pair("d", "")]));
        assert_eq!(pairs(r"a=1\,2,b=3"), Ok(vec![pair("a", "1,2"), pair("b", "3")]));
        assert_eq!(pairs(""), Ok(vec![]));
        assert!(pairs("a").is_err() && pairs("=1").is_err() && pairs("a=1,,b=2").is_err());
    }

    #[test]
    fn numbers_that_cannot_be_read_are_bad() {
        for bad in ["ten", "10s", "2.5", "+", "-", "1 0", "0x10"] {
            let mut findings = Findings::new("Service a/b".into());
            assert_eq!(integer(&setting(bad), 1..=300, &mut findings), None, "{bad}");
            assert!(findings.is_broken());
        }
    }

    proptest! {
        #[test]
        fn numbers_are_clamped_and_only_then_warned_of(number in any::<i128>()) {
            let mut findings = Findings::new("Service a/b".into());
            let value = integer(&setting(&number.to_string()), 5..=300, &mut findings).unwrap();
            prop_assert_eq!(i128::from(value), number.clamp(5, 300));
            prop_assert_eq!(findings.problems.is_empty(), (5..=300).contains(&number));
            prop_assert!(!findings.is_broken());
        }
    }
}
