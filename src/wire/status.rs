//! The platforms' words for the status and the end reason of a call.

use crate::domain::{CallStatus, EndReason};

/// Lower case, `-` and space as `_`, one spelling of "cancelled".
fn plain(word: &str) -> String {
    let plain = word.trim().to_ascii_lowercase().replace(['-', ' '], "_");
    if plain == "canceled" { "cancelled".to_owned() } else { plain }
}

/// The status of a platform's word. Zudu also writes "ended" for unanswered calls, so there the end reason decides.
/// Other words ignore the end reason.
pub(super) fn status(word: Option<&str>, end_reason: Option<EndReason>) -> CallStatus {
    let Some(word) = word else { return CallStatus::Unknown };
    match plain(word).as_str() {
        "pending" | "in_queue" | "queued" | "initiated" | "registered" | "scheduled" => CallStatus::Queued,
        "ringing" => CallStatus::Ringing,
        "answered" | "in_progress" | "ongoing" | "active" | "processing" => CallStatus::InProgress,
        "completed" => CallStatus::Completed,
        "ended" => match end_reason {
            Some(EndReason::NoAnswer) => CallStatus::NoAnswer,
            Some(EndReason::Busy) => CallStatus::Busy,
            Some(EndReason::Failed | EndReason::Rejected) => CallStatus::Failed,
            _ => CallStatus::Completed,
        },
        "failed" | "error" | "not_connected" => CallStatus::Failed,
        "busy" => CallStatus::Busy,
        "no_answer" => CallStatus::NoAnswer,
        "cancelled" => CallStatus::Cancelled,
        _ => CallStatus::Unknown,
    }
}

/// The end reason of a platform's word.
pub(super) fn end_reason(word: &str) -> EndReason {
    match plain(word).as_str() {
        "normal_clearing" | "normal" => EndReason::Normal,
        "user_hangup" => EndReason::UserHangup,
        "agent_hangup" => EndReason::AgentHangup,
        "no_answer" | "dial_no_answer" => EndReason::NoAnswer,
        "busy" | "dial_busy" => EndReason::Busy,
        "rejected" | "user_declined" | "marked_as_spam" => EndReason::Rejected,
        "dial_failed"
        | "invalid_destination"
        | "telephony_provider_permission_denied"
        | "telephony_provider_unavailable"
        | "sip_routing_error"
        | "concurrency_limit_reached"
        | "no_valid_payment"
        | "registered_call_timeout"
        | "error_user_not_joined" => EndReason::Failed,
        "timeout" | "inactivity" | "max_duration_reached" => EndReason::Timeout,
        "network_error" | "connection_error" | "system_error" => EndReason::Error,
        "transfer_complete" | "call_transfer" | "transfer_bridged" => EndReason::Transferred,
        "voicemail_reached" | "voicemail" => EndReason::Voicemail,
        word if word.starts_with("error_") => EndReason::Error,
        word if word.starts_with("dial_") => EndReason::Failed,
        _ => EndReason::Other,
    }
}

/// The word written for an end reason. [`end_reason`] reads it back.
pub(super) const fn end_reason_word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Normal => "normal_clearing",
        EndReason::UserHangup => "user_hangup",
        EndReason::AgentHangup => "agent_hangup",
        EndReason::NoAnswer => "no_answer",
        EndReason::Busy => "busy",
        EndReason::Rejected => "rejected",
        EndReason::Failed => "dial_failed",
        EndReason::Timeout => "timeout",
        EndReason::Error => "network_error",
        EndReason::Transferred => "transfer_complete",
        EndReason::Voicemail => "voicemail_reached",
        EndReason::Other => "other",
    }
}

/// The word written for a status on platforms that name outcomes (KrosAI, Atoms). [`status`] reads it back.
pub(super) const fn status_word(status: CallStatus) -> &'static str {
    match status {
        CallStatus::Queued => "initiated",
        CallStatus::Ringing => "ringing",
        CallStatus::InProgress => "in_progress",
        CallStatus::Completed => "completed",
        CallStatus::Failed => "failed",
        CallStatus::Busy => "busy",
        CallStatus::NoAnswer => "no_answer",
        CallStatus::Cancelled => "cancelled",
        CallStatus::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_status_word_has_a_meaning() {
        let table = [
            ("initiated REGISTERED Scheduled pending in_queue queued", CallStatus::Queued),
            ("ringing", CallStatus::Ringing),
            ("answered in_progress in-progress ONGOING active processing", CallStatus::InProgress),
            ("completed ENDED", CallStatus::Completed),
            ("failed ERROR not_connected", CallStatus::Failed),
            ("busy", CallStatus::Busy),
            ("no_answer no-answer", CallStatus::NoAnswer),
            ("cancelled canceled", CallStatus::Cancelled),
            ("archived", CallStatus::Unknown),
        ];
        for (words, meaning) in table {
            for word in words.split(' ') {
                assert_eq!(status(Some(word), None), meaning, "{word}");
            }
        }
        assert_eq!(status(None, None), CallStatus::Unknown);
    }

    #[test]
    fn ended_says_nothing_about_the_outcome() {
        let ended = |reason| status(Some("ENDED"), Some(end_reason(reason)));
        assert_eq!(ended("DIAL_NO_ANSWER"), CallStatus::NoAnswer);
        assert_eq!(ended("dial_busy"), CallStatus::Busy);
        assert_eq!(ended("invalid_destination"), CallStatus::Failed);
        assert_eq!(ended("USER_HANGUP"), CallStatus::Completed);
        assert_eq!(ended("error_llm_websocket_open"), CallStatus::Completed);
        assert_eq!(status(Some("completed"), Some(EndReason::NoAnswer)), CallStatus::Completed);
    }

    #[test]
    fn rendered_words_are_read_back() {
        use CallStatus as S;
        use EndReason as E;
        let reasons = [
            E::Normal,
            E::UserHangup,
            E::AgentHangup,
            E::NoAnswer,
            E::Busy,
            E::Rejected,
            E::Failed,
            E::Timeout,
            E::Error,
            E::Transferred,
            E::Voicemail,
            E::Other,
        ];
        for reason in reasons {
            assert_eq!(end_reason(end_reason_word(reason)), reason);
        }
        let statuses = [
            S::Queued,
            S::Ringing,
            S::InProgress,
            S::Completed,
            S::Failed,
            S::Busy,
            S::NoAnswer,
            S::Cancelled,
            S::Unknown,
        ];
        for word in statuses {
            assert_eq!(status(Some(status_word(word)), None), word);
        }
    }
}
