//! URLs, as far as rules ask of them.

/// An absolute URL, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    pub(crate) scheme: String,
    /// With the port.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, Vec<String>)>,
}

impl Url {
    /// Reads an absolute URL or an absolute path, as Go's `url.ParseRequestURI` does.
    pub(crate) fn parse(text: &str) -> Option<Url> {
        if text.chars().any(|c| c.is_ascii_control() || c == ' ') {
            return None;
        }
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        let mut url = Url { scheme: String::new(), host: String::new(), path: String::new(), query: parsed(query) };
        let rest = if text.starts_with('/') {
            text
        } else {
            let (scheme, rest) = text.split_once(':')?;
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
            if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(is_part) {
                return None;
            }
            url.scheme = scheme.to_ascii_lowercase();
            rest
        };
        let path = match rest.strip_prefix("//") {
            Some(rest) if !url.scheme.is_empty() => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                url.host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned();
                if !valid_host(&url.host) {
                    return None;
                }
                path
            }
            _ => rest,
        };
        if !valid_escapes(path) {
            return None;
        }
        url.path = path.to_owned();
        Some(url)
    }

    /// The host without its port and brackets, and the port.
    pub(crate) fn host_and_port(&self) -> (&str, &str) {
        let after = self.host.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match self.host[after..].rfind(':') {
            Some(at) => (&self.host[..after + at], &self.host[after + at + 1..]),
            None => (self.host.as_str(), ""),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }
}

fn valid_host(host: &str) -> bool {
    let after = match (host.starts_with('['), host.rfind(']')) {
        (true, Some(at)) => &host[at + 1..],
        (true, None) => return false,
        (false, _) => host.find(':').map_or("", |at| &host[at..]),
    };
    let port = after.strip_prefix(':').unwrap_or(after);
    port.bytes().all(|b| b.is_ascii_digit()) && valid_escapes(host) && !host.contains(['<', '>', '"', '\\', '^', '`'])
}

/// Whether every per cent sign is followed by two hexadecimal digits.
fn valid_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2).unwrap_or_default();
        digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default()];
                let code = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
                out.push(code.unwrap_or(b'?'));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parsed(query: &str) -> Vec<(String, Vec<String>)> {
    let mut all = std::collections::BTreeMap::<String, Vec<String>>::new();
    for part in query.split('&').filter(|part| !part.is_empty() && valid_escapes(part)) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        all.entry(decoded(name)).or_default().push(decoded(value));
    }
    all.into_iter().collect()
}
