//! Names, labels, keys and ports: formats that all kinds share, with the error texts of
//! `apimachinery/pkg/util/validation`.

/// The rules that a text breaks, as error texts; usually empty.
pub(in crate::object) type Wrongs = Vec<String>;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
     'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex \
     used for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
     '93%', regex used for validation is '[0-9]+%')";
/// The error text for an invalid IP address.
pub(in crate::object) const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// The error text for a port out of range.
pub(in crate::object) const PORT: &str = "must be between 1 and 65535, inclusive";
/// The error text for a negative number.
pub(in crate::object) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn collect<const N: usize>(wrongs: [Option<String>; N]) -> Wrongs {
    wrongs.into_iter().flatten().collect()
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| lower_alnum(*b)) && bytes.last().is_some_and(|b| lower_alnum(*b));
    ends && bytes.iter().all(|b| lower_alnum(*b) || *b == b'-')
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
    ends && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// `IsDNS1123Subdomain`.
pub(in crate::object) fn subdomain(text: &str) -> Wrongs {
    let ok = text.split('.').all(is_label);
    collect([(text.len() > 253).then(|| too_long(253)), (!ok).then(|| SUBDOMAIN.to_owned())])
}

/// `IsDNS1123SubdomainWithUnderscore`.
pub(in crate::object) fn subdomain_with_underscore(text: &str) -> Wrongs {
    const WRONG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*')";
    // An underscore is allowed wherever a letter is.
    let ok = text.split('.').all(|part| is_label(&part.replace('_', "a")));
    collect([(text.len() > 253).then(|| too_long(253)), (!ok).then(|| WRONG.to_owned())])
}

/// `IsWildcardDNS1123Subdomain`.
pub(in crate::object) fn wildcard(text: &str) -> Wrongs {
    const WRONG: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
         must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
         '*.example.com', regex used for validation is \
         '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let ok = text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label));
    collect([(text.len() > 253).then(|| too_long(253)), (!ok).then(|| WRONG.to_owned())])
}

/// `IsDNS1123Label`.
pub(in crate::object) fn label(text: &str) -> Wrongs {
    collect([(text.len() > 63).then(|| too_long(63)), (!is_label(text)).then(|| LABEL.to_owned())])
}

/// `IsDNS1035Label`.
pub(in crate::object) fn label_1035(text: &str) -> Wrongs {
    let ok = is_label(text) && text.as_bytes()[0].is_ascii_lowercase();
    collect([(text.len() > 63).then(|| too_long(63)), (!ok).then(|| LABEL_1035.to_owned())])
}

/// `path.IsValidPathSegmentName`.
pub(in crate::object) fn path_segment(text: &str) -> Wrongs {
    match text {
        "." => vec!["may not be '.'".to_owned()],
        ".." => vec!["may not be '..'".to_owned()],
        _ => collect([
            text.contains('/').then(|| "may not contain '/'".to_owned()),
            text.contains('%').then(|| "may not contain '%'".to_owned()),
        ]),
    }
}

/// `IsQualifiedName`.
pub(in crate::object) fn qualified(text: &str) -> Wrongs {
    let mut wrongs = Wrongs::new();
    let mut parts = text.split('/');
    let (name, prefix) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => (name, None),
        (Some(prefix), Some(name), None) => (name, Some(prefix)),
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    match prefix {
        Some("") => wrongs.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => wrongs.extend(subdomain(prefix).into_iter().map(|w| format!("prefix part {w}"))),
        None => {}
    }
    if name.is_empty() {
        wrongs.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrongs.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified_part(name) {
        wrongs.push(format!("name part {QUALIFIED}"));
    }
    wrongs
}

/// `IsValidLabelValue`.
pub(in crate::object) fn label_value(text: &str) -> Wrongs {
    let ok = text.is_empty() || is_qualified_part(text);
    collect([(text.len() > 63).then(|| too_long(63)), (!ok).then(|| LABEL_VALUE.to_owned())])
}

/// `IsConfigMapKey`.
pub(in crate::object) fn config_key(text: &str) -> Wrongs {
    let ok = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let dots = match text {
        "." => Some("must not be '.'"),
        ".." => Some("must not be '..'"),
        _ if text.starts_with("..") => Some("must not start with '..'"),
        _ => None,
    };
    collect([(text.len() > 253).then(|| too_long(253)), (!ok).then(|| CONFIG_KEY.to_owned()), dots.map(str::to_owned)])
}

/// `IsRelaxedEnvVarName`.
pub(in crate::object) fn env_name(text: &str) -> Wrongs {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let ok = text.chars().all(|c| (c == ' ' || c.is_ascii_graphic()) && c != '=');
    collect([(!ok).then(|| {
        "a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()
    })])
}

/// `IsHTTPHeaderName`.
pub(in crate::object) fn header_name(text: &str) -> Wrongs {
    let ok = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    collect([(!ok).then(|| HEADER.to_owned())])
}

/// `IsValidPortName`.
pub(in crate::object) fn port_name(text: &str) -> Wrongs {
    let plain = text.bytes().all(|b| lower_alnum(b) || b == b'-') && !text.is_empty();
    collect([
        (text.len() > 15).then(|| too_long(15)),
        (!plain).then(|| "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned()),
        (!text.bytes().any(|b| b.is_ascii_lowercase())).then(|| "must contain at least one letter (a-z)".to_owned()),
        text.contains("--").then(|| "must not contain consecutive hyphens".to_owned()),
        (text.starts_with('-') || text.ends_with('-')).then(|| "must not begin or end with a hyphen".to_owned()),
    ])
}

/// `IsValidPortNum`.
pub(in crate::object) fn is_port(n: i32) -> bool {
    (1..=65535).contains(&n)
}

/// `IsValidPercent`.
pub(in crate::object) fn percent(text: &str) -> Wrongs {
    let ok = text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    collect([(!ok).then(|| PERCENT.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::{
        Wrongs, config_key, env_name, label, label_1035, label_value, percent, port_name, qualified, subdomain,
    };

    fn check(rule: fn(&str) -> Wrongs, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Wrongs::new(), "{text}");
        }
        for text in bad {
            assert!(!rule(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn formats() {
        let long = "a".repeat(64);
        check(subdomain, &["a", "a.b", "1-a.b-2", &long], &["", "A", "a..b", ".a", "a-", "a_b", &"a".repeat(254), "é"]);
        check(label, &["a", "1", "a-b"], &["", "a.b", "-a", &long]);
        check(label_1035, &["a", "a1"], &["1a", "", "é"]);
        check(qualified, &["a", "A.b_c", "x.y/Z"], &["", "/a", "a/", "a/b/c", "X.y/z", "-a", &long]);
        check(label_value, &["", "a", "A_b.c"], &["-", "a b", &long]);
        check(config_key, &["a.b", ".dotted", "A_B-c"], &["", ".", "..", "..a", "a/b"]);
        check(env_name, &["A", "a.b-c", "1"], &["", "A=B", "a\n"]);
        check(port_name, &["http", "a-1"], &["", "1", "a--b", "-a", "HTTP", "a-very-long-name"]);
        check(percent, &["1%", "100%"], &["", "%", "1", "-1%", "1.5%"]);
    }

    #[test]
    fn words_are_those_of_kubernetes() {
        assert_eq!(
            subdomain("Bad_Name"),
            vec![
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                 must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(label(&"a".repeat(64)), vec!["must be no more than 63 bytes"]);
    }
}
