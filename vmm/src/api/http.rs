//! HTTP/1.1 (RFC 9112), as much of it as clients of a machine need: requests of bounded size with
//! `Content-Length`, and answers to them.

use std::fmt::Write;

use thiserror::Error;

/// Bytes of a request's first line and headers at most.
pub(super) const MOST_HEAD: usize = 8 << 10;
/// Bytes of a request's body at most.
pub(super) const MOST_BODY: usize = 64 << 10;
const MOST_HEADERS: usize = 32;

/// A request that arrived whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
    /// The client may send another one.
    pub(super) keep_alive: bool,
}

/// What has arrived so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived<'a> {
    /// Not yet all.
    Part {
        /// The client waits to be told that it may send the body.
        wants_continue: bool,
    },
    /// A request, and how many bytes it has.
    Whole(Request<'a>, usize),
}

/// What is no request to us. The connection ends, because nobody knows where the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum HttpError {
    #[error("this is not HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    #[error("a request's headers have at most {MOST_HEAD} bytes")]
    LongHead,
    #[error("a request's body has at most {MOST_BODY} bytes")]
    LongBody,
    #[error("Content-Length must be one number")]
    Length,
    #[error("a body must be told by Content-Length, not by Transfer-Encoding")]
    Encoding,
}

impl HttpError {
    pub(super) fn status(self) -> Status {
        match self {
            Self::Syntax(_) | Self::Length => Status::BadRequest,
            Self::LongHead => Status::LongHead,
            Self::LongBody => Status::LongBody,
            Self::Encoding => Status::NotImplemented,
        }
    }
}

/// Looks for a request at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Arrived<'_>, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) if head <= MOST_HEAD => head,
        Ok(httparse::Status::Partial) if bytes.len() <= MOST_HEAD => {
            return Ok(Arrived::Part {
                wants_continue: false,
            });
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HttpError::LongHead),
        Err(error) => return Err(HttpError::Syntax(error)),
    };
    let (method, path) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    let is_first = request.version == Some(0);
    let described = describe(request.headers)?;
    let Some(body) = bytes[head..].get(..described.length) else {
        let wants_continue = described.expects_continue && bytes.len() == head;
        return Ok(Arrived::Part { wants_continue });
    };
    let request = Request {
        method,
        path,
        body,
        keep_alive: !is_first && !described.closes,
    };
    Ok(Arrived::Whole(request, head + described.length))
}

#[derive(Default)]
struct Described {
    length: usize,
    closes: bool,
    expects_continue: bool,
}

fn describe(headers: &[httparse::Header<'_>]) -> Result<Described, HttpError> {
    let mut described = Described::default();
    let mut lengths = 0;
    for header in headers {
        let value = header.value.trim_ascii();
        match &*header.name.to_ascii_lowercase() {
            "content-length" => {
                described.length = length(value)?;
                lengths += 1;
            }
            "transfer-encoding" => return Err(HttpError::Encoding),
            "connection" => {
                let mut words = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                described.closes |= words.any(|word| word.eq_ignore_ascii_case(b"close"));
            }
            "expect" => described.expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
    }
    if lengths > 1 {
        return Err(HttpError::Length);
    }
    Ok(described)
}

fn length(value: &[u8]) -> Result<usize, HttpError> {
    let digits = str::from_utf8(value).map_err(|_| HttpError::Length)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HttpError::Length);
    }
    // More digits than a number has is a body too long.
    let length = digits.parse().map_err(|_| HttpError::LongBody)?;
    if length > MOST_BODY {
        return Err(HttpError::LongBody);
    }
    Ok(length)
}

/// How it went (RFC 9110, 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 200,
    Created = 201,
    Accepted = 202,
    NoContent = 204,
    BadRequest = 400,
    NotFound = 404,
    MethodNotAllowed = 405,
    Conflict = 409,
    LongBody = 413,
    LongHead = 431,
    Failed = 500,
    NotImplemented = 501,
}

impl Status {
    fn phrase(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Created => "Created",
            Self::Accepted => "Accepted",
            Self::NoContent => "No Content",
            Self::BadRequest => "Bad Request",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::Conflict => "Conflict",
            Self::LongBody => "Content Too Large",
            Self::LongHead => "Request Header Fields Too Large",
            Self::Failed => "Internal Server Error",
            Self::NotImplemented => "Not Implemented",
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) kind: &'static str,
    pub(super) body: String,
    /// Methods that there are, where one was used that there is not.
    pub(super) allow: Option<String>,
}

pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
pub(super) const JSON: &str = "application/json";
/// Prometheus' text.
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Response {
    /// Nothing but how it went.
    pub(super) fn empty(status: Status) -> Self {
        Self {
            status,
            kind: JSON,
            body: String::new(),
            allow: None,
        }
    }

    pub(super) fn json(status: Status, body: &impl serde::Serialize) -> Self {
        match serde_json::to_string(body) {
            Ok(body) => Self {
                body: body + "\n",
                ..Self::empty(status)
            },
            Err(error) => Self::error(Status::Failed, &error),
        }
    }

    pub(super) fn error(status: Status, error: &dyn std::error::Error) -> Self {
        let mut sentence = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            // Writing into a string does not fail.
            let _ = write!(sentence, ": {source}");
            cause = source.source();
        }
        Self::refusal(status, &sentence)
    }

    pub(super) fn refusal(status: Status, sentence: &str) -> Self {
        let body = serde_json::json!({ "error": sentence });
        Self {
            body: format!("{body}\n"),
            ..Self::empty(status)
        }
    }

    /// As it is sent.
    pub(super) fn bytes(&self, keep_alive: bool) -> Vec<u8> {
        let (status, phrase) = (self.status as u16, self.status.phrase());
        let mut head = format!("HTTP/1.1 {status} {phrase}\r\n");
        if self.status != Status::NoContent {
            let length = self.body.len();
            let _ = write!(
                head,
                "Content-Type: {}\r\nContent-Length: {length}\r\n",
                self.kind
            );
        }
        if let Some(allow) = &self.allow {
            let _ = write!(head, "Allow: {allow}\r\n");
        }
        if !keep_alive {
            head += "Connection: close\r\n";
        }
        head += "\r\n";
        (head + &self.body).into_bytes()
    }
}
