//! What Kubernetes accepts as a name.

/// A DNS label (RFC 1123): up to 63 of a-z, 0-9 and `-`, no `-` at either end.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_alphanumeric_with(text, |c| c == '-')
}

/// A DNS subdomain (RFC 1123): labels with dots between, up to 253 characters.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| is_alphanumeric_with(part, |c| c == '-'))
}

/// An IANA service name, as a named target port must be: up to 15 of a-z, 0-9 and single `-`, at least one letter.
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_alphanumeric_with(text, |c| c == '-')
        && !text.contains("--")
        && text.chars().any(|c| c.is_ascii_lowercase())
}

/// A load balancer class: a label, or one behind a domain and a slash.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let name = name.to_ascii_lowercase();
    prefix.is_none_or(is_dns_subdomain)
        && name.len() <= 63
        && is_alphanumeric_with(&name, |c| matches!(c, '-' | '_' | '.'))
}

fn is_alphanumeric_with(text: &str, inner: impl Fn(char) -> bool) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|c| plain(c) || inner(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_says() {
        assert!(is_dns_label("web-1") && !is_dns_label("-web") && !is_dns_label("Web") && !is_dns_label(""));
        assert!(is_port_name("http-2") && !is_port_name("443") && !is_port_name("a--b"));
        assert!(!is_port_name("sixteen-letters1"));
        assert!(
            is_qualified_name("service.k8s.aws/nlb")
                && is_qualified_name("own")
                && !is_qualified_name("a/b/c")
        );
    }
}
