//! The streams of a remote command, whatever carries them: standard input, output and error, and the outcome.

use std::time::Duration;

use serde_json::{Value, json};
use skeg_core::api::Status;
use skeg_spdy::{Event, StreamId};

use super::spdy::{Connection, Wire, header};
use super::upgrade::{Switching, Transport};
use super::websocket::{Broken, Channels, Said};

/// How long a client may take to open its streams (kubelet `streamCreationTimeout`).
const STREAM_CREATION: Duration = Duration::from_secs(30);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Another size of the terminal: `{"Width": 80, "Height": 24}`.
fn size(bytes: &[u8]) -> From {
    let told: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let number = |name: &str| told[name].as_u64().and_then(|n| u16::try_from(n).ok());
    match (number("Width"), number("Height")) {
        (Some(width), Some(height)) => From::Size(width, height),
        _ => From::Other,
    }
}

/// The subprotocols by WebSocket.
pub const WEB_SOCKET: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v5.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// The subprotocols by SPDY.
pub const SPDY: [&str; 4] = ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// What the client has asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// It sends standard input.
    pub stdin: bool,
    /// It wants standard output.
    pub stdout: bool,
    /// It wants standard error.
    pub stderr: bool,
    /// It has a terminal.
    pub tty: bool,
}

/// What the client does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// Bytes for standard input.
    Stdin(Vec<u8>),
    /// Standard input has ended.
    End,
    /// The terminal has so many columns and rows.
    Size(u16, u16),
    /// Something that changes nothing here.
    Other,
}

/// The streams of a client.
pub enum Streams {
    /// Channels of a WebSocket.
    Channels(Channels, Asked, bool),
    /// Streams of SPDY.
    Spdy(Box<Spdy>),
}

/// The streams of a SPDY connection.
pub struct Spdy {
    connection: Connection,
    stdin: Option<StreamId>,
    stdout: Option<StreamId>,
    stderr: Option<StreamId>,
    error: StreamId,
    resize: Option<StreamId>,
    asked: Asked,
    /// Whether outcomes are a `Status`.
    v4: bool,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With this exit code.
    Code(i32),
    /// It could not be run.
    Failed(String),
}

impl Outcome {
    /// The `Status` of a success or failure.
    fn status(&self) -> Value {
        match self {
            Outcome::Code(0) => json!({"metadata": {}, "status": "Success"}),
            Outcome::Code(code) => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Failed(why) => Status::internal(format!("error executing command in container: {why}")).to_json(),
        }
    }

    /// What is sent on the error stream: a `Status`, or, to old clients, text if the command failed.
    fn text(&self, v4: bool) -> String {
        match (v4, self) {
            (true, _) => self.status().to_string(),
            (false, Outcome::Code(0)) => String::new(),
            (false, Outcome::Code(code)) => format!("command terminated with non-zero exit code: exit status {code}"),
            (false, Outcome::Failed(why)) => format!("error executing command in container: {why}"),
        }
    }
}

impl Streams {
    /// Waits for the connection, and for the streams that the client opens.
    pub async fn open(switching: Switching, asked: Asked) -> Option<Streams> {
        let protocol = switching.protocol.clone();
        let outcomes = protocol.starts_with("v4.") || protocol.starts_with("v5.");
        match switching.transport {
            Transport::WebSocket => {
                let mut channels = Channels::new(switching.socket().await?, &protocol);
                // An empty message tells the client that the connection works.
                let first = if asked.stdout {
                    STDOUT
                } else if asked.stderr {
                    STDERR
                } else {
                    ERROR
                };
                channels.send(first, b"").await.ok()?;
                Some(Streams::Channels(channels, asked, outcomes))
            }
            Transport::Spdy => {
                let connection = Connection::new(Wire::Raw(switching.raw().await?));
                let opened = Spdy::open(connection, asked, outcomes);
                Some(Streams::Spdy(Box::new(tokio::time::timeout(STREAM_CREATION, opened).await.ok()??)))
            }
        }
    }

    /// What the client does next; `None` when it has gone. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<From> {
        match self {
            Streams::Channels(channels, asked, _) => Some(match channels.next().await? {
                Said::Bytes(STDIN, bytes) if asked.stdin => From::Stdin(bytes),
                Said::Finished(STDIN) if asked.stdin => From::End,
                Said::Bytes(RESIZE, bytes) if asked.tty => size(&bytes),
                Said::Bytes(..) | Said::Finished(_) => From::Other,
            }),
            Streams::Spdy(spdy) => Some(match spdy.connection.next().await? {
                Event::Data(stream, bytes) if Some(stream) == spdy.stdin => From::Stdin(bytes),
                Event::Data(stream, bytes) if Some(stream) == spdy.resize => size(&bytes),
                Event::Finished(stream) | Event::Reset(stream) if Some(stream) == spdy.stdin => From::End,
                // The stream for the terminal's size may be opened after the others.
                Event::Opened(stream, headers)
                    if header(&headers, "streamtype") == "resize" && spdy.resize.is_none() =>
                {
                    spdy.resize = Some(stream);
                    spdy.connection.accept(stream);
                    From::Other
                }
                Event::Opened(stream, _) => {
                    spdy.connection.reset(stream);
                    From::Other
                }
                Event::Data(..) | Event::Finished(_) | Event::Reset(_) | Event::GoAway => From::Other,
            }),
        }
    }

    /// Sends what waits to be sent. Must not be dropped while it waits.
    pub async fn flush(&mut self) -> Result<(), Broken> {
        match self {
            Streams::Channels(..) => Ok(()),
            Streams::Spdy(spdy) => spdy.connection.flush().await,
        }
    }

    /// Sends what the command wrote, unless the client did not ask for it.
    pub async fn wrote(&mut self, bytes: &[u8], stderr: bool) -> Result<(), Broken> {
        match self {
            Streams::Channels(channels, asked, _) => {
                let wanted = if stderr { asked.stderr && !asked.tty } else { asked.stdout };
                if wanted { channels.send(if stderr { STDERR } else { STDOUT }, bytes).await } else { Ok(()) }
            }
            Streams::Spdy(spdy) => {
                if let Some(stream) = if stderr { spdy.stderr } else { spdy.stdout } {
                    spdy.connection.send(stream, bytes, false);
                }
                spdy.connection.flush().await
            }
        }
    }

    /// Tells the outcome and ends the connection.
    pub async fn finish(self, outcome: Outcome) {
        match self {
            Streams::Channels(mut channels, _, outcomes) => {
                let text = outcome.text(outcomes);
                if text.is_empty() || channels.send(ERROR, text.as_bytes()).await.is_ok() {
                    let _ = tokio::time::timeout(STREAM_CREATION, channels.close()).await;
                }
            }
            Streams::Spdy(mut spdy) => {
                for stream in [spdy.stdout, spdy.stderr].into_iter().flatten() {
                    spdy.connection.send(stream, b"", true);
                }
                let text = outcome.text(spdy.v4);
                spdy.connection.send(spdy.error, text.as_bytes(), true);
                spdy.connection.close().await;
            }
        }
    }
}

impl Spdy {
    /// Accepts the streams that belong to a command; `None` if the client opens others or goes away.
    async fn open(connection: Connection, asked: Asked, v4: bool) -> Option<Spdy> {
        let mut spdy = Spdy { connection, stdin: None, stdout: None, stderr: None, error: 0, resize: None, asked, v4 };
        // The stream for the terminal's size is not waited for; old protocols do not have it.
        while !spdy.is_complete() {
            spdy.connection.flush().await.ok()?;
            let Event::Opened(stream, headers) = spdy.connection.next().await? else { continue };
            match header(&headers, "streamtype") {
                "stdin" => spdy.stdin = Some(stream),
                "stdout" => spdy.stdout = Some(stream),
                "stderr" => spdy.stderr = Some(stream),
                "error" => spdy.error = stream,
                "resize" => spdy.resize = Some(stream),
                _ => {
                    spdy.connection.reset(stream);
                    continue;
                }
            }
            spdy.connection.accept(stream);
        }
        spdy.connection.flush().await.ok()?;
        Some(spdy)
    }

    fn is_complete(&self) -> bool {
        let Asked { stdin, stdout, stderr, tty } = self.asked;
        let there = |stream: Option<StreamId>, asked: bool| stream.is_some() || !asked;
        let output = there(self.stdout, stdout) && there(self.stderr, stderr && !tty);
        self.error != 0 && there(self.stdin, stdin) && output
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn outcomes_are_told_as_each_protocol_wants() {
        let success = r#"{"metadata":{},"status":"Success"}"#;
        assert_eq!((Outcome::Code(0).text(true).as_str(), Outcome::Code(0).text(false).as_str()), (success, ""));
        let three = Outcome::Code(3);
        assert_eq!(three.status()["details"]["causes"][0]["message"], "3");
        assert_eq!(three.text(false), "command terminated with non-zero exit code: exit status 3");
        let failed = Outcome::Failed("no such thing".to_owned()).status();
        assert_eq!(failed["message"], "Internal error occurred: error executing command in container: no such thing");
    }
}
