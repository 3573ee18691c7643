//! Web addresses that keep path and query byte for byte. A signature covers these bytes, and a URL parser changes them:
//! it removes `/./` and `%2e`, and encodes `'`.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode_byte, utf8_percent_encode};
use url::{Position, Url};

use super::id::ParseError;

/// An absolute `http` or `https` URL without credentials. `Debug` hides the query, because it may contain a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// The URL as the URL standard parses it. Only scheme, host and port are taken from here.
    url: Url,
    /// Path and query as they are requested.
    target: String,
}

impl Address {
    /// Parses a URL and keeps its path and query.
    ///
    /// # Errors
    /// [`ParseError`] for another scheme, a missing host or embedded credentials.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let url = Url::parse(text).map_err(|_| ParseError::new("recording url", "is not an absolute URL"))?;
        let text = without_breaks(text);
        let written = text.split_once(':').map_or("", |(_, rest)| rest).trim_start_matches(['/', '\\']);
        Self::of(url, after_host(written))
    }

    fn of(url: Url, target: &str) -> Result<Self, ParseError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ParseError::new("recording url", "must be http or https"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(ParseError::new("recording url", "has no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ParseError::new("recording url", "carries credentials"));
        }
        Ok(Self { url, target: sendable(target) })
    }

    /// Resolves a `Location` header (RFC 9110 section 10.2.2). None where the result is not a valid address.
    #[must_use]
    pub fn join(&self, location: &[u8]) -> Option<Self> {
        let text = text_of(location);
        let url = self.url.join(&text).ok()?;
        let text = without_breaks(&text);
        let target = match scheme_of(&text) {
            Some(rest) if rest.starts_with(['/', '\\']) => after_host(rest.trim_start_matches(['/', '\\'])).to_owned(),
            // `https:path` is read as the URL standard does.
            Some(_) => url[Position::BeforePath..Position::AfterQuery].to_owned(),
            None => self.resolved(&text),
        };
        Self::of(url, &target).ok()
    }

    /// Path and query of a reference without a scheme. Only leading dot segments are resolved.
    fn resolved(&self, reference: &str) -> String {
        let path = self.path();
        let mut rest = reference.split('#').next().unwrap_or_default();
        if rest.is_empty() {
            return self.target.clone();
        }
        if rest.starts_with('?') {
            return format!("{path}{rest}");
        }
        if let Some(after_slash) = rest.strip_prefix(['/', '\\']) {
            let host_too = after_slash.starts_with(['/', '\\']);
            return if host_too { after_host(after_slash.trim_start_matches(['/', '\\'])) } else { rest }.to_owned();
        }
        let mut folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                rest = after;
                folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
            } else {
                return format!("{folder}/{rest}");
            }
        }
    }

    /// The URL as the URL standard parses it. It decides the host and the scheme of the request. Never log this.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Host and port. The port is included only where it is not the scheme's default.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }

    /// Path and query of the request (RFC 9112 section 3.2.1). Never log this.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The address without query and fragment.
    #[must_use]
    pub fn without_query(mut self) -> Self {
        self.url.set_query(None);
        self.url.set_fragment(None);
        self.target = self.path().to_owned();
        self
    }
}

/// The full address as it is requested. Never log this.
impl From<Address> for String {
    fn from(address: Address) -> Self {
        format!("{}{}", &address.url[..Position::BeforePath], address.target)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url[..Position::AfterPath])
    }
}

/// Removes what the URL standard ignores: control characters and spaces around a URL, tabs and line breaks inside it.
fn without_breaks(text: &str) -> String {
    text.trim_matches(|c: char| c <= ' ').replace(['\t', '\n', '\r'], "")
}

/// The text after `scheme:`, where a reference has a scheme.
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(of_scheme)).then_some(rest)
}

/// Path and query of the text after `https://`.
fn after_host(written: &str) -> &str {
    written.find(['/', '\\', '?', '#']).map_or("", |at| &written[at..])
}

/// The bytes of a header as text. Bytes that are not UTF-8 are percent-encoded.
fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(String::new(), |mut text, &byte| {
            if byte.is_ascii() {
                text.push(char::from(byte));
            } else {
                text.push_str(percent_encode_byte(byte));
            }
            text
        }),
    }
}

/// Path and query for a request line. Only bytes that a request must not contain are encoded.
fn sendable(written: &str) -> String {
    let written = written.split('#').next().unwrap_or_default();
    let mut target = String::with_capacity(written.len() + 1);
    let written = match written.strip_prefix(['/', '\\']) {
        Some(rest) => rest,
        None => written,
    };
    target.push('/');
    let mut in_query = false;
    for byte in written.bytes() {
        in_query |= byte == b'?';
        let stays = match byte {
            b'"' | b'<' | b'>' => false,
            b'`' => in_query,
            _ => byte.is_ascii_graphic(),
        };
        if stays {
            target.push(char::from(byte));
        } else {
            target.push_str(percent_encode_byte(byte));
        }
    }
    target
}

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one step of a path or one value of a query: everything but unreserved characters is percent-encoded
/// (RFC 3986 section 2.3).
pub fn percent_encoded(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn path_and_query_stay_as_they_were_written() {
        let same = [
            "/a.mp3",
            "/a.mp3?sig=it's",
            "/./a/../b.mp3?x=1",
            "/%2e/%2E%2e/a.mp3",
            "/a//b///c.mp3",
            "/a|b.mp3?t=1|2",
            "/a^b{c}[d].mp3?e={f}[g]^h`i",
            "/a\\b.mp3?c\\d",
            "/%7euser/~user?%7E=~",
            "/a;v=1,2!$&'()*+@:=?b=/?&c",
            "/?X-Amz-Credential=AKIA%2F2026%2fus-east-1",
            "/a%zz%.mp3?%",
            "/a?",
            "/a??b?c",
        ];
        for target in same {
            assert_eq!(address(&format!("https://h.test{target}")).target(), target);
            assert_eq!(address(&format!("HTTPS://H.test:443{target}#x?y")).target(), target, "scheme, host, port");
        }
    }

    #[test]
    fn only_what_no_request_may_hold_is_encoded() {
        let cases = [
            ("https://h.test", "/"),
            ("https://h.test?a=1", "/?a=1"),
            ("https:///h.test/a", "/a"),
            ("https:\\\\h.test\\a", "/a"),
            ("  https://h.test/a b?c d ", "/a%20b?c%20d"),
            ("https://h.test/a\tb\r\nc", "/abc"),
            ("https://h.test/é?ü=€", "/%C3%A9?%C3%BC=%E2%82%AC"),
            ("https://h.test/\"<>`?\"<>", "/%22%3C%3E%60?%22%3C%3E"),
            ("https://h.test/a\u{1}b\u{7f}", "/a%01b%7F"),
        ];
        for (text, target) in cases {
            assert_eq!(address(text).target(), target, "{text:?}");
        }
    }

    #[test]
    fn what_is_stored_is_read_back_the_same() {
        for text in ["https://h.test:8443/./a'b?c='d'|e f", "http://[::1]:81/%2e/é", "https://h.test"] {
            let first = address(text);
            let again = address(&String::from(first.clone()));
            assert_eq!((first.target(), first.authority()), (again.target(), again.authority()), "{text}");
        }
    }

    #[test]
    fn who_is_asked_is_what_the_url_standard_says() {
        // Other parsers read another host from these URLs.
        for text in
            ["https://evil.test\\@h.test/a", "https://evil.test/@h.test", "https:evil.test", "https://evil.test?@h"]
        {
            assert_eq!(address(text).authority(), "evil.test", "{text}");
        }
        assert!(Address::parse("https://a@h.test/x").is_err());
        assert_eq!(address("https://h\n.test:8443/a").authority(), "h.test:8443");
    }

    #[test]
    fn a_location_is_followed_as_it_was_written() {
        let base = address("https://h.test/a/./b'c/d.mp3?sig=1");
        let cases: [(&[u8], &str, &str); 16] = [
            (b"https://o.test/./x'y?z='|", "o.test", "/./x'y?z='|"),
            (b"//o.test/%2e/x", "o.test", "/%2e/x"),
            (b"\\\\o.test\\x", "o.test", "/x"),
            (b"https://o.test", "o.test", "/"),
            (b"/x/./y?s='", "h.test", "/x/./y?s='"),
            (b"?s='2'", "h.test", "/a/./b'c/d.mp3?s='2'"),
            (b"", "h.test", "/a/./b'c/d.mp3?sig=1"),
            (b"#there", "h.test", "/a/./b'c/d.mp3?sig=1"),
            (b"e'f.mp3?s", "h.test", "/a/./b'c/e'f.mp3?s"),
            (b"./e.mp3", "h.test", "/a/./b'c/e.mp3"),
            (b"../e%2e.mp3", "h.test", "/a/./e%2e.mp3"),
            (b"../../../../../e.mp3", "h.test", "/e.mp3"),
            (b"https:e.mp3", "h.test", "/a/b'c/e.mp3"),
            (b"/caf\xe9", "h.test", "/caf%E9"),
            ("/café".as_bytes(), "h.test", "/caf%C3%A9"),
            (b" /x y ", "h.test", "/x%20y"),
        ];
        for (location, host, target) in cases {
            let next = base.join(location).unwrap_or_else(|| panic!("{location:?}"));
            assert_eq!((next.authority(), next.target()), (host, target), "{}", String::from_utf8_lossy(location));
        }
        for nowhere in ["ftp://h.test/a", "https://u:p@h.test/a", "mailto:a@b.test", "https://"] {
            assert!(base.join(nowhere.as_bytes()).is_none(), "{nowhere}");
        }
    }

    #[test]
    fn debug_hides_the_query() {
        let shown = format!("{:?}", address("https://h.test/a.mp3?sig=s3cret#s3cret"));
        assert_eq!(shown, "https://h.test/a.mp3");
    }
}
