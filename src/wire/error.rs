//! Why an answer could not be read.

/// What was wrong with a platform's answer. Holds no part of the answer but its member names and error codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A web page where JSON should be: a proxy, a login page, a wrong address.
    #[error("the answer is an HTML page, not JSON")]
    Html,
    #[error("the answer is empty")]
    Empty,
    /// Not JSON at all, or cut short.
    #[error("the answer is not JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    /// JSON within JSON beyond what any record has.
    #[error("the answer is nested more than {} levels deep", super::scan::DEEPEST)]
    TooDeep,
    /// JSON, but not what the contract says.
    #[error("`{path}` is not {expected}")]
    Shape { path: &'static str, expected: &'static str },
    /// An error in a successful status (`status: "error"`, `status: false`).
    #[error("the platform refused: {said}")]
    Refused { said: String },
    /// A refusal that says there is no such call.
    #[error("the platform does not know this call")]
    NotFound,
    /// The record of another call than the one asked for.
    #[error("the platform answered with another call than `{asked}`")]
    OtherCall { asked: String },
    /// `.` and `..` are path steps in every URL parser, percent-encoded or not.
    #[error("the call id cannot stand in a URL path")]
    UnusableId,
}
