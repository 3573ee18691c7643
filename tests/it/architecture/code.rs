//! Source text without comments and literals.

pub fn starts_word(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The code with comments and literals blanked out, byte for byte at the same place.
pub fn code_only(source: &str) -> String {
    let mut out = source.as_bytes().to_vec();
    let mut at = 0;
    while at < source.len() {
        let length = opaque_length(&source[at..], starts_word(source, at));
        for byte in &mut out[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length.max(source[at..].chars().next().map_or(1, char::len_utf8));
    }
    // Only whole characters were replaced, by ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// The length of the comment or literal that starts here; 0 where code starts.
fn opaque_length(rest: &str, starts_word: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    let unprefixed = rest.strip_prefix(['b', 'c']).filter(|_| starts_word).unwrap_or(rest);
    let prefix = rest.len() - unprefixed.len();
    if let Some(hashed) = unprefixed.strip_prefix('r').filter(|_| starts_word || prefix == 1) {
        let hashes = hashed.len() - hashed.trim_start_matches('#').len();
        if hashed[hashes..].starts_with('"') {
            let close = format!("\"{}", &hashed[..hashes]);
            let body = &hashed[hashes + 1..];
            return prefix + 1 + hashes + 1 + body.find(&close).map_or(body.len(), |end| end + close.len());
        }
    }
    if let Some(body) = unprefixed.strip_prefix('"') {
        return prefix + 1 + escaped_end(body, '"');
    }
    let Some(body) = unprefixed.strip_prefix('\'') else { return 0 };
    // `'a'` and `'\n'` are characters; `'a` is a lifetime.
    let mut characters = body.chars();
    let first = characters.next();
    if first == Some('\\') || characters.next() == Some('\'') { prefix + 1 + escaped_end(body, '\'') } else { 0 }
}

/// Bytes up to and with the closing quote.
fn escaped_end(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    body.len()
}

/// Block comments nest in Rust.
fn block_comment_length(rest: &str) -> usize {
    let (mut at, mut open) = (0, 0_usize);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (open, at) = (open + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (open, at) = (open - 1, at + 2);
            if open == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}
