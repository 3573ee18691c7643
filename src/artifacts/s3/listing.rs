//! Listings: current objects, versions and unfinished uploads.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::DateTime;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::{S3Requests, unsigned};
use crate::artifacts::{Entry, EntryKind, Result};

impl S3Requests {
    /// All versions and delete markers under a prefix.
    pub(in crate::artifacts) async fn versions_under(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut marker: (Option<String>, Option<String>) = (None, None);
        loop {
            let asked = self.client.list_object_versions().bucket(&self.bucket).prefix(prefix);
            let asked = asked.set_key_marker(marker.0.clone()).set_version_id_marker(marker.1.clone());
            let page = match asked.send().await {
                Ok(page) => page,
                // A service without versions (R2 and others) has current objects only.
                Err(err) if lacks(&err) => return self.list_pages(prefix.to_owned(), None).try_collect().await,
                Err(err) => return Err(self.failed("a listing of versions", &err)),
            };
            entries.extend(page.versions().iter().map(|version| Entry {
                key: version.key.clone().unwrap_or_default(),
                size_bytes: unsigned(version.size),
                modified: version.last_modified.and_then(moment),
                kind: if version.is_latest == Some(true) { EntryKind::Current } else { EntryKind::Superseded },
                version: version.version_id.clone(),
            }));
            entries.extend(page.delete_markers().iter().map(|deleted| Entry {
                key: deleted.key.clone().unwrap_or_default(),
                size_bytes: 0,
                modified: deleted.last_modified.and_then(moment),
                kind: EntryKind::DeleteMarker,
                version: deleted.version_id.clone(),
            }));
            if page.is_truncated != Some(true) {
                return Ok(entries);
            }
            marker = self.advance(&marker, (page.next_key_marker, page.next_version_id_marker))?;
        }
    }

    /// Unfinished uploads under a prefix.
    pub(in crate::artifacts) async fn uploads_under(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut marker: (Option<String>, Option<String>) = (None, None);
        loop {
            let asked = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
            let asked = asked.set_key_marker(marker.0.clone()).set_upload_id_marker(marker.1.clone());
            let page = match asked.send().await {
                Ok(page) => page,
                Err(err) if lacks(&err) => return Ok(entries),
                Err(err) => return Err(self.failed("a listing of uploads", &err)),
            };
            entries.extend(page.uploads().iter().map(|upload| Entry {
                key: upload.key.clone().unwrap_or_default(),
                size_bytes: 0,
                modified: upload.initiated.and_then(moment),
                kind: EntryKind::Upload,
                version: upload.upload_id.clone(),
            }));
            if page.is_truncated != Some(true) {
                return Ok(entries);
            }
            marker = self.advance(&marker, (page.next_key_marker, page.next_upload_id_marker))?;
        }
    }

    /// Fails when a truncated listing returns the same marker again, because the loop would never end.
    fn advance<T: PartialEq>(
        &self,
        from: &(Option<T>, Option<T>),
        to: (Option<T>, Option<T>),
    ) -> Result<(Option<T>, Option<T>)> {
        if to.0.is_none() || to == *from {
            return Err(self.unavailable("a listing", "the listing is truncated, but its marker does not advance"));
        }
        Ok(to)
    }

    /// Current objects under a prefix, page by page. S3 sorts them by key.
    pub(in crate::artifacts) fn list_pages(
        &self,
        prefix: String,
        after: Option<String>,
    ) -> BoxStream<'static, Result<Entry>> {
        enum Next {
            Page(Option<String>),
            End,
        }
        let store = self.clone();
        let pages = stream::try_unfold(Next::Page(None), move |next| {
            let (store, prefix, after) = (store.clone(), prefix.clone(), after.clone());
            async move {
                let Next::Page(token) = next else { return Ok(None) };
                let asked = store.client.list_objects_v2().bucket(&store.bucket).prefix(prefix).set_start_after(after);
                let asked = asked.set_continuation_token(token.clone()).send().await;
                let page = asked.map_err(|err| store.failed("a listing", &err))?;
                let entries: Vec<Result<Entry>> = page.contents().iter().map(|object| Ok(current(object))).collect();
                let next = if page.is_truncated == Some(true) {
                    Next::Page(store.advance(&(token, None), (page.next_continuation_token, None))?.0)
                } else {
                    Next::End
                };
                Ok(Some((stream::iter(entries), next)))
            }
        });
        pages.try_flatten().boxed()
    }
}

fn current(object: &aws_sdk_s3::types::Object) -> Entry {
    Entry {
        key: object.key.clone().unwrap_or_default(),
        size_bytes: unsigned(object.size),
        modified: object.last_modified.and_then(moment),
        kind: EntryKind::Current,
        version: None,
    }
}

fn moment(at: DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), at.subsec_nanos() as i32).ok()
}

/// True when the service does not implement this operation.
fn lacks<E: ProvideErrorMetadata>(err: &SdkError<E>) -> bool {
    err.raw_response().is_some_and(|answer| answer.status().as_u16() == 501) || err.code() == Some("NotImplemented")
}
