//! Errors of reading an answer.

/// Largest accepted depth of nested lists and objects.
pub(super) const DEEPEST: usize = 64;

/// Why a platform's answer could not be read. It contains only member names and error codes of the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A web page in place of JSON, from a proxy, a login page or a wrong address.
    #[error("the answer is an HTML page, not JSON")]
    Html,
    #[error("the answer is empty")]
    Empty,
    /// Not JSON, or truncated.
    #[error("the answer is not JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    /// Nested deeper than any record.
    #[error("the answer is nested more than {} levels deep", DEEPEST)]
    TooDeep,
    /// JSON that does not match the contract.
    #[error("`{path}` is not {expected}")]
    Shape { path: &'static str, expected: &'static str },
    /// An error with a successful HTTP status (`status: "error"`, `status: false`).
    #[error("the platform refused: {said}")]
    Refused { said: String },
    /// A refusal because the call does not exist.
    #[error("the platform does not know this call")]
    NotFound,
    /// The record of another call than the requested one.
    #[error("the platform answered with another call than `{asked}`")]
    OtherCall { asked: String },
    /// Every URL parser treats `.` and `..` as path steps, also percent-encoded.
    #[error("the call id cannot be used in a URL path")]
    UnusableId,
}
