//! Detects bodies that are text and so cannot be a recording. `audio` detects the recording's format.

/// Number of bytes that separate text from audio reliably.
pub(super) const SNIFF_BYTES: usize = 512;

/// The kind of text at the start of a body. `None` for a possible recording. Every supported container and codec has a
/// non-text byte in its first dozens of bytes.
pub(super) fn text_kind(head: &[u8]) -> Option<&'static str> {
    let head = head.get(..SNIFF_BYTES).unwrap_or(head);
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The cut may be inside a character.
        Err(err) if err.error_len().is_none() && err.valid_up_to() > 0 => {
            std::str::from_utf8(head.get(..err.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{c}');
    if text.is_empty() || !text.chars().all(printable) {
        return None;
    }
    let start = text.trim_start();
    Some(match start.chars().next() {
        Some('<') if start.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("<?xml")) => "XML",
        Some('<') => "HTML",
        Some('{' | '[') => "JSON",
        _ => "text",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_pages_and_answers_are_named() {
        assert_eq!(text_kind(b"<!DOCTYPE html><html>"), Some("HTML"));
        assert_eq!(text_kind(b"\xef\xbb\xbf  \n<html>"), Some("HTML"));
        assert_eq!(text_kind(b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>"), Some("XML"));
        assert_eq!(text_kind(b"{\"error\":\"not found\"}"), Some("JSON"));
        assert_eq!(text_kind("introuvable à cette adresse".as_bytes()), Some("text"));
        assert_eq!(text_kind(&"é".repeat(400).as_bytes()[..511]), Some("text"));
    }

    #[test]
    fn the_beginnings_of_recordings_are_not_text() {
        let beginnings: [&[u8]; 11] = [
            b"ID3\x04\x00\x00\x00\x00\x00\x23TSSE\x00",
            b"\xff\xfb\x90\x64\x00\x0f",
            b"RIFF\x24\x08\x00\x00WAVEfmt \x10\x00",
            b"fLaC\x00\x00\x00\x22",
            b"OggS\x00\x02",
            b"\x00\x00\x00\x1cftypM4A ",
            b"\x1a\x45\xdf\xa3",
            b"FORM\x00\x00\xbb\xaeAIFFCOMM\x00\x00\x00\x12",
            b".snd\x00\x00\x00\x18",
            b"riff\x2e\x91\xcf\x11",
            b"#!AMR\n\x0c\xff\x95",
        ];
        for head in beginnings {
            assert_eq!(text_kind(head), None, "{head:?}");
        }
    }
}
