//! The answer to an HTTP check, read out of its bytes: its status code counts, and all the rest is tolerated.

use super::greeting;
use bytes::{Buf, BytesMut};

/// A header may have this many bytes, in as many lines as it likes.
const HEADER_LIMIT: usize = 256 * 1024;
/// The first line may have this many bytes.
const FIRST_LINE_LIMIT: usize = 8 * 1024;
/// A body that is longer than this many bytes is not waited for.
const ENOUGH: usize = 64 * 1024;
/// The line before a chunk may have this many bytes.
const CHUNK_LINE_LIMIT: usize = 1024;

/// The header of a final answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The status code, 100 to 999.
    pub(super) code: u16,
    /// How its body ends.
    pub(super) body: Body,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// After this many bytes.
    Length(u64),
    /// With a chunk of length 0.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What has come of an answer, and has not been understood yet.
#[derive(Default)]
pub(super) struct Answer {
    bytes: BytesMut,
    /// Where the unfinished line begins.
    line: usize,
    /// How much of `bytes` is known to hold no further line end.
    searched: usize,
}

impl Answer {
    /// Where further bytes of the target are put.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.bytes.reserve(1024);
        &mut self.bytes
    }

    /// The final header once it is whole; interim ones (100, 103) are passed over. The error says why it is none.
    pub(super) fn header(&mut self) -> Result<Option<Header>, String> {
        loop {
            self.skip_blank_lines();
            let Some(code) = self.code()? else { return Ok(None) };
            let Some(end) = self.end_of_header() else { return self.room_left() };
            let body = body(code, &self.bytes[..end]);
            self.bytes.advance(end);
            (self.line, self.searched) = (0, 0);
            if !is_interim(code) {
                return Ok(Some(Header { code, body }));
            }
        }
    }

    /// The header when the target has closed the connection: what came must be whole lines, but no blank line need end them.
    pub(super) fn closed(&self) -> Option<Header> {
        let code = self.code().ok().flatten()?;
        let whole = self.bytes.ends_with(b"\n") && !is_interim(code);
        whole.then_some(Header { code, body: Body::UntilClose })
    }

    fn skip_blank_lines(&mut self) {
        let blank = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.bytes.advance(blank);
        if blank > 0 {
            (self.line, self.searched) = (0, 0);
        }
    }

    /// The first line's status code; `None` while the line is not whole.
    fn code(&self) -> Result<Option<u16>, String> {
        let known = self.bytes.len().min(greeting::HTTP.len());
        if !self.bytes[..known].eq_ignore_ascii_case(&greeting::HTTP[..known]) {
            return Err(no_answer(&self.bytes));
        }
        let start = &self.bytes[..self.bytes.len().min(FIRST_LINE_LIMIT)];
        match start.iter().position(|&byte| byte == b'\n') {
            Some(end) => status_code(&start[..end]).map(Some).ok_or_else(|| no_answer(start)),
            None if start.len() == FIRST_LINE_LIMIT => {
                Err(format!("the first line of the answer is over {} KiB", FIRST_LINE_LIMIT / 1024))
            }
            None => Ok(None),
        }
    }

    /// Where the header ends, its blank line included. Every byte is searched once, however slowly it comes.
    fn end_of_header(&mut self) -> Option<usize> {
        while let Some(length) = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n') {
            let end = self.searched + length;
            let line = &self.bytes[self.line..end];
            (self.line, self.searched) = (end + 1, end + 1);
            if matches!(line, b"" | b"\r") {
                return Some(end + 1);
            }
        }
        self.searched = self.bytes.len();
        None
    }

    fn room_left(&self) -> Result<Option<Header>, String> {
        if self.bytes.len() < HEADER_LIMIT {
            return Ok(None);
        }
        Err(format!("the header of the answer is over {} KiB", HEADER_LIMIT / 1024))
    }
}

fn no_answer(bytes: &[u8]) -> String {
    format!("not an HTTP answer: {}", greeting::of_another_protocol(bytes))
}

/// 101 ends HTTP on this connection, so nothing comes after it.
fn is_interim(code: u16) -> bool {
    (100..200).contains(&code) && code != 101
}

/// The code of a line such as `HTTP/1.1 200 OK`, of any version; the text after it may be missing.
fn status_code(line: &[u8]) -> Option<u16> {
    let rest = line.get(greeting::HTTP.len()..)?;
    let version = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let after = rest[version..].trim_ascii_start();
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_code = version > 0 && after.len() < rest.len() - version && digits == 3;
    let code: u16 = str::from_utf8(&after[..digits]).ok()?.parse().ok()?;
    (is_code && code >= 100).then_some(code)
}

/// How the body ends. A length that cannot be read is 0: nobody could say how long to wait for it.
fn body(code: u16, header: &[u8]) -> Body {
    if matches!(code, 101 | 204 | 304) {
        return Body::Length(0);
    }
    let mut body = Body::UntilClose;
    for (name, value) in header.split(|&byte| byte == b'\n').skip(1).filter_map(field) {
        if name.eq_ignore_ascii_case(b"transfer-encoding") && is_chunked(value) {
            return Body::Chunked;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = length(value);
            body = Body::Length(if let Body::Length(other) = body { other.min(length) } else { length });
        }
    }
    body
}

/// A line's name and value, with or without blanks around them; `None` for the continuation of a value, or no colon.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let continues = line[0].is_ascii_whitespace();
    (!continues).then_some((line[..colon].trim_ascii(), line[colon + 1..].trim_ascii()))
}

fn is_chunked(value: &[u8]) -> bool {
    value.len() >= 7 && value[value.len() - 7..].eq_ignore_ascii_case(b"chunked")
}

/// The first number of `5` or `5, 5`.
fn length(value: &[u8]) -> u64 {
    let first = value.split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
    str::from_utf8(first).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What is still to come of a body.
pub(super) struct Rest {
    body: Body,
    /// Bytes of the present chunk that are still to come, its line end included.
    chunk: u64,
    seen: usize,
}

impl Rest {
    /// All of the body.
    pub(super) fn of(body: Body) -> Self {
        Self { body, chunk: 0, seen: 0 }
    }

    /// Takes what has come; true when there is nothing more to wait for: the end, enough, or what is no body at all.
    pub(super) fn is_over(&mut self, answer: &mut Answer) -> bool {
        let bytes = &mut answer.bytes;
        let before = bytes.len();
        let ended = match self.body {
            Body::Chunked => self.is_last_chunk(bytes),
            Body::Length(length) => {
                bytes.clear();
                (self.seen + before) as u64 >= length
            }
            Body::UntilClose => {
                bytes.clear();
                false
            }
        };
        self.seen += before - bytes.len();
        ended || self.seen > ENOUGH
    }

    fn is_last_chunk(&mut self, bytes: &mut BytesMut) -> bool {
        loop {
            let here = usize::try_from(self.chunk).unwrap_or(usize::MAX).min(bytes.len());
            bytes.advance(here);
            self.chunk -= here as u64;
            let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
                return self.chunk == 0 && bytes.len() > CHUNK_LINE_LIMIT;
            };
            match chunk_size(&bytes[..end]) {
                None | Some(0) => return true,
                // The chunk's own line end has two bytes.
                Some(size) => self.chunk = size.saturating_add(2),
            }
            bytes.advance(end + 1);
        }
    }
}

/// The hexadecimal number that begins the line; `None` where none does.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    u64::from_str_radix(str::from_utf8(&line[..digits]).ok()?, 16).ok()
}
