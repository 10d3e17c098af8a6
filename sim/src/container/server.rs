//! What answers on a container's ports: an HTTP server that says who it is.

/// Maximum bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// One connection to a port of a container.
#[derive(Debug)]
pub struct Connection {
    /// Who answers: `container nginx of pod default/web-0, port 80`.
    who: String,
    buffer: Vec<u8>,
    /// Bytes of a request's body that are still to come, and are passed over.
    body: u64,
    closed: bool,
}

impl Connection {
    /// A connection that has just been made.
    pub fn new(who: String) -> Connection {
        Connection { who, buffer: Vec::new(), body: 0, closed: false }
    }

    /// Whether nothing more comes from the server.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes bytes of the client; returns what is answered.
    pub fn handle(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        while !self.closed && !bytes.is_empty() {
            if self.body > 0 {
                let passed = self.body.min(bytes.len() as u64);
                self.body -= passed;
                bytes = &bytes[passed as usize..];
                continue;
            }
            let room = (MAX_HEAD - self.buffer.len()).min(bytes.len());
            self.buffer.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
            while let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                self.answer(&String::from_utf8_lossy(&head), &mut answer);
                let passed = self.body.min(self.buffer.len() as u64);
                self.body -= passed;
                self.buffer.drain(..passed as usize);
                if self.closed {
                    break;
                }
            }
            if self.buffer.len() == MAX_HEAD {
                self.refuse("431 Request Header Fields Too Large", &mut answer);
            }
        }
        answer
    }

    fn answer(&mut self, head: &str, answer: &mut Vec<u8>) {
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let [method, target, "HTTP/1.1" | "HTTP/1.0"] = first.split(' ').collect::<Vec<_>>()[..] else {
            return self.refuse("400 Bad Request", answer);
        };
        let headers: Vec<(&str, &str)> = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n, v.trim())).collect();
        let header = |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
        if header("transfer-encoding").is_some() {
            return self.refuse("411 Length Required", answer);
        }
        match header("content-length").map(str::parse) {
            None => {}
            Some(Ok(length)) => self.body = length,
            Some(Err(_)) => return self.refuse("400 Bad Request", answer),
        }
        let close = first.ends_with("1.0") || header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        self.closed = close;
        let body = format!("simulated: {}\n{method} {target}\n", self.who);
        let shown = if method == "HEAD" { "" } else { &body };
        let connection = if close { "close" } else { "keep-alive" };
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: \
             {connection}\r\n\r\n{shown}",
            body.len()
        );
        answer.extend_from_slice(response.as_bytes());
    }

    fn refuse(&mut self, status: &str, answer: &mut Vec<u8>) {
        self.closed = true;
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        answer.extend_from_slice(response.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, MAX_HEAD};

    #[test]
    fn requests_are_answered_however_they_are_split() {
        let requests = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloHEAD /c \
                        HTTP/1.1\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\n\r\n";
        for at_once in [1, 7, requests.len()] {
            let mut connection = Connection::new("me".to_owned());
            let answers: Vec<u8> = requests.as_bytes().chunks(at_once).flat_map(|b| connection.handle(b)).collect();
            let text = String::from_utf8(answers).unwrap();
            assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
            assert!(text.contains("simulated: me\nGET /a\n") && text.contains("POST /b\n") && !text.contains("never"));
            assert!(connection.is_closed());
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let check = |bytes: &[u8], want: &str| {
            let mut connection = Connection::new("me".to_owned());
            let answer = String::from_utf8(connection.handle(bytes)).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {want}")) && connection.is_closed(), "{answer}");
        };
        check(b"\x16\x03\x01 hello\r\n\r\n", "400");
        check(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "400");
        check(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "411");
        check(&vec![b'a'; MAX_HEAD + 1], "431");
    }
}
