//! The routes of the receiver.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::Value;

use super::records::{RecordChange, error};
use super::state::Inner;

pub(super) async fn read(State(inner): State<Arc<Inner>>, Path(id): Path<String>) -> Response {
    match inner.records.get(&id) {
        Some(record) => record.answer(),
        None => error(StatusCode::NOT_FOUND, "no record of this call"),
    }
}

pub(super) async fn replace(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Response {
    inner.records.write(id, &headers, asked, RecordChange::Replace)
}

pub(super) async fn change(
    State(inner): State<Arc<Inner>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Response {
    inner.records.write(id, &headers, asked, RecordChange::Merge)
}

pub(super) fn unauthorized() -> Response {
    error(StatusCode::UNAUTHORIZED, "missing or wrong key")
}
